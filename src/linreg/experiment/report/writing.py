"""`write_report`: one HTML file about a model, several runs, a sweep or a cross-validation."""

from collections.abc import Sequence
from pathlib import Path

from linreg.checkpoint import load_or_advise
from linreg.errors import UsageError
from linreg.experiment.report.page import Page, render
from linreg.experiment.report.several import report_runs
from linreg.experiment.report.single import report_model
from linreg.experiment.report.trials import report_folds, report_sweep
from linreg.experiment.sweeps.records import is_sweep
from linreg.runs.records import read_info
from linreg.system.files import replace_file


def write_report(names: Sequence[str | Path], output: Path, *, runs: Path, checkpoints: Path, with_rows: bool) -> None:
    """Write a report to a file, which is replaced.

    names: checkpoints, or runs, sweeps and cross-validations in the folder `runs`; one is described, several are
    compared. with_rows: whether the report of a model lists rows of the data. Raises UsageError, CheckpointError,
    SpecError, StorageError.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {output}: must end with .html")
    page = _describe(names, runs=runs, checkpoints=checkpoints, with_rows=with_rows)
    replace_file(output, render(page))


def _describe(names: Sequence[str | Path], *, runs: Path, checkpoints: Path, with_rows: bool) -> Page:
    if len(names) > 1:
        return report_runs([_run_of(name) for name in names], runs=runs, checkpoints=checkpoints)
    folder = runs / names[0]
    if has_trials(folder):
        return report_sweep(folder) if is_sweep(read_info(folder)) else report_folds(folder)
    return report_model(Path(names[0]), runs=runs, with_rows=with_rows)


def has_trials(folder: Path) -> bool:
    """Return whether a folder is that of a sweep or a cross-validation, which has no model of its own."""
    info = read_info(folder)
    return is_sweep(info) or is_sweep(info, "cv")


def _run_of(name: str | Path) -> str:
    """Return the run of a checkpoint; a name is that of a run."""
    path = Path(name)
    return load_or_advise(path).run["name"] if path.suffix == ".pth" else str(name)
