"""Metrics of a trained model on data: `evaluate`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.rows import masked_blocks, select
from linreg.data.sources import Block, Points
from linreg.data.split import TEST, TRAIN, VAL
from linreg.data.transform import Recode
from linreg.errors import DataError, UsageError, suggest
from linreg.experiment.data import has_intercept, open_parts
from linreg.experiment.doubts import Doubts
from linreg.experiment.loaded import LoadedModel, open_like
from linreg.experiment.metrics import Metrics
from linreg.runs import plots
from linreg.system.files import replace_file

MOST_POINTS = 20_000  # in a plot
PARTS = {"train": ("training", TRAIN), "val": ("validation", VAL), "test": ("test", TEST)}


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a part of its data. metrics: by target, `mse`, `rmse`, `mae` (the mean over points,
    in the target's units or their square) and `r2` (None where the target does not vary)."""

    part: str
    n_samples: int
    metrics: dict[str, dict[str, float | None]]


def evaluate(
    path: str | Path,
    *,
    part: str | None = None,
    data: str | Path | None = None,
    device: str = "cpu",
    plot: str | Path | None = None,
) -> Evaluation:
    """Measure a checkpoint's model on a part of its data, or on a table.

    part: `train`, `val` or `test`; by default the validation part, or the training part without one. plot: the PNG file
    to write, of predictions against targets. Raises CheckpointError, DataError, UsageError.
    """
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: must end with .png")
    model = LoadedModel(path, device=device)
    targets = model.saved.target_names
    if part is not None and data is not None:
        raise UsageError(f"--part {part}: --data measures a table as a whole; remove one")
    measured, points, blocks = _own_part(model, path, part) if data is None else _table(model, data)
    recode = Recode(model.features, points)
    doubts = Doubts(model, recode)
    metrics, sample = Metrics(len(targets)), _Sample()
    for block in blocks:
        x, y = recode(block), block.y
        errors = model.errors(x, y, block.where)
        doubts.add(x)
        metrics.add(y, errors, block.weight)
        if plot is not None:
            sample.add(y, y - errors)
    if plot is not None:
        y, yhat = sample.points()
        replace_file(Path(plot), plots.to_png(plots.plot_predictions(y, yhat, targets)))
    doubts.log(ranges=False)
    by_target = metrics.by_target(intercept=has_intercept(model.spec))
    return Evaluation(measured, metrics.n_samples, dict(zip(targets, by_target, strict=True)))


def _table(model: LoadedModel, data: str | Path) -> tuple[str, Points, Iterable[Block]]:
    points: Points = open_like(
        model, Path(data), targets=model.saved.target_names, missing=model.saved.preprocessing["missing"]
    )
    return str(data), points, points.blocks()


def _own_part(model: LoadedModel, path: str | Path, name: str | None) -> tuple[str, Points, Iterable[Block]]:
    """Open a part of the data of the model, by default the validation part, or the training part without one."""
    if name is not None and name not in PARTS:
        raise UsageError(f"--part {name}: {suggest(name, PARTS)}")
    rows, parts = open_parts(model.spec)
    if rows.fingerprint != model.saved.data_fingerprint:
        raise DataError(f"{path}: data.source has changed since training; restore the old data")
    name = name or ("train" if parts.val is None else "val")
    if getattr(parts, name) is None:
        key = {"val": "train_ratio below 1", "test": "test_ratio"}[name]
        raise UsageError(f"--part {name}: the split has no such part; train with data.split.{key}")
    part, code = PARTS[name]
    chosen = parts.codes == code
    return part, rows, (select(block, mask) for block, mask in masked_blocks(rows, chosen) if mask.any())


class _Sample:
    """The first points, for a plot."""

    def __init__(self) -> None:
        self.pairs: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.n_points = 0

    def add(self, y: NDArray[Any], yhat: NDArray[Any]) -> None:
        if self.n_points < MOST_POINTS:
            self.pairs.append((y, yhat))
            self.n_points += len(y)

    def points(self) -> list[NDArray[Any]]:
        return [np.concatenate(side)[:MOST_POINTS] for side in zip(*self.pairs, strict=True)]
