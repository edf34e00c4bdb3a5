"""Weights of rows, scaled to a mean of 1 in each part."""

import numpy as np
from numpy.typing import NDArray

from linreg.data.split import Parts
from linreg.errors import DataError


class WeightScale:
    """Returns the divisors of weights that give each part a mean weight of 1; keeps one byte a row."""

    def __init__(self, weight: NDArray[np.float64], parts: Parts, *, where: str) -> None:
        """weight: (n_rows,). Raises DataError where every weight of a part is 0."""
        self.train_mask = parts.mask
        self.train_mean = _mean(weight[parts.train], where)
        self.val_mean = 1.0 if parts.val is None else _mean(weight[parts.val], where)

    def __call__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Return the divisors of some rows (n,)."""
        return np.where(self.train_mask[rows], self.train_mean, self.val_mean)


def _mean(weight: NDArray[np.float64], where: str) -> float:
    mean = float(weight.mean())
    if not mean > 0:
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; give some of its points weight")
    return mean
