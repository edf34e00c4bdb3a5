"""The transform of rows from a source to the network: categories, preprocessing, weights."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.derived import ColumnInfo, UnfitRowError
from linreg.data.preprocessing import Feature, Preprocessing, columns_of
from linreg.data.shards import Cut, sharded
from linreg.data.sources import Block, Points
from linreg.data.split import Parts
from linreg.errors import DataError

MOST_LISTED = 10  # unseen categories in a warning


class WeightScale:
    """The divisors of weights, after which the mean weight of each part is 1. Takes one byte per row."""

    def __init__(self, weight: NDArray[np.float64], parts: Parts, *, where: str, cut: Cut | None = None) -> None:
        """weight: (n_rows,); cut: of the rows into shards. Raises DataError if every weight of a part is 0."""
        self.train_mask = parts.mask
        self.train_mean = _mean(weight, parts.train, cut, where)
        self.val_mean = 1.0 if parts.val is None else _mean(weight, parts.val, cut, where)

    def __call__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float64]:
        """Return the divisors of some rows (n,)."""
        return np.where(self.train_mask[rows], self.train_mean, self.val_mean)


def _mean(weight: NDArray[np.float64], rows: NDArray[np.integer], cut: Cut | None, where: str) -> float:
    """Return the mean weight of a part, with shards from the sums of each."""
    if cut is None:
        mean = float(weight[rows].mean())
    else:
        part = sharded(cut, rows)
        sums = cut.shards.share_lists([float(weight[own].sum()) for own in part.rows.values()])
        mean = sum(sums) / max(part.n_rows, 1)
    if not mean > 0:
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; use some weights > 0")
    return mean


@dataclass(frozen=True)
class Transform:
    """Maps rows of a source to inputs and targets of the network. features: the learnt features; preprocessing: None if
    rows need none; scale: the divisors of the weights, or None; dtype: of the network."""

    recode: "Recode"
    features: Sequence[Feature]
    preprocessing: Preprocessing | None
    scale: WeightScale | None
    dtype: str

    @property
    def n_columns(self) -> int:
        """The number of inputs of the network."""
        return len(self._columns)

    @property
    def column_names(self) -> list[str]:
        """The names of the inputs of the network."""
        return [column.name for column in self._columns]

    @cached_property
    def _columns(self) -> list[ColumnInfo]:
        return columns_of(self.features) if self.preprocessing is None else self.preprocessing.columns

    @property
    def is_monotonic(self) -> bool:
        """Whether each column of numbers depends on one feature alone, and keeps the order of its values."""
        return self.preprocessing is None or (
            self.preprocessing.transforms is None and self.preprocessing.target is None
        )

    def values(self, block: Block) -> NDArray[np.floating]:
        """Return x and y side by side (n, n_columns + n_targets)."""
        with torch.no_grad():
            return np.hstack([part.numpy() for part in self(block)])

    def __call__(self, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x (n, n_columns) and y (n, n_targets) in the precision of the block. Raises DataError."""
        x, y = torch.from_numpy(self.recode(block)), torch.from_numpy(block.y)
        if self.preprocessing is None:
            return x, y
        try:
            return self.preprocessing(x), self.preprocessing.scaled(y)
        except UnfitRowError as error:
            raise DataError(f"{block.where(error.row)}, {error}") from None


class Recode:
    """Returns the x of a block with the category codes of the features instead of those of `points`.

    An unseen category becomes -1 if `points.unseen` allows it, and is counted; else it is a DataError."""

    def __init__(self, features: Sequence[Feature], points: Points) -> None:
        self.features, self.points = features, points
        self.categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
        self.codes = {i: codes_of(features[i].categories or ()) for i in self.categorical}
        self.unseen: dict[int, Counter[str]] = {i: Counter() for i in self.categorical}
        self.n_rows = 0

    def __call__(self, block: Block) -> NDArray[np.floating]:
        """Return x (n, n_features). Raises DataError."""
        self.n_rows += len(block.x)
        if not self.categorical:
            return block.x
        x = np.array(block.x, dtype=np.float64)
        for i in self.categorical:
            known = self.points.categories[self.features[i].name]
            table = np.array([self.codes[i](category) for category in known], dtype=np.float64)
            is_known = ~np.isnan(x[:, i])
            x[is_known, i] = table[x[is_known, i].astype(np.int64)]
            unseen = np.nonzero(x[:, i] < 0)[0]
            if len(unseen) and self.points.unseen == "error":
                self._refuse(block, int(unseen[0]), i)
            self.unseen[i].update(known[int(code)] for code in block.x[unseen, i])
        return x

    def _refuse(self, block: Block, row: int, i: int) -> None:
        feature, name = self.features[i], self.points.feature_names[i]
        value = self.points.categories[name][int(block.x[row, i])]
        raise DataError(
            f"{block.where(row)}, column {feature.name!r}: {value!r} is not among the categories of the training part "
            f"({', '.join((feature.categories or [])[:10])}); fix it, or train with unseen: zeros"
        )

    def warnings(self) -> list[str]:
        """Return a warning for each column with unseen categories."""
        texts = []
        for i, counts in self.unseen.items():
            if counts:
                listed = ", ".join(f"{category!r} ({number})" for category, number in counts.most_common(MOST_LISTED))
                more = f" and {len(counts) - MOST_LISTED} more" if len(counts) > MOST_LISTED else ""
                texts.append(
                    f"{self.features[i].name}: {counts.total()} of {self.n_rows} rows have a category that is not in "
                    f"the training part, and count as none of its categories: {listed}{more}"
                )
        return texts


def codes_of(categories: Sequence[str]) -> Callable[[str], int]:
    """Return the function from a category to its position in a list, -1 for an unknown one.

    Truth values are 1 and 0 in some formats, so these are the same categories as true and false."""
    positions = {category: position for position, category in enumerate(categories)}
    for pair in ((("true", "1"), ("false", "0")), (("1", "true"), ("0", "false"))):
        if set(categories) <= {own for own, _ in pair}:
            positions |= {other: positions[own] for own, other in pair if own in positions}
    return lambda category: positions.get(category, -1)
