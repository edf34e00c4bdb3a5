"""`linreg cache`: show the tables that were converted for `data.memory: mapped`, or remove them."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from linreg.cli import options as o
from linreg.cli.text import put, put_json, say, table
from linreg.errors import UsageError

if TYPE_CHECKING:
    from linreg.data.cache import Entry

cache_app = typer.Typer(
    help="Show the tables that were converted for data.memory: mapped, or remove them.",
    epilog="\b\nExample: linreg cache clear",
    rich_markup_mode=None,
)


@cache_app.callback()
def show_cache(context: typer.Context, json: o.Json = False, debug: o.Debug = False) -> None:
    """Show the tables that were converted for data.memory: mapped, or remove them."""
    if context.invoked_subcommand is not None:
        if json:
            raise UsageError(f"cache: write --json after {context.invoked_subcommand}, not before it")
        return
    from linreg.data.cache import cache_folder, entries, most_bytes

    folder, most = cache_folder(), most_bytes()
    found = entries(folder)
    total = sum(entry.bytes for entry in found)
    if json:
        put_json(
            {"folder": str(folder), "bytes": total, "most_bytes": most, "tables": [asdict(entry) for entry in found]}
        )
        return
    say(f"{folder}: {_tables(found)} of at most {_size(most)}")
    if found:
        rows = [
            {
                "source": entry.source or entry.key[:12],
                "rows": entry.n_rows,
                "columns": entry.n_columns,
                "size": _size(entry.bytes),
                "used": entry.used[:19],
                "": "damaged" if entry.damaged else "in use" if entry.in_use else "",
            }
            for entry in found
        ]
        put(table(rows, list(rows[0])))


@cache_app.command("clear", epilog="\b\nExample: linreg cache clear --json")
def clear_cache(json: o.Json = False, debug: o.Debug = False) -> None:
    """Remove the converted tables, other than those in use."""
    from linreg.data.cache import cache_folder, clear

    folder = cache_folder()
    removed, kept = clear(folder)
    if json:
        put_json(
            {
                "folder": str(folder),
                "removed": [asdict(entry) for entry in removed],
                "in_use": [asdict(entry) for entry in kept],
            }
        )
        return
    in_use = f"; {len(kept)} in use stayed" if kept else ""
    say(f"removed {_tables(removed)}{in_use}")


def _tables(found: "list[Entry]") -> str:
    return f"{len(found)} table{'s' * (len(found) != 1)}, {_size(sum(entry.bytes for entry in found))}"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.3g} MiB"
