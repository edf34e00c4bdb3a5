"""What a cast to the precision of the network loses: values that do not fit, and the variation of a column.

The checks look at the values of the table, before the cast. `resident` and `mapped` use them."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.shards import Shards
from linreg.data.statistics import reduce_columns
from linreg.errors import DataError

log = logging.getLogger("linreg")

MOST_ERROR = 1e-3  # of a column after the cast, relative to its variation

Values = NDArray[np.floating]


class Precision:
    """Collects the extremes of columns, to find those that may lose their variation in a cast.

    names: of the columns; where: the place of the data in the spec; shards: with the processes that add other rows of
    the same columns.
    """

    def __init__(self, names: Sequence[str], dtype: str, *, where: str, shards: Shards | None = None) -> None:
        self.names, self.dtype, self.where = names, dtype, where
        self._share: Callable[[Any], list[Any]] = (lambda value: [value]) if shards is None else shards.share
        self.n_rows = 0
        self.low, self.high = np.full(len(names), np.inf), np.full(len(names), -np.inf)

    def add(self, values: Values, first: int = 0, *, n_rows: int | None = None) -> None:
        """Add rows (n, width) of the columns from position `first` on. n_rows: if they are the extremes of more."""
        if self.dtype == "float64" or not values.size:
            return
        columns = slice(first, first + values.shape[1])
        self.low[columns] = np.minimum(self.low[columns], reduce_columns(np.minimum, values))
        self.high[columns] = np.maximum(self.high[columns], reduce_columns(np.maximum, values))
        if not first:
            self.n_rows += len(values) if n_rows is None else n_rows

    def log(self, rows: Callable[[], Iterable[Values]]) -> None:
        """Log a warning for each column that loses its variation. rows: reads all columns (n, width) again, which is
        necessary only for a table with large numbers that vary little. All processes call this, and find the same."""
        if self.dtype == "float64":
            return
        lows, highs, counts = zip(*self._share((self.low, self.high, self.n_rows)), strict=True)
        self.low, self.high, self.n_rows = np.min(lows, axis=0), np.max(highs, axis=0), sum(counts)
        suspects = self._suspects() if self.n_rows else np.empty(0, np.int64)
        if not len(suspects):
            return
        n_rows, origin = 0, self.low[suspects]
        sums, squares, errors = (np.zeros(len(suspects)) for _ in range(3))
        for block in rows():
            values = np.asarray(block, dtype=np.float64)[:, suspects]
            n_rows += len(values)
            sums += (values - origin).sum(axis=0)
            squares += ((values - origin) ** 2).sum(axis=0)
            errors += ((values.astype(self.dtype) - values) ** 2).sum(axis=0)
        parts = zip(*self._share((n_rows, sums, squares, errors)), strict=True)
        n_rows, sums, squares, errors = (sum(part) for part in parts)
        variation = squares - sums**2 / n_rows
        for position, error in zip(suspects, np.sqrt(errors / variation), strict=True):
            if error > MOST_ERROR:
                log.warning(
                    "%s: column %r varies too little for %s: rounding changes its variation by %.2g %%; set "
                    "standardize: true, or dtype: float64",
                    self.where, self.names[position], self.dtype, 100 * error,
                )  # fmt: skip

    def _suspects(self) -> NDArray[np.int64]:
        """Return the columns whose error may be too large. The variation is at least that of the two extremes."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        rounding = np.finfo(self.dtype).eps / 2 * largest * np.sqrt(self.n_rows)
        return np.flatnonzero((self.high > self.low) & (rounding > MOST_ERROR * (self.high - self.low) / 2**0.5))


def refuse_unfit(
    names: Sequence[str], converted: NDArray[Any], given: NDArray[Any], row_place: Callable[[int], str], *, where: str
) -> None:
    """Raise a DataError for a value that is finite, and not after its conversion, by its row and column."""
    if np.isfinite(converted).all():
        return
    row, column = (int(places[0]) for places in np.nonzero(~np.isfinite(converted)))
    raise DataError(
        f"{where}: {row_place(row)}, column {names[column]!r}: {given[row, column]:g} does not fit {converted.dtype}; "
        "fix it, or set dtype: float64"
    )
