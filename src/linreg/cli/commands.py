"""The commands, each: read the arguments, call, print. Torch is imported by what is called, when it is called."""

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linreg.cli import options as o
from linreg.cli.cache import cache_app
from linreg.cli.expectations import OF_TRAINING, parse_expectations, require
from linreg.cli.inputs import InputsCommand, parse_rows
from linreg.cli.progress import StopFlag, open_progress, open_row_count, stop_on_signals
from linreg.cli.runs import runs_app
from linreg.cli.text import coefficients_table, duration, fit_line, number, put, put_json, say, show_log, table
from linreg.errors import CheckpointError, UsageError
from linreg.system.memory import give_back_what_is_freed
from linreg.system.startup import importing_torch
from linreg.system.version import __version__

if TYPE_CHECKING:
    from linreg.experiment import Result

EXIT_CODES = """\
Exit codes: 0 ok, 1 a bug of linreg, 2 usage or spec, 3 data, 4 checkpoint, 5 storage (disk full, no permission,
run in use), 6 diverged, 7 --expect not met, 129 SIGHUP, 130 SIGINT, 143 SIGTERM."""

MOST_COEFFICIENTS = 20  # shown in a summary

app = typer.Typer(
    help="Train regression models with PyTorch from YAML experiment specs.",
    epilog=f"\b\nExample: linreg train configs/simple_linear_regression.yaml\n\n{EXIT_CODES}",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        put(f"linreg {__version__}")
        raise typer.Exit


app.add_typer(runs_app, name="runs", invoke_without_command=True)
app.add_typer(cache_app, name="cache", invoke_without_command=True)


@app.callback()
def _linreg(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: o.Debug = False,
) -> None:
    pass


@app.command(epilog="\b\nExample: linreg train configs/simple_linear_regression.yaml optimizer.lr=0.05 epochs=50")
def train(
    spec: o.Spec,
    overrides: o.Overrides = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue this spec's last run if it was interrupted, else start."),
    ] = False,
    epochs: o.Epochs = None,
    device: o.Device = None,
    name: o.Name = None,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    quiet: o.Quiet = False,
    expect: o.Expect = None,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """Train a spec; print the path of the checkpoint."""
    expectations = parse_expectations(expect or [], OF_TRAINING)
    loaded = _load_spec(spec, overrides, plugin, epochs=epochs, device=device, name=name)

    give_back_what_is_freed()
    with importing_torch():
        from linreg import experiment

    show_log(quiet=quiet)
    call = experiment.train_or_resume if resume else experiment.train
    with stop_on_signals() as stop, open_progress(quiet=quiet) as report:
        result = call(loaded, runs=runs, checkpoints=checkpoints, report=report, stop=stop)
    _print_result(result, stop, json=json, quiet=quiet, places=_places(runs, checkpoints))
    require(expectations, asdict(result))


@app.command(epilog="\b\nExample: linreg resume checkpoints/simple_linear_regression_001/last.pth --epochs 400")
def resume(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT|RUN", help="A checkpoint (.pth), or a run.", show_default=False)
    ],
    overrides: o.Overrides = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on even if the data is other than it was, in a new run.")
    ] = False,
    epochs: o.Epochs = None,
    device: o.Device = None,
    name: o.Name = None,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    quiet: o.Quiet = False,
    expect: o.Expect = None,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """Finish an interrupted run; a finished one trains as many epochs again."""
    expectations = parse_expectations(expect or [], OF_TRAINING)
    _load_plugins(plugin)
    settings = _settings(overrides, device=device, name=name, epochs=epochs)

    give_back_what_is_freed()
    with importing_torch():
        from linreg import experiment

    show_log(quiet=quiet)
    with stop_on_signals() as stop, open_progress(quiet=quiet) as report:
        result = experiment.resume(
            checkpoint,
            settings,
            runs=runs,
            checkpoints=checkpoints,
            report=report,
            stop=stop,
            other_data=other_data,
        )
    _print_result(result, stop, json=json, quiet=quiet, places=_places(runs, checkpoints))
    require(expectations, asdict(result))


