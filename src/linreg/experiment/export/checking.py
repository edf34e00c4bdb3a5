"""The check of an export: its predictions beside those of `predict`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linreg.errors import DataError
from linreg.experiment.export.rows import Rows
from linreg.experiment.loaded import LoadedModel

CLOSE = 1e-3


@dataclass(frozen=True)
class Check:
    """The result of a check. n_rows: the rows that `predict` takes; absolute, relative: the largest differences to its
    predictions; spread: the largest size of these; n_contrary: the rows that one of the two refuses, the other not;
    problem: the reason why nothing was compared, or ''."""

    n_rows: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    spread: float = 0.0
    n_contrary: int = 0
    problem: str = ""

    @property
    def is_close(self) -> bool:
        """Whether the differences are those of rounding in float32, or smaller."""
        return self.absolute <= CLOSE * self.spread


def check(model: LoadedModel, rows: Rows, predict: Callable[[Rows], NDArray[np.float64]]) -> Check:
    """Compare the predictions of an export with those of the model. predict: raises RuntimeError where it cannot."""
    try:
        yhat = predict(rows)
    except RuntimeError as error:
        return Check(problem=str(error))
    expected = predictions(model, rows)
    is_taken = np.isfinite(expected).all(axis=1)
    n_contrary = int((np.isfinite(yhat).all(axis=1) != is_taken).sum())
    both = is_taken & np.isfinite(yhat).all(axis=1)
    difference = np.abs(yhat[both] - expected[both])
    size = np.abs(expected[both])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(difference == 0, 0.0, difference / size)
    absolute, largest, spread = (float(values.max(initial=0.0)) for values in (difference, relative, size))
    return Check(int(is_taken.sum()), absolute, largest, spread, n_contrary)


def predictions(model: LoadedModel, rows: Rows) -> NDArray[np.float64]:
    """Return what `predict` says for rows (N): (N, n_targets), NaN for rows that it refuses."""
    yhat = np.full((rows.n_rows, model.saved.n_targets), np.nan)
    known = np.flatnonzero(rows.is_known)
    try:
        yhat[known] = model.predict(rows.codes[known], str)
    except DataError:  # one row; find it
        for row in known:
            try:
                yhat[row] = model.predict(rows.codes[row : row + 1], str)
            except DataError:
                continue
    return yhat
