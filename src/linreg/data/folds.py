"""The division of rows into folds, of which one is the validation part. `experiment.data` uses it."""

import numpy as np
from numpy.typing import NDArray

from linreg.data.split import By, Column, Parts, codes_of_values, divide, ends_between_times, permutation, stratified
from linreg.errors import DataError


def divide_into_folds(
    n_rows: int,
    *,
    folds: int,
    fold: int,
    train_ratio: float,
    seed: int,
    test_ratio: float = 0.0,
    by: By = "random",
    column: Column | None = None,
    where: str = "data.split",
) -> Parts:
    """Divide the rows outside the test part into folds, one of them for validation. The test part is that of `divide`.

    by: as in `divide`. With `time` and `order` the folds follow each other, and each is validated after training on the
    rows before it only, as in scikit-learn's TimeSeriesSplit. Otherwise the other folds are for training: pieces of a
    random order, as equal as possible; whole groups, the largest first, each into the fold with the fewest rows, as in
    GroupKFold; or pieces with the same share of each stratum. Raises DataError.
    """
    divided = divide(
        n_rows, train_ratio=train_ratio, test_ratio=test_ratio, seed=seed, by=by, column=column, where=where
    )
    rows = divided.train if divided.val is None else np.concatenate([divided.train, divided.val])
    rows = rows if by == "random" else np.sort(rows)
    n_pieces = folds + 1 if by in ("time", "order") else folds
    if len(rows) < n_pieces:
        raise DataError(f"{where}: {len(rows)} points for {folds} folds; use fewer folds")
    if by in ("time", "order"):
        train, val = _expanding(rows, None if column is None else column.values[rows], folds, fold, where)
        return Parts(train, val, divided.test)
    if by == "group":
        assert column is not None
        pieces = _by_group(rows, column.values[rows], folds, seed, where)
    elif by == "stratify":
        assert column is not None
        of_rows = column._replace(values=column.values[rows])
        pieces = [np.sort(piece) for piece in np.array_split(rows[stratified(of_rows, seed)], folds)]
    else:
        pieces = np.array_split(rows, folds)
    train = np.concatenate([piece for number, piece in enumerate(pieces) if number != fold])
    return Parts(train if by == "random" else np.sort(train), pieces[fold], divided.test)


def _expanding(
    rows: NDArray[np.integer], times: NDArray[np.float64] | None, folds: int, fold: int, where: str
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the rows before a fold, and those of the fold. Rows with equal times are in one fold."""
    size = len(rows) // (folds + 1)
    sizes = [len(rows) - folds * size, *[size] * folds]
    if times is None:
        ends = np.cumsum(sizes).tolist()
    else:
        order = np.argsort(times, kind="stable")
        rows = rows[order]
        ends = ends_between_times(times[order], sizes, where)
    start, end = ends[fold : fold + 2]
    return np.sort(rows[:start]), np.sort(rows[start:end])


def _by_group(
    rows: NDArray[np.integer], column: NDArray[np.float64], folds: int, seed: int, where: str
) -> list[NDArray[np.integer]]:
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