@app.command(cls=InputsCommand, epilog="\b\nExample: linreg predict --inputs 0.2 0.34 -1e-3")
def predict(
    checkpoint: o.LatestCheckpoint = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--inputs",
            metavar="VALUE ...",
            help="Values up to the next option: 0.2 0.34, rows of several features 1,2 3,4, or x1=1 x2=2.",
            show_default=False,
        ),
    ] = None,
    table_: Annotated[
        Path | None,
        typer.Option(
            "--input", metavar="FILE", help="A table to predict for; - for what is piped in.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Where to write, as .csv, .csv.gz, .parquet or .jsonl; by default CSV to stdout.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMN",
            help="A column of the table to write too; repeatable, '*' for all.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            metavar="LEVEL",
            help="Bounds that hold a new point with this probability, as 0.95; of exact fits.",
            show_default=False,
        ),
    ] = None,
    device: o.Device = "cpu",
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    quiet: o.Quiet = False,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """Predict: a line for each of the inputs, or a whole table."""
    if interval is not None and not 0 < interval < 1:
        raise UsageError(f"--interval {interval:g}: must lie between 0 and 1; write for instance 0.95")
    if table_ is not None:
        if inputs or json:
            raise UsageError(f"--input {table_}: goes with neither --inputs nor --json; use --output FILE.jsonl")
        _predict_table(checkpoint, table_, output, keep, interval, device, checkpoints, quiet, plugin)
        return
    if not inputs:
        raise UsageError("--inputs: missing; write for instance --inputs 0.2 0.34, or --input FILE")
    if output is not None or keep:
        raise UsageError(f"{'--keep' if keep else '--output'}: belongs to --input FILE; add that, or remove it")
    rows = parse_rows(inputs)
    _load_plugins(plugin)
    path = _checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg import experiment

    show_log(quiet=quiet)
    predicted = experiment.predict(path, rows, device=device or "cpu", interval=interval)
    bounds = [bound for bound in (predicted.lower, predicted.upper) if bound is not None]
    if json:
        put_json(
            {
                "checkpoint": str(path),
                "features": predicted.feature_names,
                "targets": predicted.target_names,
                "inputs": [
                    [given if isinstance(given, str) else float(str(value)) for given, value in zip(*row, strict=True)]
                    for row in zip(predicted.rows, predicted.inputs, strict=True)
                ],
                "predictions": [[float(str(value)) for value in row] for row in predicted.predictions],
                **{
                    name: [[float(str(value)) for value in row] for row in bound]
                    for name, bound in zip(("lower", "upper"), bounds, strict=False)
                },
            }
        )
    else:
        parts = zip(predicted.predictions, *bounds, strict=True)
        put("\n".join(",".join(str(value) for part in row for value in part) for row in parts))


@app.command(epilog='\b\nExample: linreg evaluate --expect "r2>0.9"')
def evaluate(
    checkpoint: o.LatestCheckpoint = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="A table to measure on instead.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE.png", help="Draw predicted against actual, and the residuals.", show_default=False
        ),
    ] = None,
    device: o.Device = "cpu",
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="TEXT",
            help='Exit with 7 unless met, as "r2>0.9" or "y.rmse<=3"; repeatable.',
            show_default=False,
        ),
    ] = None,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """Measure a checkpoint on its validation part, or on a table."""
    _load_plugins(plugin)
    path = _checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg import experiment

    show_log(quiet=False)
    evaluation = experiment.evaluate(path, data=data, device=device or "cpu", plot=plot)
    results = dict(next(iter(evaluation.metrics.values()))) if len(evaluation.metrics) == 1 else {}
    for target, metrics in evaluation.metrics.items():
        results |= {f"{target}.{metric}": value for metric, value in metrics.items()}
    expectations = parse_expectations(expect or [], results)
    if json:
        put_json({"checkpoint": str(path), **asdict(evaluation)})
    else:
        part = evaluation.part if data else f"{evaluation.part} part"
        say(f"{part}, {evaluation.n_samples} points")
        rows = [{"target": target, **metrics} for target, metrics in evaluation.metrics.items()]
        put(table(rows, ["target", "mse", "rmse", "mae", "r2"]))
    require(expectations, results)


