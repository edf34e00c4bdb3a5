"""`linreg predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from linreg.cli import options as o
from linreg.cli.inputs import parse_rows
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.progress import open_row_count
from linreg.cli.signals import stop_on_signals
from linreg.cli.text import print_json, print_stderr, print_stdout, show_log
from linreg.errors import UsageError
from linreg.system.startup import importing_torch

if TYPE_CHECKING:
    from linreg.experiment.predicting import Prediction

Inputs = Annotated[
    list[str] | None,
    o.option(
        "--inputs",
        "VALUE ...",
        "Values up to the next option: 0.2 0.34, rows of several features 1,2 3,4, or x1=1 x2=2.",
    ),
]


def predict(
    checkpoint: o.LatestCheckpoint = None,
    inputs: Inputs = None,
    table: Annotated[
        str | None, o.option("--input", "FILE|URL", "A table to predict for; - reads it from stdin.")
    ] = None,
    output: Annotated[
        Path | None,
        o.option("--output", "FILE", "File to write: .csv, .csv.gz, .parquet or .jsonl; by default CSV to stdout."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        o.option("--keep", "COLUMN", "A column of the table to write too; repeatable, '*' for all."),
    ] = None,
    on_gap: Annotated[
        Literal["error", "empty"] | None,
        o.option("--on-gap", "error|empty", "For a row with a gap: an error, or an empty prediction."),
    ] = None,
    interval: Annotated[
        float | None,
        o.option("--interval", "LEVEL", "Add intervals of this level, as 0.95; see intervals in the spec."),
    ] = None,
    device: o.Device = "cpu",
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    quiet: o.Quiet = False,
    plugin: o.Plugin = None,
) -> None:
    """Predict the targets of some inputs, or of a whole table."""
    of_table = {"--output": output, "--keep": keep, "--on-gap": on_gap}
    _check_options(inputs, table, [name for name, value in of_table.items() if value], interval, json=json)
    rows = parse_rows(inputs or [])
    load_plugins(plugin)
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.experiment.predicting import predict
        from linreg.experiment.predicting_table import predict_table

    show_log(quiet=quiet)
    common: dict[str, Any] = {"device": device or "cpu", "interval": interval}
    if table is None:
        _print(path, predict(path, rows, **common), json=json)
        return
    with stop_on_signals() as stop, open_row_count(quiet=quiet or output is None) as show:

        def report(n_rows: int) -> None:
            if stop():
                raise typer.Exit(stop.exit_code)
            if show:
                show(n_rows)

        n_rows = predict_table(
            path, None if table == "-" else table, output, keep=keep or (), on_gap=on_gap, report=report, **common
        )
    if output is not None:
        if not quiet:
            print_stderr(f"{n_rows} rows")
        print_stdout(str(output))


def _check_options(
    inputs: list[str] | None,
    table: str | None,
    of_table: list[str],
    interval: float | None,
    *,
    json: bool,
) -> None:
    """Raise a UsageError for options that do not fit together. of_table: those in use that only tables have."""
    if interval is not None and not 0 < interval < 1:
        raise UsageError(f"--interval: must be between 0 and 1, got {interval:g}; write for instance 0.95")
    if table is not None and (inputs or json):
        raise UsageError("--input: excludes --inputs and --json; use --output FILE.jsonl")
    if table is None and not inputs:
        raise UsageError("--inputs: missing; write for instance --inputs 0.2 0.34, or --input FILE")
    if table is None and of_table:
        raise UsageError(f"{of_table[-1]}: needs --input FILE; add it, or remove this option")


def _print(path: Path, prediction: "Prediction", *, json: bool) -> None:
    """Print the predictions for some inputs to stdout."""
    if json:
        print_json({"checkpoint": str(path), **_json_values(prediction)})
    else:
        columns = zip(prediction.predictions, *_bounds(prediction).values(), strict=True)
        print_stdout("\n".join(",".join(str(value) for part in row for value in part) for row in columns))


def _bounds(prediction: "Prediction") -> dict[str, Any]:
    """Return the bounds of the prediction intervals, if there are any."""
    return {"lower": prediction.lower, "upper": prediction.upper} if prediction.lower is not None else {}


def _json_values(prediction: "Prediction") -> dict[str, Any]:
    """Return a prediction as plain values. A float32 gets its shortest digits; a category stays text."""
    inputs = [
        [given if isinstance(given, str) else float(str(value)) for given, value in zip(*row, strict=True)]
        for row in zip(prediction.rows, prediction.inputs, strict=True)
    ]
    outputs = {"predictions": prediction.predictions, **_bounds(prediction)}
    return {
        "features": prediction.feature_names,
        "targets": prediction.target_names,
        "inputs": inputs,
        **{name: [[float(str(value)) for value in row] for row in rows] for name, rows in outputs.items()},
        **({} if prediction.interval is None else {"interval": prediction.interval}),
    }
