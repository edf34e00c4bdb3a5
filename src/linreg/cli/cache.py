"""`linreg cache` and `linreg cache clear`."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from linreg.cli import options as o
from linreg.cli.text import format_count, format_table, print_json, print_stderr, print_stdout
from linreg.errors import UsageError

if TYPE_CHECKING:
    from linreg.data.cache import Entry


def list_cache(context: typer.Context, json: o.Json = False) -> None:
    """List or remove the tables converted for data.memory: mapped."""
    if context.invoked_subcommand is not None:
        if json:
            raise UsageError(f"cache: write --json after {context.invoked_subcommand}, not before it")
        return
    from linreg.data.cache import cache_folder, entries, most_bytes

    folder, most = cache_folder(), most_bytes()
    tables = entries(folder)
    total = sum(entry.bytes for entry in tables)
    if json:
        print_json(
            {"folder": str(folder), "bytes": total, "most_bytes": most, "tables": [asdict(entry) for entry in tables]}
        )
        return
    print_stderr(f"{folder}: {_tables(tables)} of at most {_size(most)}")
    if tables:
        rows = [
            {
                "source": entry.source or entry.key[:12],
                "rows": entry.n_rows,
                "columns": entry.n_columns,
                "size": _size(entry.bytes),
                "used": entry.used[:19],
                "": "damaged" if entry.damaged else "in use" if entry.in_use else "",
            }
            for entry in tables
        ]
        print_stdout(format_table(rows, list(rows[0])))


def clear_cache(json: o.Json = False) -> None:
    """Remove the converted tables that are not in use."""
    from linreg.data.cache import cache_folder, clear

    folder = cache_folder()
    removed, kept = clear(folder)
    if json:
        print_json(
            {
                "folder": str(folder),
                "removed": [asdict(entry) for entry in removed],
                "in_use": [asdict(entry) for entry in kept],
            }
        )
        return
    in_use = f"; kept {len(kept)} in use" if kept else ""
    print_stderr(f"removed {_tables(removed)}{in_use}")


def _tables(tables: "list[Entry]") -> str:
    return f"{format_count(len(tables), 'table')}, {_size(sum(entry.bytes for entry in tables))}"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.3g} MiB"
