"""Statistics of the training part, learnt block by block."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VALUES_AT_ONCE = 2**20  # merged into the statistics


@dataclass
class Statistics:
    """What is learnt of the training part, block by block: the count, mean and sum of squared deviations of every
    column without its gaps, its range, and how often each category comes.

    Rows are merged so many at a time, however they were cut into blocks: the same rows in the same order give the same
    bits, whether they come from memory, from a file, or from a map of one.
    """

    n_features: int
    n_targets: int
    medians: bool = False
    n_rows: int = 0
    count: NDArray[np.float64] = field(init=False)
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    minimum: NDArray[np.float64] = field(init=False)
    maximum: NDArray[np.float64] = field(init=False)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    often: list[dict[int, int]] = field(init=False)
    waiting: NDArray[np.float64] = field(init=False)
    n_waiting: int = 0

    def __post_init__(self) -> None:
        width = self.n_features + self.n_targets
        self.count, self.mean, self.squares = (np.zeros(width) for _ in range(3))
        self.minimum, self.maximum = np.full(width, np.inf), np.full(width, -np.inf)
        self.often = [{} for _ in range(self.n_features)]
        self.waiting = np.empty((max(VALUES_AT_ONCE // width, 1), width))

    def add(self, x: NDArray[np.floating], y: NDArray[np.floating], categorical: Sequence[int]) -> None:
        """Add rows."""
        first = 0
        while first < len(x):
            n = min(len(x) - first, len(self.waiting) - self.n_waiting)
            rows = self.waiting[self.n_waiting : self.n_waiting + n]
            rows[:, : self.n_features] = x[first : first + n]
            rows[:, self.n_features :] = y[first : first + n]
            first += n
            self.n_waiting += n
            if self.n_waiting == len(self.waiting):
                self.merge(categorical)
        if self.medians:
            self.values.append(np.array(x, dtype=np.float64))

    def merge(self, categorical: Sequence[int]) -> None:
        """Take in the rows that wait for more. Two parts are merged as T. F. Chan, G. H. Golub and R. J. LeVeque,
        Updating formulae and a pairwise algorithm for computing sample variances (1979), eq. 2.1, have it."""
        if self.n_waiting:
            with np.errstate(over="ignore", invalid="ignore"):  # `learn` refuses what comes of it
                self._merge(self.waiting[: self.n_waiting], categorical)
        self.n_waiting = 0

    def add_ranges(self, n_rows: int, low: NDArray[np.floating], high: NDArray[np.floating]) -> None:
        """Add rows without gaps of which only what `ranges_of` gives is known, and to be learnt."""
        self.n_rows += n_rows
        self.count += n_rows
        here = slice(self.n_features)
        self.minimum[here] = np.minimum(self.minimum[here], _as_decimals(low))
        self.maximum[here] = np.maximum(self.maximum[here], _as_decimals(high))

    def _merge(self, values: NDArray[np.float64], categorical: Sequence[int]) -> None:
        self.n_rows += len(values)
        gaps = np.isnan(values)
        has_gaps = bool(gaps.any())

        def without_gaps(array: NDArray[np.float64], instead: float) -> NDArray[np.float64]:
            return np.where(gaps, instead, array) if has_gaps else array

        count = len(values) - (gaps.sum(axis=0) if has_gaps else np.zeros(values.shape[1]))
        mean = without_gaps(values, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = (without_gaps(values - mean, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        gap = mean - self.mean
        self.squares += squares + gap**2 * self.count * count / total
        self.mean += gap * count / total
        self.count += count
        self.minimum = np.minimum(self.minimum, without_gaps(values, np.inf).min(axis=0))
        self.maximum = np.maximum(self.maximum, without_gaps(values, -np.inf).max(axis=0))
        for position in categorical:
            column = values[:, position]
            codes, counts = np.unique(column[~np.isnan(column)].astype(np.int64), return_counts=True)
            often = self.often[position]
            for code, number in zip(codes.tolist(), counts.tolist(), strict=True):
                often[code] = often.get(code, 0) + number

    def median(self, positions: Sequence[int]) -> NDArray[np.float64]:
        """The medians of some features without their gaps."""
        x = np.concatenate(self.values)
        return np.array([np.nanmedian(x[:, position]) for position in positions])


def ranges_of(x: NDArray[np.floating]) -> tuple[int, NDArray[np.floating], NDArray[np.floating]]:
    """Give the number of some rows without gaps, and the least and the largest values (n_features,)."""
    return len(x), reduce_columns(np.minimum, x), reduce_columns(np.maximum, x)


def reduce_columns(reduce: np.ufunc, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Reduce rows (n, n_features) to one, many side by side: NumPy is slow at rows that are short."""
    beside = max(1, 512 // x.shape[1])
    n_wide = len(x) // beside * beside
    found = [*reduce.reduce(x[:n_wide].reshape(-1, beside, x.shape[1]), axis=0)] if n_wide else []
    return np.asarray(reduce.reduce([*found, *x[n_wide:]], axis=0))


def _as_decimals(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the shortest decimals that read back as the values: of 0.1 in float32 still 0.1."""
    return np.array([float(str(value)) for value in values])
