"""Rows of a data set, with one interface for rows in memory, in a mapped file, and at their source.

The stages of `pipeline` read rows through it. `ResidentRows`, `MappedRows` and `StreamedRows` implement it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.dataset import Point
from linreg.data.fingerprint import Fingerprint, RowSums
from linreg.data.preprocessing import FILLING
from linreg.data.shards import Cut, Shards, cut_rows, own_points
from linreg.data.sources import Block, Points
from linreg.data.split import TEST, Column, Parts
from linreg.data.transform import Transform
from linreg.errors import DataError

HEAD_ROWS = 2**10  # at the beginning of a table


class Rows(Points):
    """The points of a source, counted and identified. n_rows: the number of rows; fingerprint: identifies their names
    and values; is_weighted: whether rows have weights; cut: how they are cut into shards, or None. With shards, these
    are the rows of this process, and the fingerprint is that of all rows."""

    n_rows: int
    fingerprint: str
    is_weighted: bool
    cut: Cut | None = None

    def __init__(self, source: Points) -> None:
        self.source = source
        self.feature_names, self.target_names = tuple(source.feature_names), tuple(source.target_names)
        self.missing, self.unseen, self.dates = source.missing, source.unseen, source.dates

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # grows while a table is read
        """The categories of each categorical feature, in the order of their codes in x."""
        return self.source.categories

    @property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]  # grows while a table is read
        """The numbers of rows of the table and of separate files, as in `Points`."""
        return self.source.sizes

    def column(self, name: str) -> Column:
        """Read a column for the split."""
        return self.source.column(name)

    def blocks_with(self, mask: NDArray[np.bool_] | None) -> Iterator[tuple[int, Block]]:
        """Read the rows in blocks, each after the number of its first row. mask (n_rows,): a block for which it is
        false may be left out."""
        first = 0
        for block in self.blocks():
            yield first, block
            first += len(block.x)

    def head(self) -> Block:
        """Return the first HEAD_ROWS rows as numbers, or all if there are fewer."""
        return _head(self.blocks())

    def columns_of(self, mask: NDArray[np.bool_], positions: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """Yield the columns (n,) of the features at some positions, of the rows of the mask."""
        rows = np.concatenate([block.x[chosen][:, positions] for block, chosen in masked_blocks(self, mask)])
        yield from rows.T

    def weight(self) -> NDArray[np.float64] | None:
        """Return the weights of all rows (n_rows,), or None."""
        if not self.is_weighted:
            return None
        return np.concatenate([np.asarray(block.weight, dtype=np.float64) for block in self.blocks()])

    def dataset(self, transform: Transform, parts: Parts, where: str) -> Dataset[Point]:
        """Return the rows as inputs of the network; those of the test part may be zeros, as training does not use them.
        Raises DataError for a value that does not fit its dtype."""
        raise NotImplementedError


class StreamedRows(Rows):
    """Rows that stay at their source and are read again in each pass. The first pass counts them."""

    def __init__(self, source: Points, *, where: str, shards: Shards | None = None) -> None:
        points, cut = (source, None) if shards is None else own_points(source, shards, where)
        super().__init__(points)
        self.where = where
        identity = Identity(points, cut, shards, where)
        first: list[Block] = []
        for block in points.blocks():
            if identity.n_rows < HEAD_ROWS:
                first.append(block)
            identity.add(block)
            self.is_weighted = block.weight is not None
        self._head = _head(first)
        self.n_rows, (self.fingerprint, self.cut) = identity.n_rows, identity.finish()

    def head(self) -> Block:
        """Return the first rows, which were kept."""
        return self._head

    def blocks(self) -> Iterator[Block]:
        """Read the rows. Raises DataError for a value that is not finite."""
        for block in self.source.blocks():
            refuse_infinite(block, self.source, self.where)
            yield block


class Identity:
    """Counts and identifies rows while they are read. cut: of the rows of some shards; shards: None without shards."""

    def __init__(self, points: Points, cut: Cut | None, shards: Shards | None, where: str) -> None:
        self.points, self.cut, self.shards, self.where = points, cut, shards, where
        self.digest: Fingerprint | RowSums = Fingerprint(points) if shards is None else RowSums(points)

    @property
    def n_rows(self) -> int:
        """The number of rows so far."""
        return self.digest.n_rows

    def add(self, block: Block) -> None:
        """Add the next rows."""
        if isinstance(self.digest, RowSums) and self.cut is not None:
            self.digest.add(block, self.cut.all_rows(range(self.n_rows, self.n_rows + len(block.x))))
        else:
            self.digest.add(block)

    def finish(self) -> tuple[str, Cut | None]:
        """Return the fingerprint, and how all rows are cut into shards. Raises DataError."""
        if self.shards is None or not isinstance(self.digest, RowSums):
            assert isinstance(self.digest, Fingerprint)
            return self.digest.text(), None
        cut = self.cut or cut_rows(self.shards, self.points.sizes or [self.n_rows], self.where)
        return self.digest.text(self.shards), cut


def _head(blocks: Iterable[Block]) -> Block:
    x, y, n_rows = [], [], 0
    for block in blocks:
        x.append(np.array(block.x[: HEAD_ROWS - n_rows], dtype=np.float64))
        y.append(np.array(block.y[: HEAD_ROWS - n_rows], dtype=np.float64))
        n_rows += len(x[-1])
        if n_rows == HEAD_ROWS:
            break
    return Block(np.concatenate(x), np.concatenate(y))


def places(points: Points, numbers: Iterable[int]) -> dict[int, str]:
    """Return the places of some rows, by their numbers, in one pass over the source up to the last of them."""
    source, wanted = points.source if isinstance(points, Rows) else points, sorted(set(numbers))
    found: dict[int, str] = {}
    first = 0
    for block in source.blocks() if wanted else ():
        for number in wanted[len(found) : bisect_left(wanted, first + len(block.x))]:
            found[number] = block.where(number - first)
        first += len(block.x)
        if len(found) == len(wanted):
            break
    return found


def masked_blocks(points: Points, mask: NDArray[np.bool_]) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
    """Read all rows in blocks, each with its part of the mask (n_rows,)."""
    first = 0
    for block in points.blocks():
        yield block, mask[first : first + len(block.x)]
        first += len(block.x)


def select(block: Block, mask: NDArray[np.bool_]) -> Block:
    """Return the rows of a block for which a mask (n,) is true."""
    if mask.all():
        return block
    numbers = np.flatnonzero(mask)
    weight = None if block.weight is None else block.weight[numbers]
    return replace(
        block, x=block.x[numbers], y=block.y[numbers], weight=weight, where=lambda row: block.where(int(numbers[row]))
    )


def used_blocks(points: Rows, parts: Parts) -> Iterator[tuple[Block, NDArray[np.int64] | slice]]:
    """Read the rows for training and validation in blocks, with their positions."""
    return chosen_blocks(points, None if parts.train_on_all else parts.codes < TEST)


def chosen_blocks(points: Rows, mask: NDArray[np.bool_] | None) -> Iterator[tuple[Block, NDArray[np.int64] | slice]]:
    """Read the rows for which a mask (n_rows,) is true in blocks, with their positions; all rows without a mask."""
    for first, block in points.blocks_with(mask):
        rows = slice(first, first + len(block.x))
        if mask is None or mask[rows].all():
            yield block, rows
        elif mask[rows].any():
            yield select(block, mask[rows]), first + np.flatnonzero(mask[rows])


def refuse_infinite(block: Block, points: Points, where: str) -> None:
    """Raise a DataError for a value that is not finite, unless it is a gap that the preprocessing fills."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.x.sum() + block.y.sum()):  # nearly always, in a fraction of the time
            return
    wrong_x = np.isinf(block.x) if points.missing in FILLING else ~np.isfinite(block.x)
    for names, wrong, values in (
        (points.feature_names, wrong_x, block.x),
        (points.target_names, ~np.isfinite(block.y), block.y),
    ):
        for row, column in zip(*np.nonzero(wrong), strict=True):
            place = f"{where}: {block.where(int(row))}, column {names[column]!r}"
            raise DataError(f"{place}: {values[row, column]} is not finite; fix it")
