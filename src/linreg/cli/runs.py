"""`linreg runs`: list the runs, remove some, compare two."""

from typing import Annotated

import typer

from linreg.cli import options as o
from linreg.cli.text import put, put_json, say, table
from linreg.errors import UsageError

runs_app = typer.Typer(
    help="List the runs, remove some, or compare two.",
    epilog="\b\nExample: linreg runs compare simple_linear_regression_001 simple_linear_regression_002",
    rich_markup_mode=None,
)


@runs_app.callback()
def list_runs(
    context: typer.Context,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List the runs, remove some, or compare two."""
    if context.invoked_subcommand is not None:
        if (runs, checkpoints) != (o.RUNS, o.CHECKPOINTS):
            raise UsageError(f"runs: write --runs and --checkpoints after {context.invoked_subcommand}, not before it")
        return
    from linreg.runs.folders import summaries

    found = summaries(runs, checkpoints)
    if json:
        put_json(found)
    elif found:
        put(table(found, list(found[0])))
    else:
        say(f"{runs}: no runs yet; linreg train makes one")


@runs_app.command("rm", epilog="\b\nExample: linreg runs rm simple_linear_regression_001")
def remove_runs(
    names: Annotated[list[str], typer.Argument(metavar="NAME ...", help="Runs.", show_default=False)],
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    debug: o.Debug = False,
) -> None:
    """Remove runs: their folders and their checkpoints."""
    from linreg.runs.folders import remove

    for name in names:
        remove(name, runs, checkpoints)
        say(f"removed {name}")


@runs_app.command("compare", epilog="\b\nExample: linreg runs compare simple_linear_regression_001 smoke_001")
def compare_runs(
    a: Annotated[str, typer.Argument(metavar="A", help="A run.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False)],
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Compare two runs: how they stand, and the settings in which they differ."""
    from linreg.runs.folders import compare

    rows = compare(a, b, runs, checkpoints)
    if json:
        put_json({"a": a, "b": b, "rows": rows})
    else:
        put(table([{"": "run", "a": a, "b": b}, *({"": row["setting"], **row} for row in rows)], ["", "a", "b"]))
