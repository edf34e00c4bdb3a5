"""`linreg runs`, `linreg runs rm` and `linreg runs compare`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linreg.cli import options as o
from linreg.cli.text import (
    format_interval,
    format_table,
    format_wide_table,
    print_json,
    print_stderr,
    print_stdout,
    setting_cell,
    terminal_width,
)
from linreg.errors import UsageError

if TYPE_CHECKING:
    from linreg.runs.comparing import Compared, Comparison


def list_runs(
    context: typer.Context,
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
) -> None:
    """List the runs, remove some, or compare them."""
    if context.invoked_subcommand is not None:
        sources = [context.get_parameter_source(name) for name in ("runs", "checkpoints")]
        if any(source is not None and source.name == "COMMANDLINE" for source in sources):
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
    names: Annotated[list[str], o.argument("RUN RUN ...", "Two or more runs, or cross-validations.")],
    runs: o.Runs = o.RUNS,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
) -> None:
    """Compare the results of runs, the best first, and the settings that differ."""
    from linreg.runs.comparing import compare

    compared = compare(names, runs, checkpoints)
    if json:
        print_json(asdict(compared))
        return
    width = terminal_width()
    print_stdout(_side_by_side(compared, width) if len(compared.runs) == 2 else _row_each(compared, width))
    for note in compared.notes:
        print_stderr(note)


def _side_by_side(compared: "Comparison", width: int | None) -> str:
    """Format two runs beside each other: many settings, or long values, stay readable."""
    labels = ["run", *_results(compared), *compared.settings]
    room = (80 if width is None else width) - max(map(len, labels)) - 4
    first, second = (_cells(run, max(16, room // 2 - 3)) for run in compared.runs)
    names = [run.run for run in compared.runs]
    rows = [dict(zip(("run", *names), (label, first[label], second[label]), strict=True)) for label in labels[1:]]
    return format_table(rows, ["run", *names])


def _row_each(compared: "Comparison", width: int | None) -> str:
    """Format many runs below each other."""
    rows = [_cells(run, 24) for run in compared.runs]
    results = _results(compared)
    return format_wide_table(rows, ["run", *compared.settings, *results], width, together=results)


def _results(compared: "Comparison") -> list[str]:
    """Return the columns with results: those that are known, and neither equal nor expected."""
    runs = compared.runs
    outcomes = {run.outcome for run in runs}
    have_folds = all(run.n_folds for run in runs)
    shown = {
        "outcome": len(outcomes) > 1 or not outcomes <= {"finished", "early_stopped"},
        "epochs done": not have_folds or len({run.epochs for run in runs}) > 1,
        "loss": not have_folds,
        "val_loss": any(run.val_loss is not None for run in runs),
        "rmse": compared.metric == "rmse",
        "sd": have_folds,
        "difference": any(run.difference is not None for run in runs),
        "95 % interval": any(run.interval is not None for run in runs),
    }
    return [name for name, is_shown in shown.items() if is_shown]


def _cells(run: "Compared", most: int) -> dict[str, Any]:
    """Return the cells of a run by the names of columns. most: the number of characters of a setting."""
    return {
        "run": run.run,
        **{key: setting_cell(value, most) for key, value in run.settings.items()},
        "outcome": run.outcome,
        "epochs done": run.epochs,
        "loss": run.loss,
        "val_loss": run.val_loss,
        "rmse": run.rmse,
        "sd": _rounded(run.sd),
        "difference": _rounded(run.difference),
        "95 % interval": format_interval(run.interval),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
