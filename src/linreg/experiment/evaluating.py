"""Metrics of a trained model on data, its diagnostics and importances: `evaluate`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linreg.data.transform import Recode
from linreg.errors import UsageError
from linreg.experiment.data import has_intercept
from linreg.experiment.diagnosing import TargetDiagnostics, diagnose, picture
from linreg.experiment.doubts import Doubts
from linreg.experiment.importance import Importance, permutation_importance
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.metrics import Metrics
from linreg.experiment.selection import Selection, select
from linreg.runs import plots
from linreg.runs.folders import existing
from linreg.runs.records import read_info
from linreg.system.files import replace_file

FILE = "diagnostics.png"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a part of its data. metrics: by target, `mse`, `rmse`, `mae` (the mean over points,
    in the target's units or their square) and `r2` (None where the target does not vary). diagnostics, importance: if
    requested, else None."""

    part: str
    n_samples: int
    metrics: dict[str, dict[str, float | None]]
    diagnostics: list[TargetDiagnostics] | None = None
    importance: Importance | None = None

    def described(self) -> dict[str, Any]:
        """Return it as plain values, with what was requested."""
        values: dict[str, Any] = {"part": self.part, "n_samples": self.n_samples, "metrics": self.metrics}
        if self.diagnostics is not None:
            values["diagnostics"] = [one.described() for one in self.diagnostics]
        if self.importance is not None:
            values["importance"] = self.importance.described()
        return values


def evaluate(
    path: str | Path,
    *,
    part: str | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
    diagnostics: bool = False,
    plot: str | Path | None = None,
    board: str | Path | None = None,
    importance: int | None = None,
    metric: str | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a checkpoint's model on a part of its data, or on a table.

    part: `train`, `val` or `test`; by default the validation part, or the training part without one. plot: the PNG
    file, or the folder of diagnostics.png, to write; board: the folder of the runs, for the same picture in the
    TensorBoard events of the checkpoint's run. Both need the diagnostics. importance: the repeats of each permutation;
    metric: which they change; report: of it (see `permutation_importance`). Raises CheckpointError, DataError,
    UsageError, StorageError.
    """
    file = None if plot is None else _picture_file(Path(plot))
    model = LoadedModel(path, device=device)
    run = None if board is None else _run_folder(model, Path(board))
    selection = select(model, part=part, data=data)
    metrics = _measure(model, selection)
    found = diagnose(model, selection) if diagnostics or file is not None or run is not None else None
    if found is not None and file is not None:
        replace_file(file, plots.to_png(picture(found)))
    if found is not None and run is not None:
        from linreg.runs.writer import add_figure  # imports tensorboard

        add_figure(run, f"diagnostics/{selection.name}", picture(found), model.saved.epoch)
    importances = None
    if importance is not None:
        importances = permutation_importance(model, selection, repeats=importance, metric=metric, report=report)
    by_target = metrics.by_target(intercept=has_intercept(model.spec))
    named = dict(zip(model.saved.target_names, by_target, strict=True))
    return Evaluation(selection.name, metrics.n_samples, named, found, importances)


def _measure(model: LoadedModel, selection: Selection) -> Metrics:
    """Return the metrics of a model on selected rows, and log doubts about them."""
    recode = Recode(model.features, selection.points)
    doubts, metrics = Doubts(model, recode), Metrics(len(model.saved.target_names))
    for _, block in selection.blocks():
        x = recode(block)
        errors = model.errors(x, block.y, block.where)
        doubts.add(x)
        metrics.add(block.y, errors, block.weight)
    doubts.log(ranges=False)
    return metrics


def _picture_file(path: Path) -> Path:
    """Return the file of the picture. Raises UsageError."""
    if path.is_dir():
        return path / FILE
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot {path}: neither a file that ends with .png nor a folder; write for instance {FILE}")
    return path


def _run_folder(model: LoadedModel, runs: Path) -> Path:
    """Return the folder of the run of a checkpoint. Raises UsageError."""
    run = model.saved.run
    folder = existing(run["name"], runs)
    if read_info(folder).get("id") != run["id"]:
        raise UsageError(f"--tensorboard: {folder} is another run than that of {model.saved.path}; give its --runs")
    return folder
