"""The transform of rows from a source to the network: categories, preprocessing, weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.preprocessing import Feature, Preprocessing
from linreg.data.sources import Block, Points
from linreg.data.split import Parts
from linreg.errors import DataError

RecodeFn = Callable[[Block], NDArray[np.floating]]


class WeightScale:
    """The divisors of weights, after which the mean weight of each part is 1. Takes one byte per row."""

    def __init__(self, weight: NDArray[np.float64], parts: Parts, *, where: str) -> None:
        """weight: (n_rows,). Raises DataError if every weight of a part is 0."""
        self.train_mask = parts.mask
        self.train_mean = _mean(weight[parts.train], where)
        self.val_mean = 1.0 if parts.val is None else _mean(weight[parts.val], where)

    def __call__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Return the divisors of some rows (n,)."""
        return np.where(self.train_mask[rows], self.train_mean, self.val_mean)


def _mean(weight: NDArray[np.float64], where: str) -> float:
    mean = float(weight.mean())
    if not mean > 0:
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; use some weights > 0")
    return mean


@dataclass(frozen=True)
class Transform:
    """Maps rows of a source to inputs and targets of the network. features: the learnt features; preprocessing: None if
    rows need none; scale: the divisors of the weights, or None; dtype: of the network."""

    recode: RecodeFn
    features: Sequence[Feature]
    preprocessing: Preprocessing | None
    scale: WeightScale | None
    dtype: str

    @property
    def n_columns(self) -> int:
        """The number of inputs of the network."""
        return sum(len(feature.columns) for feature in self.features)

    def __call__(self, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x (n, n_columns) and y (n, n_targets) in the precision of the block."""
        x, y = torch.from_numpy(self.recode(block)), torch.from_numpy(block.y)
        if self.preprocessing is None:
            return x, y
        return self.preprocessing(x), self.preprocessing.scaled(y)


def make_recode_fn(features: Sequence[Feature], points: Points) -> RecodeFn:
    """Make a function that returns the x of a block with the category codes of the features instead of those of
    `points`.

    An unseen category becomes -1 if `points.unseen` allows it, else a DataError."""
    categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
    codes_of = {i: {category: j for j, category in enumerate(features[i].categories or ())} for i in categorical}

    def recode(block: Block) -> NDArray[np.floating]:
        if not categorical:
            return block.x
        x = np.array(block.x, dtype=np.float64)
        for i in categorical:
            known = points.categories[features[i].name]
            table = np.array([codes_of[i].get(category, -1) for category in known], dtype=np.float64)
            is_known = ~np.isnan(x[:, i])
            x[is_known, i] = table[x[is_known, i].astype(np.int64)]
            unseen = np.nonzero(x[:, i] < 0)[0]
            if len(unseen) and points.unseen == "error":
                row = int(unseen[0])
                value = known[int(block.x[row, i])]
                raise DataError(
                    f"{block.where(row)}, column {features[i].name!r}: {value!r} is not among the categories of the "
                    f"training part ({', '.join((features[i].categories or [])[:10])}); fix it, or train with "
                    "unseen: zeros"
                )
        return x

    return recode
