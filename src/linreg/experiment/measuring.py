"""Predictions and metrics of a model in memory on a part of its data, in the units of the targets."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from linreg.data.preprocessing import Feature
from linreg.data.rows import Rows, masked_blocks, select
from linreg.data.split import Parts
from linreg.data.transform import Recode
from linreg.experiment.metrics import Metrics
from linreg.experiment.network import errors_of


class Measured(NamedTuple):
    """Points of a part: their row numbers (n,), y and error = y - yhat (n, n_targets), and weights (n,) or None."""

    rows: NDArray[np.int64]
    y: NDArray[np.floating]
    error: NDArray[np.float64]
    weight: NDArray[Any] | None


def measure(
    model: nn.Module, rows: Rows, features: Sequence[Feature], parts: Parts, *, part: int, dtype: str
) -> Iterator[Measured]:
    """Measure a model, with its preprocessing, on the rows of a part: TRAIN, VAL or TEST. dtype: of its network."""
    recode, was_training, first = Recode(features, rows), model.training, 0
    model.eval()
    for block, mask in masked_blocks(rows, parts.codes == part):
        if mask.any():
            chosen = select(block, mask)
            error = errors_of(model, recode(chosen), chosen.y, dtype)
            yield Measured(first + np.flatnonzero(mask), np.array(chosen.y), error, chosen.weight)
        first += len(mask)
    model.train(was_training)


def metrics_of(measured: Sequence[Measured], n_targets: int) -> Metrics:
    """Return the metrics of all points."""
    metrics = Metrics(n_targets)
    for points in measured:
        metrics.add(points.y, points.error, points.weight)
    return metrics
