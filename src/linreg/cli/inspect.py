"""`linreg inspect`."""

from typing import Annotated

import typer

from linreg.cli import options as o
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.summary import summary_text
from linreg.cli.text import print_json, print_stdout, show_log, terminal_width
from linreg.errors import UsageError
from linreg.system.startup import importing_torch


def inspect(
    checkpoint: o.LatestCheckpoint = None,
    level: Annotated[float, typer.Option("--level", metavar="LEVEL", help="Of the confidence intervals.")] = 0.95,
    robust: Annotated[
        str | None,
        o.option(
            "--robust", "KIND", "Robust standard errors: HC0, HC1, HC2, HC3 or cluster=COLUMN; reads the data again."
        ),
    ] = None,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    plugin: o.Plugin = None,
) -> None:
    """Show the content of a checkpoint: coefficients with standard errors and tests, and facts of the run."""
    if not 0 < level < 1:
        raise UsageError(f"--level: must be between 0 and 1, got {level:g}; write for instance 0.95")
    load_plugins(plugin)
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.checkpoint import load_or_advise, summary

    covariance = None
    if robust is not None:
        from linreg.experiment.robust import robust_covariance  # imports much that a checkpoint does not need

        show_log(quiet=False)
        covariance = robust_covariance(path, robust)
    content = summary(load_or_advise(path), level=level, robust=covariance)
    if json:
        print_json(content)
    else:
        print_stdout(summary_text(content, width=terminal_width() or 80))
