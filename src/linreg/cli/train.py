"""`linreg train` and `linreg resume`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linreg.cli import options as o
from linreg.cli.expectations import OF_TRAINING, Expectation, check_expectations, parse_expectations
from linreg.cli.launching import is_restarted, launch
from linreg.cli.loading import load_plugins, load_spec
from linreg.cli.progress import open_progress
from linreg.cli.signals import stop_on_signals
from linreg.cli.text import (
    coefficients_table,
    fit_line,
    format_duration,
    format_value,
    print_json,
    print_stderr,
    print_stdout,
    show_log,
)
from linreg.system.place import place
from linreg.system.startup import importing_torch

if TYPE_CHECKING:
    from linreg.experiment.result import Result
    from linreg.spec.schema import ExperimentSpec

NO_LOSS = 1e-6  # of an exact solution, relative to a loss beside it
MOST_COEFFICIENTS = 20  # in a summary


def train(
    context: typer.Context,
    spec: o.Spec,
    options: o.TrainOptions,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume this spec's last run if it was interrupted, else start.")
    ] = False,
    processes: o.Processes = None,
) -> None:
    """Train a spec; print the path of the checkpoint."""
    expectations = parse_expectations(options.expect or [], OF_TRAINING)
    loaded = load_spec(spec, options.all_overrides(), options.plugin)
    _launch(context, processes, loaded)

    with importing_torch():
        from linreg.experiment import resuming, session

    begin = resuming.train_or_resume if resume or is_restarted() else session.train
    _run(partial(begin, loaded), options, expectations, loaded)


def resume(
    context: typer.Context,
    checkpoint: Annotated[Path, o.argument("CKPT|RUN", "A checkpoint (.pth), or a run.")],
    options: o.TrainOptions,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Resume even if the data has changed, in a new run.")
    ] = False,
    processes: o.Processes = None,
) -> None:
    """Finish an interrupted run, or extend a finished one."""
    expectations = parse_expectations(options.expect or [], OF_TRAINING)
    load_plugins(options.plugin)
    _launch(context, processes, None)

    with importing_torch():
        from linreg.experiment import resuming

    call = partial(resuming.resume, checkpoint, options.all_overrides(), other_data=other_data)
    _run(call, options, expectations, None)


def _launch(context: typer.Context, processes: int | None, spec: "ExperimentSpec | None") -> None:
    """Start this command in several processes, if that is asked for, and end with their exit code. Raises SpecError for
    a spec that they cannot share."""
    if processes is None:
        return
    if spec is not None:
        from linreg.spec.sharing import refuse_unshared

        refuse_unshared(spec, processes)
    raise typer.Exit(launch(context.obj, processes))


def _run(
    call: Callable[..., "Result"],
    options: o.TrainOptions,
    expectations: Sequence[Expectation],
    spec: "ExperimentSpec | None",
) -> None:
    """Call a function that trains, with progress and signals. Print its result and check the expectations.

    In a group only the first process does so. The others train what it sends them; spec: what that probably is."""
    if not place().is_first:
        _follow(spec)
        return
    show_log(quiet=options.quiet)
    with stop_on_signals() as stop, open_progress(quiet=options.quiet) as report:
        result = call(runs=options.runs, checkpoints=options.checkpoints, report=report, stop=stop)
    has_summary = not options.quiet and result.epochs > 0
    if has_summary:
        print_stderr(_summary(result))
    if options.json:
        print_json(asdict(result))
    else:
        print_stdout(result.checkpoint)
    if result.outcome == "interrupted":
        reason = "" if has_summary else "interrupted; "
        print_stderr(f"{reason}resume with: linreg resume {result.checkpoint}{_folders(options)}")
        raise typer.Exit(stop.exit_code)
    check_expectations(expectations, asdict(result))


def _follow(spec: "ExperimentSpec | None") -> None:
    from linreg.experiment.following import follow

    show_log(quiet=True)
    with stop_on_signals() as stop:
        outcome = follow(spec, stop)
    if outcome == "interrupted":
        raise typer.Exit(stop.exit_code)


def _summary(result: "Result") -> str:
    """Describe a result: its coefficients, unless there are many, and the losses next to the exact ones."""
    lines = []
    if result.fit and len(result.fit["coefficients"]) <= MOST_COEFFICIENTS:
        lines.append(coefficients_table(result.fit["coefficients"]))
    if result.fit:
        lines.append(fit_line(result.fit))
    losses = f"loss {format_value(result.loss)}"
    if result.val_loss is not None:
        losses += f", val_loss {result.val_loss:.6g}"
    if result.engine == "exact":
        how = "solved exactly"
    else:
        how = f"{result.outcome.replace('_', ' ')} after {result.epochs} epochs"
        best = result.best_loss if result.best_val_loss is None else result.best_val_loss
        losses += f"{_distance(result)} (best {format_value(best)} in epoch {result.best_epoch})"
    lines.append(f"{how}, {format_duration(result.seconds)} on {result.device}: {losses}")
    return "\n".join(lines)


def _distance(result: "Result") -> str:
    """Compare the loss with that of the exact solution, if it is known."""
    exact, loss = result.exact_loss, result.loss
    if result.exact_val_loss is not None:
        exact, loss = result.exact_val_loss, result.val_loss
    if exact is None or loss is None:
        return ""
    if exact <= NO_LOSS * abs(loss):
        return f" (exact {exact:.3g}: {loss - exact:.3g} above)"
    ratio = loss / exact
    return f" (exact {exact:.6g}, {f'{ratio:,.0f} times' if ratio > 11 else f'{100 * (ratio - 1):+,.1f} %'})"


def _folders(options: o.TrainOptions) -> str:
    """Return the options for folders that are not the default ones."""
    folders = (("--runs", options.runs, o.RUNS), ("--checkpoints", options.checkpoints, o.CHECKPOINTS))
    return "".join(f" {option} {folder}" for option, folder, default in folders if folder != default)
