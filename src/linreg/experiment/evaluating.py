"""Metrics of a trained model on data: `evaluate`."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.rows import masked_blocks
from linreg.data.sources import Block, Points
from linreg.data.transform import Recode
from linreg.errors import DataError, UsageError
from linreg.experiment.data import has_intercept, open_parts
from linreg.experiment.doubts import Doubts
from linreg.experiment.loaded import LoadedModel, open_like
from linreg.experiment.metrics import Metrics
from linreg.runs import plots
from linreg.system.files import replace_file

MOST_POINTS = 20_000  # in a plot


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a part of its data. metrics: by target, `mse`, `rmse`, `mae` (the mean over points,
    in the target's units or their square) and `r2` (None where the target does not vary)."""

    part: str
    n_samples: int
    metrics: dict[str, dict[str, float | None]]


def evaluate(
    path: str | Path, *, data: str | Path | None = None, device: str = "cpu", plot: str | Path | None = None
) -> Evaluation:
    """Measure a checkpoint's model on its validation part, on its training part if there is no other, or on a table.

    plot: the PNG file to write, of predictions against targets. Raises CheckpointError, DataError, UsageError.
    """
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: must end with .png")
    model = LoadedModel(path, device=device)
    targets = model.saved.target_names
    part, points, blocks = _own_part(model, path) if data is None else _table(model, data)
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
    return Evaluation(part, metrics.n_samples, dict(zip(targets, by_target, strict=True)))


def _table(model: LoadedModel, data: str | Path) -> tuple[str, Points, Iterable[Block]]:
    points: Points = open_like(
        model, Path(data), targets=model.saved.target_names, missing=model.saved.preprocessing["missing"]
    )
    return str(data), points, points.blocks()


def _own_part(model: LoadedModel, path: str | Path) -> tuple[str, Points, Iterable[Block]]:
    """Open the validation part of the data of the model, or its training part without validation."""
    rows, parts = open_parts(model.spec)
    if rows.fingerprint != model.saved.data_fingerprint:
        raise DataError(f"{path}: data.source has changed since training; restore the old data")
    part, chosen = ("training", parts.mask) if parts.val is None else ("validation", ~parts.mask)
    return part, rows, (_select(block, mask) for block, mask in masked_blocks(rows, chosen) if mask.any())


def _select(block: Block, mask: NDArray[np.bool_]) -> Block:
    numbers = np.flatnonzero(mask)
    weight = None if block.weight is None else block.weight[numbers]
    return replace(
        block, x=block.x[numbers], y=block.y[numbers], weight=weight, where=lambda row: block.where(int(numbers[row]))
    )


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
