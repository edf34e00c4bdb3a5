"""The division of rows into a training, a validation and a test part."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from linreg.errors import DataError

TRAIN, VAL, TEST = 0, 1, 2  # codes of the parts
By = Literal["random", "order", "time", "group", "stratify"]

MOST_VALUES = 20  # of a column of numbers that `stratify` keeps apart; more are divided at their deciles


@dataclass(frozen=True)
class Parts:
    """The rows of each part, in its order. val, test: None without that part."""

    train: NDArray[np.integer]
    val: NDArray[np.integer] | None
    test: NDArray[np.integer] | None = None

    @property
    def n_rows(self) -> int:
        """The number of rows of all parts."""
        return sum(len(rows) for rows in (self.train, self.val, self.test) if rows is not None)

    @cached_property
    def codes(self) -> NDArray[np.int8]:
        """The part of each row (n_rows,): TRAIN, VAL or TEST."""
        codes = np.zeros(self.n_rows, dtype=np.int8)
        for code, rows in ((VAL, self.val), (TEST, self.test)):
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


class _Counts(NamedTuple):
    train: int
    val: int
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
    by: By = "random",
    column: Column | None = None,
    where: str = "data.split",
) -> Parts:
    """Divide the numbers of rows; the rows without a part by the ratios are for validation.

    by: `random`, as `split` divides a dataset; `order`, the first rows are for training and the last ones for test; or
    a rule for a column: `time`, no row is later than one of a following part; `group`, equal values are in
    one part; `stratify`, each part has its share of each value. Raises DataError.
    """
    counts = _counts(n_rows, train_ratio, test_ratio, where)
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
    val, test = (None if rows is None else np.sort(rows) for rows in (parts.val, parts.test))
    return Parts(np.sort(parts.train), val, test)


def join(n_rows: Sequence[int], parts: Parts) -> Parts:
    """Add the rows of separate files. n_rows: of the divided table, the validation file and the test file, which follow
    each other; 0 without such a file."""
    n_table, n_val, n_test = n_rows
    val, test = np.arange(n_table, n_table + n_val), np.arange(n_table + n_val, n_table + n_val + n_test)
    return Parts(parts.train, val if n_val else parts.val, test if n_test else parts.test)


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


def _counts(n_rows: int, train_ratio: float, test_ratio: float, where: str) -> _Counts:
    has_val = train_ratio + test_ratio < 1 - 1e-9
    n_train = int(n_rows * train_ratio)
    n_test = 0 if not test_ratio else int(n_rows * test_ratio) if has_val else n_rows - n_train
    n_val = n_rows - n_train - n_test
    if not n_train or (has_val and not n_val) or (test_ratio and not n_test):
        test = f", {n_test} for test" if test_ratio else ""
        raise DataError(
            f"{where}: {n_rows} points in the ratio {train_ratio} leave {n_train} for training{test} and "
            f"{n_val} for validation; use more points, another ratio, or 1.0 for no validation"
        )
    return _Counts(n_train, n_val, n_test)


def _cut(order: NDArray[np.integer], counts: _Counts) -> Parts:
    train, val, test = np.split(order, np.cumsum(counts)[:2])
    return Parts(train, val if len(val) else None, test if len(test) else None)


def _between_times(times: NDArray[np.float64], counts: _Counts, where: str) -> _Counts:
    """Move the ends of the parts to the nearest rows where the ascending times change, so that equal times are in one
    part."""
    ends = ends_between_times(times, [count for count in counts if count], where)
    sizes = iter(np.diff([0, *ends]).tolist())
    return _Counts(*(next(sizes) if count else 0 for count in counts))


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


def _by_group(column: NDArray[np.float64], counts: _Counts, seed: int, where: str) -> Parts:
    """Put each group, in a random order, into the part that lacks most rows; the last groups into parts without one."""
    groups, sizes = codes_of_values(column)
    n_parts = sum(count > 0 for count in counts)
    if len(sizes) < n_parts:
        raise DataError(f"{where}: {_count(len(sizes), 'group')} for {n_parts} parts; use fewer parts")
    lacking = [count if count else -np.inf for count in counts]
    part_of, empty = np.zeros(len(sizes), dtype=np.int8), [part for part in range(3) if counts[part]]
    for n_done, group in enumerate(permutation(len(sizes), seed).tolist()):
        allowed = empty if len(sizes) - n_done == len(empty) else range(3)
        part = max(allowed, key=lambda part: lacking[part])
        part_of[group] = part
        lacking[part] -= int(sizes[group])
        if part in empty:
            empty.remove(part)
    codes = part_of[groups]
    train, val, test = (np.flatnonzero(codes == part) for part in range(3))
    return Parts(train, val if counts.val else None, test if counts.test else None)


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
