"""Logical shards of rows. They do not depend on the number of processes, and each belongs to one of them.

A process reads and keeps the rows of its own shards only. `Shards` says which these are, `Cut` where their rows are,
and `OwnPoints` reads them. What is learnt from the rows is merged in the order of the shards, with `share`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.sources import Block, Points
from linreg.errors import DataError

if TYPE_CHECKING:
    from linreg.data.split import Column

Numbers = NDArray[np.integer]


@dataclass(frozen=True)
class Shards:
    """The shards of a spec. n: how many; own: those of this process; share: sends a value to all processes, and returns
    those of all in the order of their shards."""

    n: int
    own: range
    share: Callable[[Any], list[Any]]

    @property
    def are_own(self) -> bool:
        """Whether this process has all shards."""
        return len(self.own) == self.n

    def share_lists(self, values: Sequence[Any]) -> list[Any]:
        """Share a list of values; return those of all processes in one list."""
        return [value for part in self.share(values) for value in part]

    def part_of(self, n_items: int) -> range:
        """Return the share of this process of some items that all processes read together."""
        return range(n_items * self.own.start // self.n, n_items * self.own.stop // self.n)


@dataclass(frozen=True)
class Cut:
    """Rows that are cut into shards. sizes: the numbers of rows of the table and of separate files, as in `Points`. A
    shard has a range of each. The rows of a process are those of its shards: of the table, then of each file."""

    shards: Shards
    sizes: tuple[int, ...]

    @property
    def n_own(self) -> int:
        """The number of rows of this process."""
        return sum(map(len, self.own))

    @cached_property
    def own(self) -> list[range]:
        """The rows of this process among those of the table, and of each file."""
        shards = self.shards
        return [range(size * shards.own.start // shards.n, size * shards.own.stop // shards.n) for size in self.sizes]

    @property
    def first(self) -> list[int]:
        """The number of the first row of the table and of each file, among all rows."""
        return [sum(self.sizes[:group]) for group in range(len(self.sizes))]

    @cached_property
    def numbers(self) -> NDArray[np.int16]:
        """The shard of each row of this process (n_own,)."""
        shards, sizes, parts = self.shards, self.sizes, []
        for size in sizes:
            ends = [size * shard // shards.n for shard in range(shards.own.start, shards.own.stop + 1)]
            parts.append(np.repeat(np.array(shards.own, dtype=np.int16), np.diff(ends)))
        return np.concatenate(parts)

    def all_rows(self, own: Numbers | range) -> NDArray[np.int64]:
        """Return the numbers among all rows of some rows (n,) of this process."""
        numbers, before = np.asarray(own, dtype=np.int64), 0
        found = np.empty(len(numbers), dtype=np.int64)
        for first, rows in zip(self.first, self.own, strict=True):
            here = (numbers >= before) & (numbers < before + len(rows))
            found[here] = numbers[here] - before + rows.start + first
            before += len(rows)
        return found

    def own_rows(self, numbers: Numbers) -> NDArray[np.int64]:
        """Return the rows of this process among some of all rows (n,), in the given order."""
        found, before = np.full(len(numbers), -1, dtype=np.int64), 0
        for first, rows in zip(self.first, self.own, strict=True):
            here = (numbers >= first + rows.start) & (numbers < first + rows.stop)
            found[here] = numbers[here] - first - rows.start + before
            before += len(rows)
        return found[found >= 0]

    def masks(self, first: int, mask: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield each shard of some rows of this process with its part of a mask (n,), if that has a row. mask: of the
        rows from `first` on."""
        numbers = self.numbers[first : first + len(mask)]
        lowest, highest = int(numbers.min()), int(numbers.max())
        for shard in range(lowest, highest + 1):
            chosen = mask if lowest == highest else mask & (numbers == shard)
            if chosen.any():
                yield shard, chosen


@dataclass(frozen=True)
class ShardedPart:
    """A part of the rows by shards. sizes: the number of rows of each shard; rows: those of the shards of this
    process, among its own."""

    sizes: list[int]
    rows: dict[int, NDArray[np.int64]]

    @property
    def n_rows(self) -> int:
        """The number of rows of all shards."""
        return sum(self.sizes)

    def n_batches(self, batch_size: int | None) -> int:
        """Return the number of mini-batches; None puts the part in one."""
        return -(-self.n_rows // (batch_size or self.n_rows))

    def ends(self, shard: int, batch: int, n_batches: int) -> tuple[int, int]:
        """Return the positions in a shard between which a mini-batch has its rows."""
        size = self.sizes[shard]
        return size * batch // n_batches, size * (batch + 1) // n_batches

    def n_in_batch(self, batch: int, n_batches: int) -> int:
        """Return the number of rows of a mini-batch, from all shards."""
        ends = [self.ends(shard, batch, n_batches) for shard in range(len(self.sizes))]
        return sum(last - first for first, last in ends)


def sharded(cut: Cut, rows: Numbers) -> ShardedPart:
    """Put the rows (n,) of a part into the shards of this process, and learn the sizes of the others."""
    numbers = cut.numbers[rows]
    own = {shard: np.asarray(rows[numbers == shard], dtype=np.int64) for shard in cut.shards.own}
    return ShardedPart(cut.shards.share_lists([len(one) for one in own.values()]), own)


def cut_rows(shards: Shards, sizes: Sequence[int], where: str) -> Cut:
    """Cut rows into shards. sizes: as in `Cut`. Raises DataError for fewer rows than shards."""
    if sizes[0] < shards.n:
        raise DataError(f"{where}: {sizes[0]} rows for data.shards: {shards.n}; use fewer shards")
    return Cut(shards, tuple(sizes))


def own_points(points: Points, shards: Shards, where: str) -> "tuple[Points, Cut | None]":
    """Return the points of the shards of this process, and how all rows are cut. If it has all shards, that is known
    after they are read. Raises DataError."""
    if shards.are_own:
        return points, None
    cut = cut_rows(shards, points.count(shards), where)
    return OwnPoints(points, cut), cut


class OwnPoints(Points):
    """The points of the shards of a process, which reads no others, if their source can find them."""

    def __init__(self, source: Points, cut: Cut) -> None:
        self.source, self.cut = source, cut
        self.feature_names, self.target_names = source.feature_names, source.target_names
        self.missing, self.unseen, self.dates = source.missing, source.unseen, source.dates
        self.sizes = [len(rows) for rows in cut.own] if len(cut.sizes) > 1 else ()

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # grows while a table is read
        """The categories in the rows read so far."""
        return self.source.categories

    def blocks(self) -> Iterator[Block]:
        """Read the rows of this process."""
        for group, rows in enumerate(self.cut.own):
            if len(rows):
                yield from self.source.between(group, rows)

    def column(self, name: str) -> "Column":
        """Read a column of all rows, for the split."""
        return self.source.column(name)

    def stamp(self) -> list[list[str | int]] | None:
        """Return what identifies the files of all rows."""
        return self.source.stamp()
