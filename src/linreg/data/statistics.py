"""Statistics of rows, collected block by block."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VALUES_AT_ONCE = 2**20  # merged into the statistics


def merged_ranges(some: Sequence["Statistics"]) -> "Statistics":
    """Return the number and the ranges of all rows of some statistics."""
    merged = Statistics(some[0].n_features, some[0].n_targets, some[0].categorical, sum(one.n_rows for one in some))
    merged.count = np.sum([one.count for one in some], axis=0)
    merged.minimum = np.min([one.minimum for one in some], axis=0)
    merged.maximum = np.max([one.maximum for one in some], axis=0)
    return merged


@dataclass
class Statistics:
    """Statistics of the columns of x and y, without gaps: count, mean, sum of squared deviations, range; and the
    frequency of each code of the categorical features. n_rows: the number of rows added.

    Rows are merged in groups of fixed size. So the same rows in the same order have the same statistics to the last
    bit, however they are cut into blocks.
    """

    n_features: int
    n_targets: int
    categorical: Sequence[int] = ()
    n_rows: int = 0
    count: NDArray[np.float64] = field(init=False)
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    minimum: NDArray[np.float64] = field(init=False)
    maximum: NDArray[np.float64] = field(init=False)
    often: list[dict[int, int]] = field(init=False)
    waiting: NDArray[np.float64] | None = None
    n_waiting: int = 0

    def __post_init__(self) -> None:
        width = self.n_features + self.n_targets
        self.count, self.mean, self.squares = (np.zeros(width) for _ in range(3))
        self.minimum, self.maximum = np.full(width, np.inf), np.full(width, -np.inf)
        self.often = [{} for _ in range(self.n_features)]

    @property
    def n_at_once(self) -> int:
        """The number of rows that are merged at once."""
        return max(VALUES_AT_ONCE // len(self.count), 1)

    def add(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> None:
        """Add rows. `finish` merges the last of them."""
        first = 0
        while first < len(x):
            if self.waiting is None:
                self.waiting = np.empty((self.n_at_once, len(self.count)))
            n = min(len(x) - first, self.n_at_once - self.n_waiting)
            rows = self.waiting[self.n_waiting : self.n_waiting + n]
            rows[:, : self.n_features] = x[first : first + n]
            rows[:, self.n_features :] = y[first : first + n]
            first += n
            self.n_waiting += n
            if self.n_waiting == self.n_at_once:
                self._merge_waiting()

    def add_ranges(self, x: NDArray[np.floating]) -> None:
        """Add only the number and the range of rows without gaps (n, n_features), n > 0."""
        self.n_rows += len(x)
        self.count += len(x)
        features = slice(self.n_features)
        low, high = reduce_columns(np.minimum, x), reduce_columns(np.maximum, x)
        self.minimum[features] = np.minimum(self.minimum[features], _as_decimals(low))
        self.maximum[features] = np.maximum(self.maximum[features], _as_decimals(high))

    def mean_and_scale(self, column: int, *, fill: float | None = None) -> tuple[float, float]:
        """Return mean and standard deviation of a column, with `fill` for each gap; 0 for a column that is constant.

        The values of a constant column may differ by rounding, and the mean of n equal numbers is rounded up to n
        times. Source of the bound: scikit-learn, `_is_constant_feature`, here for the rows that are merged at once."""
        low, high, mean = (float(array[column]) for array in (self.minimum, self.maximum, self.mean))
        count, squares = float(self.count[column]), float(self.squares[column])
        gaps = self.n_rows - count
        if gaps and fill is not None:
            overall = mean + (fill - mean) * gaps / self.n_rows
            squares += count * (mean - overall) ** 2 + gaps * (fill - overall) ** 2
            mean, low, high = overall, min(low, fill), max(high, fill)
        if low == high:
            return low, 0.0
        variance = squares / self.n_rows
        rounding = max(10, min(self.n_rows, self.n_at_once)) * np.finfo(np.float64).eps * mean
        return mean, 0.0 if variance <= rounding**2 else float(variance**0.5)

    def finish(self) -> None:
        """Merge the last rows, and free the memory for more."""
        self._merge_waiting()
        self.waiting = None

    def _merge_waiting(self) -> None:
        if self.waiting is not None and self.n_waiting:
            with np.errstate(over="ignore", invalid="ignore"):  # `learn` refuses an overflow
                self._merge(self.waiting[: self.n_waiting])
        self.n_waiting = 0

    def _merge(self, values: NDArray[np.float64]) -> None:
        gaps = np.isnan(values)
        has_gaps = bool(gaps.any())

        def without_gaps(array: NDArray[np.float64], value: float) -> NDArray[np.float64]:
            return np.where(gaps, value, array) if has_gaps else array

        count = len(values) - (gaps.sum(axis=0) if has_gaps else np.zeros(values.shape[1]))
        mean = without_gaps(values, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = (without_gaps(values - mean, 0.0) ** 2).sum(axis=0)
        low, high = without_gaps(values, np.inf).min(axis=0), without_gaps(values, -np.inf).max(axis=0)
        self._add(len(values), count, mean, squares, low, high)
        for position in self.categorical:
            column = values[:, position]
            codes, counts = np.unique(column[~np.isnan(column)].astype(np.int64), return_counts=True)
            often = self.often[position]
            for code, number in zip(codes.tolist(), counts.tolist(), strict=True):
                often[code] = often.get(code, 0) + number

    def merge(self, other: "Statistics") -> None:
        """Add the statistics of other rows, except the frequencies of codes, which may be of other categories."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._add(other.n_rows, other.count, other.mean, other.squares, other.minimum, other.maximum)

    def _add(
        self,
        n_rows: int,
        count: NDArray[np.float64],
        mean: NDArray[np.float64],
        squares: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> None:
        """Add rows by what is known of their columns. Source of the formula for two parts: T. F. Chan, G. H. Golub and
        R. J. LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979), eq. 2.1."""
        total = np.maximum(self.count + count, 1)
        gap = mean - self.mean
        self.n_rows += n_rows
        self.squares += squares + gap**2 * self.count * count / total
        self.mean += gap * count / total
        self.count += count
        self.minimum, self.maximum = np.minimum(self.minimum, low), np.maximum(self.maximum, high)


def reduce_columns(reduce: np.ufunc, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Reduce rows (n, n_features) to one (n_features,), many side by side, as NumPy is slow with short rows."""
    if not x.shape[1]:
        return np.empty(0)
    beside = max(1, 512 // x.shape[1])
    n_wide = len(x) // beside * beside
    reduced = [*reduce.reduce(x[:n_wide].reshape(-1, beside, x.shape[1]), axis=0)] if n_wide else []
    return np.asarray(reduce.reduce([*reduced, *x[n_wide:]], axis=0))


def _as_decimals(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the shortest decimals that read back as the values: 0.1 in float32 stays 0.1."""
    return np.array([float(str(value)) for value in values])
