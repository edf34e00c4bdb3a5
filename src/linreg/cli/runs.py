"""`linreg runs`, `linreg runs rm` and `linreg runs compare`."""

from typing import Annotated

import typer

from linreg.cli import options as o
from linreg.cli.text import format_table, print_json, print_stderr, print_stdout
from linreg.errors import UsageError


def list_runs(
    context: typer.Context,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
) -> None:
    """List the runs, remove some, or compare two."""
    if context.invoked_subcommand is not None:
        if (runs, checkpoints) != (o.RUNS, o.CHECKPOINTS):
            raise UsageError(f"runs: write --runs and --checkpoints after {context.invoked_subcommand}, not before it")
        return
    from linreg.runs.listing import summaries

    rows = summaries(runs, checkpoints)
    if json:
        print_json(rows)
    elif rows:
        print_stdout(format_table(rows, list(rows[0])))
    else:
        print_stderr(f"{runs}: no runs yet; linreg train creates one")


def remove_runs(
    names: Annotated[list[str], o.argument("NAME ...", "Runs.")],
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
) -> None:
    """Remove runs: their folders and their checkpoints."""
    from linreg.runs.folders import remove

    for name in names:
        remove(name, runs, checkpoints)
        print_stderr(f"removed {name}")


def compare_runs(
    a: Annotated[str, o.argument("A", "A run.")],
    b: Annotated[str, o.argument("B", "Another run.")],
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
) -> None:
    """Compare the results of two runs, and the settings that differ."""
    from linreg.runs.listing import compare

    rows = compare(a, b, runs, checkpoints)
    if json:
        print_json({"a": a, "b": b, "rows": rows})
    else:
        settings = [{"": row["setting"], **row} for row in rows]
        print_stdout(format_table([{"": "run", "a": a, "b": b}, *settings], ["", "a", "b"]))
