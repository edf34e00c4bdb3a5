"""The division of rows into a training, a validation, a calibration and a test part."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from linreg.errors import DataError

TRAIN, VAL, TEST, UNUSED, CALIBRATION = 0, 1, 2, 3, 4  # codes of the parts
By = Literal["random", "order", "time", "group", "stratify"]

MOST_VALUES = 20  # of a column of numbers that `stratify` keeps apart; more are divided at their deciles


@dataclass(frozen=True)
class Parts:
    """The rows of each part, in its order. val, test, calibration: None without that part; unused: rows of no part, or
    None."""

    train: NDArray[np.integer]
    val: NDArray[np.integer] | None
    test: NDArray[np.integer] | None = None
    unused: NDArray[np.integer] | None = None
    calibration: NDArray[np.integer] | None = None

    @property
    def n_rows(self) -> int:
        """The number of all rows."""
        rows_of_parts = (self.train, self.val, self.test, self.unused, self.calibration)
        return sum(len(rows) for rows in rows_of_parts if rows is not None)

    @property
    def train_on_all(self) -> bool:
        """Whether all rows are for training or validation."""
        return self.test is None and self.unused is None and self.calibration is None

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """The part of each row (n_rows,): TRAIN, VAL, TEST, UNUSED or CALIBRATION."""
        codes = np.zeros(self.n_rows, dtype=np.int8)
        others = ((VAL, self.val), (TEST, self.test), (UNUSED, self.unused), (CALIBRATION, self.calibration))
        for code, rows in others:
            if rows is not None:
                codes[rows] = code
        return codes

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Whether each row (n_rows,) is in the training part."""
        return np.asarray(self.codes == TRAIN)


class Column(NamedTuple):
    """A column that decides about the parts. values (n_rows,): numbers, dates in days, or else a code for each text."""

    values: NDArray[np.float64]
    is_number: bool


class Counts(NamedTuple):
    """The numbers of rows of the parts."""

    train: int
    val: int
    calibration: int
    test: int


