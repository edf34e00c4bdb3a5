"""`linreg evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from linreg.cli import options as o
from linreg.cli.expectations import check_expectations, parse_expectations
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.progress import open_column_count
from linreg.cli.text import format_table, print_json, print_stderr, print_stdout, show_log, terminal_width
from linreg.errors import UsageError
from linreg.system.startup import importing_torch


@dataclass(frozen=True)
class MoreOptions:
    """The options that ask for more than metrics."""

    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Tests of the residuals, and the most influential rows.")
    ] = False
    plot: Annotated[
        Path | None, o.option("--plot", "FILE.png|DIR", "Diagnostics with a picture; in a folder diagnostics.png.")
    ] = None
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Diagnostics with the picture in the run's TensorBoard.")
    ] = False
    importance: Annotated[
        int | None,
        typer.Option(
            "--importance",
            metavar="N",
            min=1,
            show_default=False,
            help="Importance of each column of the table, by shuffling its values N times.",
        ),
    ] = None
    metric: Annotated[
        Literal["mse", "rmse", "mae", "r2"] | None,
        o.option(
            "--metric", "NAME", "Of --importance: mse, rmse, mae or r2; by default mae for the loss mae, or rmse."
        ),
    ] = None


def evaluate(
    more: MoreOptions,
    checkpoint: o.LatestCheckpoint = None,
    part: Annotated[
        Literal["train", "val", "test"] | None, o.option("--part", "PART", "train, val or test; by default val.")
    ] = None,
    data: Annotated[str | None, o.option("--data", "FILE|URL", "A table to measure on instead.")] = None,
    device: o.Device = "cpu",
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    expect: Annotated[
        list[str] | None,
        o.option("--expect", "TEXT", 'Exit with 7 if not met, as "r2>0.9" or "y.rmse<=3"; repeatable.'),
    ] = None,
    plugin: o.Plugin = None,
) -> None:
    """Measure a checkpoint on a part of its data, or on a table."""
    if more.metric is not None and more.importance is None:
        raise UsageError(f"--metric {more.metric}: is that of --importance; add for instance --importance 10")
    load_plugins(plugin)
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.experiment.evaluating import evaluate

    show_log(quiet=False)
    requested = {**vars(more), "board": runs if more.tensorboard else None}
    del requested["tensorboard"]
    with open_column_count(quiet=more.importance is None) as report:
        evaluation = evaluate(path, part=part, data=data, device=device or "cpu", report=report, **requested)
    targets = evaluation.metrics
    results = dict(next(iter(targets.values()))) if len(targets) == 1 else {}
    results |= {f"{target}.{name}": value for target, metrics in targets.items() for name, value in metrics.items()}
    expectations = parse_expectations(expect or [], results)
    content = evaluation.described()
    if json:
        print_json({"checkpoint": str(path), **content})
    else:
        from linreg.cli.evaluation import evaluation_text

        measured = evaluation.part if data else f"{evaluation.part} part"
        print_stderr(f"{measured}, {evaluation.n_samples} points")
        rows = [{"target": target, **metrics} for target, metrics in targets.items()]
        print_stdout(format_table(rows, list(rows[0])))
        for block in evaluation_text(content, width=terminal_width() or 80):
            print_stdout(f"\n{block}")
    check_expectations(expectations, results)
