"""Rows of a data set, with one interface for rows in memory, in a mapped file, and at their source.

The stages of `pipeline` read rows through it. `ResidentRows`, `MappedRows` and `StreamedRows` implement it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.dataset import Point
from linreg.data.preprocessing import FILLING
from linreg.data.sources import Block, Points
from linreg.data.split import TEST, Column, Parts
from linreg.data.transform import Transform
from linreg.errors import DataError

HEAD_ROWS = 2**10  # at the beginning of a table


class Rows(Points):
    """The points of a source, counted and identified. n_rows: the number of rows; fingerprint: identifies their names
    and values; is_weighted: whether rows have weights."""

    n_rows: int
    fingerprint: str
    is_weighted: bool

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

    def head(self) -> Block:
        """Return the first HEAD_ROWS rows as numbers, or all if there are fewer."""
        return _head(self.blocks())

    def medians(self, mask: NDArray[np.bool_], positions: Sequence[int]) -> NDArray[np.float64]:
        """Return the medians of the features at some positions, without gaps, over the rows of the mask."""
        columns = np.concatenate([block.x[chosen][:, positions] for block, chosen in masked_blocks(self, mask)])
        return np.array([np.nanmedian(column) for column in columns.T])

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

    def __init__(self, source: Points, *, where: str) -> None:
        super().__init__(source)
        self.where = where
        fingerprint = Fingerprint(source)
        first: list[Block] = []
        for block in source.blocks():
            if fingerprint.n_rows < HEAD_ROWS:
                first.append(block)
            fingerprint.add(block)
            self.is_weighted = block.weight is not None
        self._head = _head(first)
        self.n_rows, self.fingerprint = fingerprint.n_rows, fingerprint.text()

    def head(self) -> Block:
        """Return the first rows, which were kept."""
        return self._head

    def blocks(self) -> Iterator[Block]:
        """Read the rows. Raises DataError for a value that is not finite."""
        for block in self.source.blocks():
            refuse_infinite(block, self.source, self.where)
            yield block


def _head(blocks: Iterable[Block]) -> Block:
    x, y, n_rows = [], [], 0
    for block in blocks:
        x.append(np.array(block.x[: HEAD_ROWS - n_rows], dtype=np.float64))
        y.append(np.array(block.y[: HEAD_ROWS - n_rows], dtype=np.float64))
        n_rows += len(x[-1])
        if n_rows == HEAD_ROWS:
            break
    return Block(np.concatenate(x), np.concatenate(y))


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


def used_blocks(points: Points, parts: Parts) -> Iterator[tuple[Block, NDArray[np.int64] | slice]]:
    """Read the rows outside the test part in blocks, with their positions."""
    first = 0
    for block in points.blocks():
        rows = slice(first, first + len(block.x))
        if parts.test is None:
            yield block, rows
        else:
            used = parts.codes[rows] != TEST
            if used.any():
                yield select(block, used), first + np.flatnonzero(used)
        first = rows.stop


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


class Fingerprint:
    """Identifies data: the number of rows, and the SHA-256 of the columns' names and of the values of x, y and weight.

    It does not depend on how the rows are cut into blocks. A resumed run recognizes its data by it."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.n_rows = 0
        self.digests = [hashlib.sha256() for _ in range(3)]

    def add(self, block: Block) -> None:
        """Add the rows of a block."""
        self.n_rows += len(block.x)
        for digest, array in zip(self.digests, (block.x, block.y, block.weight), strict=True):
            if array is not None:
                digest.update(np.ascontiguousarray(array, dtype=np.float64).data)

    def text(self) -> str:
        """Return the fingerprint of the rows so far, as parts with names."""
        names = [*self.points.feature_names, *self.points.target_names, *self.points.categories.items()]
        columns = hashlib.sha256(repr(names).encode())
        digests = zip(("columns", "x", "y", "weight"), (columns, *self.digests), strict=True)
        return " ".join([f"rows={self.n_rows}", *(f"{name}={digest.hexdigest()}" for name, digest in digests)])


def differing(then: str, now: str) -> list[str]:
    """Describe the parts in which two fingerprints differ, with both numbers of rows."""
    before, after = (dict(part.partition("=")[::2] for part in text.split()) for text in (then, now))
    rows = [f"{before.get('rows')} rows, now {after.get('rows')}"] if before.get("rows") != after.get("rows") else []
    words = {"columns": "the names of the columns or categories", "x": "values of x", "y": "values of y"}
    others = [name for name in ("columns", "x", "y", "weight") if before.get(name) != after.get(name)]
    return rows + [words.get(name, "weights") for name in others]
