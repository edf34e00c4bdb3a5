"""`linreg evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from linreg.cli import options as o
from linreg.cli.expectations import check_expectations, parse_expectations
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.text import format_table, print_json, print_stderr, print_stdout, show_log
from linreg.system.startup import importing_torch


def evaluate(
    checkpoint: o.LatestCheckpoint = None,
    part: Annotated[
        Literal["train", "val", "test"] | None, o.option("--part", "PART", "train, val or test; by default val.")
    ] = None,
    data: Annotated[Path | None, o.option("--data", "FILE", "A table to measure on instead.")] = None,
    plot: Annotated[
        Path | None, o.option("--plot", "FILE.png", "Plot predicted against actual targets, and the residuals.")
    ] = None,
    device: o.Device = "cpu",
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    expect: Annotated[
        list[str] | None,
        o.option("--expect", "TEXT", 'Exit with 7 if not met, as "r2>0.9" or "y.rmse<=3"; repeatable.'),
    ] = None,
    plugin: o.Plugin = None,
) -> None:
    """Measure a checkpoint on a part of its data, or on a table."""
    load_plugins(plugin)
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.experiment.evaluating import evaluate

    show_log(quiet=False)
    evaluation = evaluate(path, part=part, data=data, device=device or "cpu", plot=plot)
    targets = evaluation.metrics
    results = dict(next(iter(targets.values()))) if len(targets) == 1 else {}
    results |= {f"{target}.{name}": value for target, metrics in targets.items() for name, value in metrics.items()}
    expectations = parse_expectations(expect or [], results)
    if json:
        print_json({"checkpoint": str(path), **asdict(evaluation)})
    else:
        measured = evaluation.part if data else f"{evaluation.part} part"
        print_stderr(f"{measured}, {evaluation.n_samples} points")
        rows = [{"target": target, **metrics} for target, metrics in targets.items()]
        print_stdout(format_table(rows, list(rows[0])))
    check_expectations(expectations, results)
