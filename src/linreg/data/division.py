"""The division of rows that are cut into shards: each process finds the parts and folds of its own rows.

With `random` each shard is divided by itself, by a seed of its own, so no process needs more than its rows. The other
rules divide all rows, as without shards, and each process keeps its own. `experiment.data` uses it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from linreg.data.folds import Folds
from linreg.data.shards import Cut, Numbers
from linreg.data.split import CALIBRATION, TEST, TRAIN, VAL, Counts, Parts, counts_of, permutation
from linreg.errors import DataError

SPLIT, INNER = 0, 1  # what a seed of a shard is for


class Ratios(TypedDict):
    """The shares of the parts; the rows without a part by them are for validation."""

    train_ratio: float
    test_ratio: float
    calibration_ratio: float


def divide_at_random(cut: Cut, *, ratios: Ratios, seed: int, where: str) -> Parts:
    """Divide the rows of the table at random, each shard by itself; the rows of a part are in their order in the table.
    Raises DataError."""
    counts = _counts(cut, ratios, where)
    whole, codes = _sum(counts), np.full(len(cut.own[0]), TRAIN, dtype=np.int8)
    if whole.train == cut.sizes[0]:
        return Parts(np.arange(len(codes)), None)
    for shard, first, order in _orders(cut, seed):
        _, val, calibration, test = np.split(first + order, np.cumsum(counts[shard])[:-1])
        codes[val], codes[calibration], codes[test] = VAL, CALIBRATION, TEST
    return Parts(
        np.flatnonzero(codes == TRAIN),
        np.flatnonzero(codes == VAL) if whole.val else None,
        np.flatnonzero(codes == TEST) if whole.test else None,
        calibration=np.flatnonzero(codes == CALIBRATION) if whole.calibration else None,
    )


def fold_at_random(cut: Cut, *, folds: int, ratios: Ratios, seed: int, where: str) -> Folds:
    """Divide the rows of the table that are for training or validation into random folds. Raises DataError."""
    counts = _counts(cut, ratios, where)
    whole, numbers = _sum(counts), np.empty(len(cut.own[0]), dtype=np.int16)
    _refuse_few(whole.train + whole.val, folds, where)
    for shard, first, order in _orders(cut, seed):
        train, val, *_ = counts[shard]
        used, calibration, test = np.split(first + order, np.cumsum([train + val, counts[shard].calibration]))
        numbers[used], numbers[calibration], numbers[test] = _fold_numbers(len(used), folds, shard), -1, -2
    return Folds(
        [np.flatnonzero(numbers == fold) for fold in range(folds)],
        False,
        True,
        test=np.flatnonzero(numbers == -2) if whole.test else None,
        calibration=np.flatnonzero(numbers == -1) if whole.calibration else None,
    )


def fold_part_at_random(cut: Cut, rows: Numbers, *, folds: int, seed: int, where: str) -> Folds:
    """Divide some rows of this process, the training part, into random folds, together with the other processes. Raises
    DataError."""
    of_row, numbers = cut.numbers[rows], np.empty(len(rows), dtype=np.int16)
    for shard in cut.shards.own:
        places = np.flatnonzero(of_row == shard)
        order = permutation(len(places), seed_of(seed, shard, INNER)).numpy()
        numbers[places[order]] = _fold_numbers(len(places), folds, shard)
    _refuse_few(sum(cut.shards.share(len(rows))), folds, where)
    return Folds([rows[numbers == fold] for fold in range(folds)], False, True)


def own_parts(cut: Cut, parts: Parts) -> Parts:
    """Return the rows of this process in parts of all rows of the table."""
    return Parts(*(None if rows is None else np.sort(cut.own_rows(rows)) for rows in _parts(parts)))  # type: ignore[arg-type]  # train is no None


def own_folds(cut: Cut, folds: Folds) -> Folds:
    """Return the rows of this process in folds of all rows of the table."""
    pieces: list[Numbers] = [np.sort(cut.own_rows(piece)) for piece in folds.pieces]
    others = (folds.test, folds.calibration)
    test, calibration = (None if rows is None else np.sort(cut.own_rows(rows)) for rows in others)
    return replace(folds, pieces=pieces, test=test, calibration=calibration)


def with_own_files(cut: Cut, parts: Parts) -> Parts:
    """Add the rows of this process in the separate files of the validation and the test part."""
    if len(cut.sizes) == 1:
        return parts
    n_table, n_val, n_test = (len(rows) for rows in cut.own)
    val, test = np.arange(n_table, n_table + n_val), np.arange(n_table + n_val, n_table + n_val + n_test)
    return replace(parts, val=val if cut.sizes[1] else parts.val, test=test if cut.sizes[2] else parts.test)


def seed_of(seed: int, shard: int, use: int) -> int:
    """Return the seed of a shard for a use, unlike those of other shards and seeds."""
    return int(np.random.SeedSequence((seed, shard, use)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _orders(cut: Cut, seed: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield the shards of this process, each with the number of its first row of the table among those of this process,
    and its rows in a random order, counted from 0."""
    n, n_rows, start = cut.shards.n, cut.sizes[0], cut.own[0].start
    for shard in cut.shards.own:
        first, last = n_rows * shard // n, n_rows * (shard + 1) // n
        yield shard, first - start, permutation(last - first, seed_of(seed, shard, SPLIT)).numpy()


def _counts(cut: Cut, ratios: Ratios, where: str) -> list[Counts]:
    """Return the sizes of the parts of each shard, so that all rows up to a shard have the ratios. Raises DataError."""
    n, n_rows = cut.shards.n, cut.sizes[0]
    whole = counts_of(n_rows, **ratios, where=where)
    # the part that has the rows without a part by the ratios: validation, or else the last one
    rest = 1 if whole.val else max(part for part, count in enumerate(whole) if count)
    shares = (ratios["train_ratio"], 0.0, ratios["calibration_ratio"], ratios["test_ratio"])
    counts = []
    for shard in range(n):
        first, last = n_rows * shard // n, n_rows * (shard + 1) // n
        sizes = [int(last * share) - int(first * share) for share in shares]
        sizes[rest] = 0
        sizes[rest] = max(0, last - first - sum(sizes))
        ends = np.minimum(np.cumsum(sizes), last - first)
        counts.append(Counts(*np.diff(ends, prepend=0).tolist()))
    for name, of_all, of_shards in zip(Counts._fields, whole, _sum(counts), strict=True):
        if of_all and not of_shards:
            raise DataError(f"{where}: {n_rows} points in {n} shards leave none for {name}; use fewer shards")
    return counts


def _sum(counts: Sequence[Counts]) -> Counts:
    """Return the sizes of the parts of all shards."""
    return Counts(*(sum(sizes) for sizes in zip(*counts, strict=True)))


def _fold_numbers(n_rows: int, folds: int, shard: int) -> NDArray[np.int16]:
    """Return the folds of the rows of a shard in a random order. Each shard begins with another fold, so that the
    folds have about equal sizes."""
    return ((np.arange(n_rows) + shard) % folds).astype(np.int16)


def _refuse_few(n_rows: int, folds: int, where: str) -> None:
    if n_rows < folds:
        raise DataError(f"{where}: {n_rows} points for {folds} folds; use fewer folds")


def _parts(parts: Parts) -> tuple[NDArray[np.integer] | None, ...]:
    return parts.train, parts.val, parts.test, parts.unused, parts.calibration