@app.command(epilog="\b\nExample: linreg init houses.csv --target price > houses.yaml")
def init(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table: a file, or a folder of them.", show_default=False)
    ],
    target: Annotated[
        list[str],
        typer.Option("--target", metavar="COLUMN", help="A column to predict; repeatable.", show_default=False),
    ],
    name: o.Name = None,
    delimiter: Annotated[
        str | None,
        typer.Option("--delimiter", metavar="CHAR", help="What stands between the columns.", show_default=False),
    ] = None,
    missing_value: Annotated[
        list[str] | None,
        typer.Option("--missing-value", metavar="TEXT", help="What stands for a gap; repeatable.", show_default=False),
    ] = None,
    debug: o.Debug = False,
) -> None:
    """Look at a table; print a commented spec to begin with."""
    from linreg.experiment.starter import starter_spec

    put(starter_spec(data, targets=target, name=name, delimiter=delimiter, missing_values=missing_value or []))


@app.command(epilog="\b\nExample: linreg check configs/simple_linear_regression.yaml data.batch_size=32")
def check(
    spec: o.Spec,
    overrides: o.Overrides = None,
    device: o.Device = None,
    name: o.Name = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """Build a spec and run one batch, writing nothing; print the resolved spec."""
    loaded = _load_spec(spec, overrides, plugin, device=device, name=name)

    with importing_torch():
        from linreg import experiment

    show_log(quiet=quiet)
    found = experiment.check(loaded)
    if json:
        put_json({"spec": loaded.to_dict(), **found})
        return
    if not quiet:
        features = f"{len(found['features'])} feature{'s' * (len(found['features']) != 1)}"
        say(
            f"ok: {found['n_train']} of {found['n_samples']} points to train on, {features}, "
            f"{found['n_parameters']} parameters, on {found['device']}; "
            f"{'exact' if loaded.solver == 'exact' else 'first batch'}: loss {number(found['loss'])}, "
            f"val_loss {number(found['val_loss'])}"
        )
    put(loaded.to_yaml().rstrip("\n"))


@app.command(epilog="\b\nExample: linreg inspect checkpoints/simple_linear_regression_001/last.pth")
def inspect(
    checkpoint: o.LatestCheckpoint = None,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show what is in a checkpoint, without running it."""
    path = _checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.checkpoint import load_or_advise, summary
    from linreg.spec.document import write_yaml

    saved = load_or_advise(path)
    found = summary(saved)
    if json:
        put_json(found)
        return
    coefficients = found.pop("coefficients", None)
    put(write_yaml(found).rstrip("\n"))
    if coefficients:
        put("coefficients:\n" + coefficients_table(coefficients))


@app.command("list", epilog="\b\nExample: linreg list optimizer")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="source, model, loss, optimizer or scheduler.", show_default=False),
    ] = None,
    json: o.Json = False,
    plugin: o.Plugin = None,
    debug: o.Debug = False,
) -> None:
    """List the components, with their params, types and defaults."""
    _load_plugins(plugin)
    from linreg.errors import suggest
    from linreg.spec.schema import REGISTRIES

    if kind is not None and kind not in REGISTRIES:
        raise UsageError(f"list {kind}: unknown kind; {suggest(kind, REGISTRIES)}")
    registries = [registry for name, registry in REGISTRIES.items() if kind in (None, name)]
    components = [component for registry in registries for component in registry]
    if json:
        put_json([component.to_dict() for component in components])
        return
    lines = []
    for component in components:
        lines.append(f"{component.kind} {component.name}: {component.summary}")
        params = [{"param": f"    {param}", **said} for param, said in component.described().items()]
        lines += table(params, ["param", "type", "default"]).splitlines()[1:] if params else []
    put("\n".join(lines))


@app.command(epilog="\b\nExample: linreg schema > linreg.schema.json")
def schema(plugin: o.Plugin = None, debug: o.Debug = False) -> None:
    """Print the JSON Schema of a spec, for editors."""
    _load_plugins(plugin)
    from linreg.spec.schema import json_schema

    put_json(json_schema())


def _predict_table(
    checkpoint: Path | None,
    table_: Path,
    output: Path | None,
    keep: list[str] | None,
    interval: float | None,
    device: str | None,
    checkpoints: Path,
    quiet: bool,
    plugin: list[Path] | None,
) -> None:
    _load_plugins(plugin)
    path = _checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.experiment.predicting_table import predict_table

    show_log(quiet=quiet)
    source = None if str(table_) == "-" else table_
    with stop_on_signals() as stop, open_row_count(quiet=quiet or output is None) as tell:

        def report(rows: int) -> None:
            if stop():
                raise typer.Exit(stop.exit_code)
            if tell:
                tell(rows)

        done = predict_table(
            path, source, output, keep=keep or (), interval=interval, device=device or "cpu", report=report
        )
    if output is not None:
        if not quiet:
            say(f"{done} rows")
        put(str(output))


def _load_plugins(plugin: list[Path] | None) -> None:
    if plugin:
        import linreg.spec.schema  # noqa: F401  # the built-in components first, so that a plugin cannot take their names
        from linreg.plugins import load_plugins

        with importing_torch():
            load_plugins(plugin)


def _load_spec(spec: Path, overrides: list[str] | None, plugin: list[Path] | None, **named: object) -> Any:
    from linreg.spec.schema import load_spec

    _load_plugins(plugin)
    return load_spec(spec, _settings(overrides, **named))


def _settings(overrides: list[str] | None, **named: object) -> list[str]:
    """The overrides, those that have an option of their own among them."""
    return [*(overrides or []), *(f"{key}={dumps(value)}" for key, value in named.items() if value is not None)]


def _checkpoint_or_latest(checkpoint: Path | None, checkpoints: Path) -> Path:
    if checkpoint is not None:
        return checkpoint
    from linreg.runs.folders import latest_checkpoint

    latest = latest_checkpoint(checkpoints)
    if latest is None:
        raise CheckpointError(f"{checkpoints / 'latest'}: no checkpoint yet; train first, or name one")
    say(f"using {latest}")
    return latest


def _places(runs: Path, checkpoints: Path) -> str:
    """The options that lead back to these folders."""
    return "".join(
        f" {option} {place}"
        for option, place, default in (
            ("--runs", runs, o.RUNS),
            ("--checkpoints", checkpoints, o.CHECKPOINTS),
        )
        if place != default
    )


def _print_result(result: "Result", stop: StopFlag, *, json: bool, quiet: bool, places: str) -> None:
    """Print the result; of a run that a signal stopped, say how to go on, and exit as the signal asks."""
    said = not quiet and result.epochs > 0
    if said:
        val_loss = "" if result.val_loss is None else f", val_loss {result.val_loss:.6g}"
        optimum, reached = result.exact_loss, result.loss
        if result.exact_val_loss is not None:
            optimum, reached = result.exact_val_loss, result.val_loss
        if optimum is not None and reached is not None and result.engine != "exact":
            distance = f", {100 * (reached / optimum - 1):+,.1f} %" if optimum > 0 else ""
            val_loss += f" (exact {optimum:.6g}{distance})"
        best = result.best_loss if result.best_val_loss is None else result.best_val_loss
        word = result.outcome.replace("_", " ")
        if result.fit and len(result.fit["coefficients"]) <= MOST_COEFFICIENTS:
            say(coefficients_table(result.fit["coefficients"]))
        if result.fit:
            say(fit_line(result.fit))
        how = f"{word} after {result.epochs} epochs" if result.engine != "exact" else "solved exactly"
        lowest = f" (best {number(best)} in epoch {result.best_epoch})" if result.engine != "exact" else ""
        say(f"{how}, {duration(result.seconds)} on {result.device}: loss {number(result.loss)}{val_loss}{lowest}")
    if json:
        put_json(asdict(result))
    else:
        put(result.checkpoint)
    if result.outcome == "interrupted":
        word = "" if said else "interrupted; "
        say(f"{word}go on with: linreg resume {result.checkpoint}{places}")
        raise typer.Exit(stop.exit_code)
