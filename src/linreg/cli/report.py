"""`linreg report`."""

from pathlib import Path
from typing import Annotated

import typer

from linreg.cli import options as o
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.text import print_stdout
from linreg.system.startup import importing_torch


def report(
    names: Annotated[
        list[Path] | None,
        o.argument("CKPT|RUN ...", "A run, checkpoint, sweep or cross-validation, or several to compare."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="File to write or replace.")
    ] = Path("report.html"),
    no_rows: Annotated[bool, typer.Option("--no-rows", help="Leave out the rows with the largest errors.")] = False,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    plugin: o.Plugin = None,
) -> None:
    """Write an HTML report about a model, or a comparison: one file, to read without network."""
    load_plugins(plugin)

    with importing_torch():
        from linreg.experiment.report.writing import has_trials, write_report

    subjects: list[Path] = list(names or [])
    if not subjects or (len(subjects) == 1 and not has_trials(runs / subjects[0])):
        subjects = [checkpoint_or_latest(subjects[0] if subjects else None, checkpoints)]
    write_report(subjects, output, runs=runs, checkpoints=checkpoints, with_rows=not no_rows)
    print_stdout(str(output))