def split(
    dataset: Dataset[Any], *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[Subset[Any], Subset[Any] | None]:
    """Divide a dataset at random into a training and a validation part, as `random_split` after
    `torch.manual_seed(seed)`.

    With a train_ratio of 1 there is no validation part. Raises DataError if there are too few points for the ratio.
    """
    assert isinstance(dataset, Sized)
    return subsets(dataset, divide(len(dataset), train_ratio=train_ratio, seed=seed, where=where))


def subsets(dataset: Dataset[Any], parts: Parts) -> tuple[Subset[Any], Subset[Any] | None]:
    """Return the training and the validation part of a dataset."""
    train, val = cast(Any, parts.train), cast(Any, parts.val)  # the type of Subset wants sequences
    return Subset(dataset, train), None if val is None else Subset(dataset, val)


def divide(
    n_rows: int,
    *,
    train_ratio: float,
    seed: int,
    test_ratio: float = 0.0,
    calibration_ratio: float = 0.0,
    by: By = "random",
    column: Column | None = None,
    where: str = "data.split",
) -> Parts:
    """Divide the numbers of rows; the rows without a part by the ratios are for validation.

    by: `random`, as `split` divides a dataset; `order`, the parts follow each other: training, validation, calibration,
    test; or a rule for a column: `time`, no row is later than one of a following part; `group`, equal values are in
    one part; `stratify`, each part has its share of each value. Raises DataError.
    """
    counts = counts_of(n_rows, train_ratio, test_ratio, calibration_ratio, where)
    if by == "random":
        order: NDArray[np.integer] = permutation(n_rows, seed).numpy()
        return _cut(order, counts)
    if by == "order":
        return _cut(np.arange(n_rows), counts)
    assert column is not None
    if by == "group":
        return _by_group(column.values, counts, seed, where)
    if by == "time":
        order = np.argsort(column.values, kind="stable")
        counts = _between_times(column.values[order], counts, where)
    else:
        order = stratified(column, seed)
    parts = _cut(order, counts)
    val, test, calibration = (
        None if rows is None else np.sort(rows) for rows in (parts.val, parts.test, parts.calibration)
    )
    return Parts(np.sort(parts.train), val, test, calibration=calibration)


def join(n_rows: Sequence[int], parts: Parts) -> Parts:
    """Add the rows of separate files. n_rows: of the divided table, the validation file and the test file, which follow
    each other; 0 without such a file."""
    n_table, n_val, n_test = n_rows
    val, test = np.arange(n_table, n_table + n_val), np.arange(n_table + n_val, n_table + n_val + n_test)
    return replace(parts, val=val if n_val else parts.val, test=test if n_test else parts.test)


def permutation(n: int, seed: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the numbers below n in the order of `torch.randperm` after seeding, in int32 if n allows.

    int32 has the same order, in a third of the time. generator: one to seed and use.
    """
    dtype = torch.int32 if n < 2**31 else torch.int64
    return torch.randperm(n, generator=(generator or torch.Generator()).manual_seed(seed), dtype=dtype)


def draw_seed(generator: torch.Generator, out: torch.Tensor | None = None) -> int:
    """Draw a seed, as `torch.utils.data` does for workers and for the order of a sampler. out: an int64 tensor for
    it."""
    out = torch.empty((), dtype=torch.int64) if out is None else out
    return int(out.random_(generator=generator).item())


def counts_of(n_rows: int, train_ratio: float, test_ratio: float, calibration_ratio: float, where: str) -> Counts:
    """Return the sizes of parts by ratios. Raises DataError for a part without points."""
    has_val = train_ratio + test_ratio + calibration_ratio < 1 - 1e-9
    n_train = int(n_rows * train_ratio)
    n_others = n_rows - n_train
    n_calibration = int(n_rows * calibration_ratio) if has_val or test_ratio or not calibration_ratio else n_others
    n_test = 0 if not test_ratio else int(n_rows * test_ratio) if has_val else n_others - n_calibration
    n_val = n_others - n_calibration - n_test
    lacks = (calibration_ratio and not n_calibration) or (test_ratio and not n_test)
    if not n_train or (has_val and not n_val) or lacks:
        others = f", {n_calibration} for calibration" if calibration_ratio else ""
        others += f", {n_test} for test" if test_ratio else ""
        raise DataError(
            f"{where}: {n_rows} points in the ratio {train_ratio} leave {n_train} for training{others} and "
            f"{n_val} for validation; use more points, another ratio, or 1.0 for no validation"
        )
    return Counts(n_train, n_val, n_calibration, n_test)


def _cut(order: NDArray[np.integer], counts: Counts) -> Parts:
    train, *others = np.split(order, np.cumsum(counts)[:-1])
    val, calibration, test = (rows if len(rows) else None for rows in others)
    return Parts(train, val, test, calibration=calibration)


def _between_times(times: NDArray[np.float64], counts: Counts, where: str) -> Counts:
    """Move the ends of the parts to the nearest rows where the ascending times change, so that equal times are in one
    part."""
    ends = ends_between_times(times, [count for count in counts if count], where)
    sizes = iter(np.diff([0, *ends]).tolist())
    return Counts(*(next(sizes) if count else 0 for count in counts))


def ends_between_times(times: NDArray[np.float64], sizes: Sequence[int], where: str) -> list[int]:
    """Return the ends of consecutive parts of about these sizes, each where the ascending times change. Raises
    DataError for fewer times than parts."""
    changes = np.flatnonzero(np.diff(times)) + 1
    if len(changes) < len(sizes) - 1:
        raise DataError(f"{where}: {_count(len(changes) + 1, 'time')} for {len(sizes)} parts; use fewer parts")
    ends = [0]
    for n_later, end in zip(range(len(sizes) - 2, -1, -1), np.cumsum(sizes), strict=False):
        free = changes[changes > ends[-1]]
        free = free[: len(free) - n_later]
        ends.append(int(free[np.argmin(np.abs(free - end))]))
    return [*ends[1:], len(times)]


def _by_group(column: NDArray[np.float64], counts: Counts, seed: int, where: str) -> Parts:
    """Put each group, in a random order, into the part that lacks most rows; the last groups into parts without one."""
    groups, sizes = codes_of_values(column)
    n_parts = sum(count > 0 for count in counts)
    if len(sizes) < n_parts:
        raise DataError(f"{where}: {_count(len(sizes), 'group')} for {n_parts} parts; use fewer parts")
    lacking = [count if count else -np.inf for count in counts]
    part_of, empty = np.zeros(len(sizes), dtype=np.int8), [part for part in range(len(counts)) if counts[part]]
    for n_done, group in enumerate(permutation(len(sizes), seed).tolist()):
        allowed = empty if len(sizes) - n_done == len(empty) else range(len(counts))
        part = max(allowed, key=lambda part: lacking[part])
        part_of[group] = part
        lacking[part] -= int(sizes[group])
        if part in empty:
            empty.remove(part)
    codes = part_of[groups]
    train, *others = (np.flatnonzero(codes == part) for part in range(len(counts)))
    val, calibration, test = (rows if count else None for rows, count in zip(others, counts[1:], strict=True))
    return Parts(train, val, test, calibration=calibration)


def stratified(column: Column, seed: int) -> NDArray[np.int64]:
    """Return an order of the rows (n_rows,) any piece of which has its share of each stratum: the j-th of the m rows of
    a stratum, in a random order, is at the share (j + 1/2) / m."""
    strata, sizes = codes_of_values(_binned(column.values) if column.is_number else column.values)
    order = permutation(len(strata), seed).numpy()
    order = order[np.argsort(strata[order], kind="stable")]
    ends = np.cumsum(sizes)
    place = np.arange(len(order)) - np.repeat(ends - sizes, sizes)
    shares = (place + 0.5) / np.repeat(sizes, sizes)
    return np.asarray(order[np.argsort(shares, kind="stable")], dtype=np.int64)


def _binned(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the decile of each number of a column with many different ones."""
    if len(np.unique(column)) <= MOST_VALUES:
        return column
    deciles = np.quantile(column, np.linspace(0, 1, 11)[1:-1])
    return np.searchsorted(deciles, column, side="right").astype(np.float64)


def codes_of_values(column: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of each value (n_rows,), counted in order of first appearance, and how often each occurs."""
    _, first, codes, sizes = np.unique(column, return_index=True, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(first))
    return rank[codes], sizes[np.argsort(first)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
