"""The division of rows into folds, of which one is the validation part. `experiment.data` uses it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.split import By, Column, Parts, codes_of_values, divide, ends_between_times, permutation, stratified
from linreg.errors import DataError

Numbers = NDArray[np.integer]


@dataclass(frozen=True)
class Folds:
    """Rows divided into pieces. A fold has one piece for validation. It is trained on all others, or, if the folds
    expand, on the pieces before it; then the first piece is never for validation. sort: whether training parts have
    ascending rows; test, calibration: rows that are in no piece."""

    pieces: list[Numbers]
    expand: bool
    sort: bool
    test: Numbers | None = None
    calibration: Numbers | None = None

    @property
    def n_folds(self) -> int:
        """The number of folds."""
        return len(self.pieces) - self.expand

    def val_piece(self, fold: int) -> int:
        """Return the piece for validation."""
        return fold + self.expand

    def train_pieces(self, fold: int) -> list[int]:
        """Return the pieces for training."""
        val = self.val_piece(fold)
        return [number for number in range(len(self.pieces)) if number < val or (number > val and not self.expand)]

    def parts(self, fold: int) -> Parts:
        """Return the parts of a fold."""
        train = self.train_pieces(fold)
        others = set(range(len(self.pieces))) - {self.val_piece(fold), *train}
        unused = self._rows(sorted(others)) if others else None
        return Parts(self._rows(train), self.pieces[self.val_piece(fold)], self.test, unused, self.calibration)

    def numbers(self, n_rows: int) -> NDArray[np.int16]:
        """Return the piece of each row (n_rows,); -1 for a row in no piece."""
        numbers = np.full(n_rows, -1, dtype=np.int16)
        for number, rows in enumerate(self.pieces):
            numbers[rows] = number
        return numbers

    def _rows(self, numbers: list[int]) -> Numbers:
        rows = np.concatenate([self.pieces[number] for number in numbers])
        return np.sort(rows) if self.sort else rows


def divide_into_folds(
    n_rows: int,
    *,
    folds: int,
    train_ratio: float,
    seed: int,
    test_ratio: float = 0.0,
    calibration_ratio: float = 0.0,
    by: By = "random",
    column: Column | None = None,
    where: str = "data.split",
) -> Folds:
    """Divide the rows outside the test and calibration parts into folds. These parts are those of `divide`; by: as
    there. Raises DataError."""
    rule: Any = {"seed": seed, "by": by, "column": column, "where": where}
    divided = divide(
        n_rows, train_ratio=train_ratio, test_ratio=test_ratio, calibration_ratio=calibration_ratio, **rule
    )
    rows = divided.train if divided.val is None else np.concatenate([divided.train, divided.val])
    return replace(divide_rows(rows, folds=folds, **rule), test=divided.test, calibration=divided.calibration)


def divide_rows(rows: Numbers, *, folds: int, seed: int, by: By, column: Column | None, where: str) -> Folds:
    """Divide some rows into folds. column: of all rows.

    With `time` and `order` the folds follow each other and expand, as in scikit-learn's TimeSeriesSplit. Otherwise they
    are pieces of the given order, as equal as possible, which is random with `random`; whole groups, the largest first,
    each into the fold with the fewest rows, as in GroupKFold; or pieces with the same share of each stratum. Raises
    DataError.
    """
    rows = rows if by == "random" else np.sort(rows)
    expand = by in ("time", "order")
    if len(rows) < folds + expand:
        raise DataError(f"{where}: {len(rows)} points for {folds} folds; use fewer folds")
    if by == "random":
        return Folds(np.array_split(rows, folds), expand, False)
    values = None if column is None else column.values[rows]
    if expand:
        pieces = _consecutive(rows, values, folds, where)
    elif by == "group":
        assert values is not None
        pieces = _by_group(rows, values, folds, seed, where)
    else:
        assert column is not None and values is not None
        pieces = np.array_split(rows[stratified(column._replace(values=values), seed)], folds)
    return Folds([np.sort(piece) for piece in pieces], expand, True)


def _consecutive(rows: Numbers, times: NDArray[np.float64] | None, folds: int, where: str) -> list[Numbers]:
    """Return pieces of rows that follow each other. Rows with equal times are in one piece."""
    size = len(rows) // (folds + 1)
    sizes = [len(rows) - folds * size, *[size] * folds]
    if times is None:
        return np.split(rows, np.cumsum(sizes)[:-1])
    order = np.argsort(times, kind="stable")
    return np.split(rows[order], ends_between_times(times[order], sizes, where)[:-1])


def _by_group(rows: Numbers, column: NDArray[np.float64], folds: int, seed: int, where: str) -> list[Numbers]:
    """Put whole groups into folds, the largest group first, groups of the same size in a random order."""
    groups, sizes = codes_of_values(column)
    if len(sizes) < folds:
        raise DataError(f"{where}: {len(sizes)} groups for {folds} folds; use fewer folds")
    order = permutation(len(sizes), seed).numpy()
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, n_rows = np.zeros(len(sizes), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for group in order.tolist():
        fold_of[group] = np.argmin(n_rows)
        n_rows[fold_of[group]] += sizes[group]
    return [rows[fold_of[groups] == fold] for fold in range(folds)]
