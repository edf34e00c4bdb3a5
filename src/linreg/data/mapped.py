"""Rows in a memory-mapped file of float64, for tables larger than memory, and their dataset.

A row of the file is a point: its inputs as in the source, its targets, and its weight if it has one. Passes and batches
copy the rows that they read. The resident part of the map never exceeds a limit.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.dataset import Point
from linreg.data.fingerprint import text_of_sums
from linreg.data.precision import Precision, refuse_unfit
from linreg.data.rows import Rows, used_blocks
from linreg.data.shards import Shards, cut_rows
from linreg.data.sources import Block, Points, column_of
from linreg.data.split import Column, Parts
from linreg.data.transform import Transform
from linreg.errors import DataError

WINDOW = 2**21  # bytes; one touch makes up to a huge page of the page cache resident
BLOCK = 2**22  # bytes in a block of a pass


class MappedRows(Rows):
    """The rows of a cache entry, which is locked while this object lives.

    memory_limit: the most bytes of the map that are resident at once, on Linux (see `_release`); source: the origin of
    the rows, read again only to describe a row in a message. shards: those whose pages are read, by default all.
    minimum, maximum: of each column of all rows, without gaps: features, targets, weight.
    """

    def __init__(
        self,
        file: IO[bytes],
        meta: Mapping[str, Any],
        *,
        memory_limit: int,
        source: Points,
        shards: Shards | None = None,
        where: str = "data.source",
    ) -> None:
        super().__init__(source)
        self.feature_names, self.target_names = tuple(meta["feature_names"]), tuple(meta["target_names"])
        self._categories: Mapping[str, Sequence[str]] = meta["categories"]
        self.fingerprint, self.is_weighted = meta["fingerprint"], meta["weighted"]
        self.minimum, self.maximum = (np.array(meta[name], dtype=np.float64) for name in ("minimum", "maximum"))
        self._all, self._sizes = range(meta["n_rows"]), list[int](meta["sizes"])
        self._own = [self._all]  # the rows of the map that are read
        if shards is not None:
            self.cut = cut = cut_rows(shards, self._sizes or [len(self._all)], where)
            self._own = [
                range(first + rows.start, first + rows.stop) for first, rows in zip(cut.first, cut.own, strict=True)
            ]
            categories = {name: sorted(values) for name, values in self._categories.items()}
            self.fingerprint = text_of_sums(self, categories, len(self._all), meta["sums"])
        self.n_rows = sum(map(len, self._own))
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.n_bytes = len(self._map)
        file.close()  # the map has its own descriptor, and with it the lock
        self._rows = np.frombuffer(self._map, dtype=np.float64).reshape(len(self._all), -1)
        row_bytes = self._rows.strides[0]
        self._fits = self.n_bytes + WINDOW <= memory_limit
        self._windows_at_once = max(1, memory_limit // (WINDOW * (2 + row_bytes // WINDOW)))
        self._block_rows = max(1, BLOCK // row_bytes)

    @property
    def sizes(self) -> Sequence[int]:  # type: ignore[override]  # as in Rows
        """The numbers of rows of the table and of separate files."""
        return self._sizes if self.cut is None or not self._sizes else [len(rows) for rows in self.cut.own]

    def column(self, name: str) -> Column:
        """Read a column of all rows for the split, from the map if it has it."""
        if name not in (*self.feature_names, *self.target_names):
            return self.source.column(name)
        return column_of(self, (self._read(rows) for rows in self._steps([self._all])), name)

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # as in Rows
        """The categories of each categorical feature, in the order of their codes in x."""
        return self._categories

    def blocks(self) -> Iterator[Block]:
        """Read the rows, in blocks that are copies."""
        return (block for _, block in self.blocks_with(None))

    def blocks_with(self, mask: NDArray[np.bool_] | None) -> Iterator[tuple[int, Block]]:
        """Read the blocks for which the mask (n_rows,) is not false, as copies."""
        first = 0
        for rows in self._steps(self._own):
            if mask is None or mask[first : first + len(rows)].any():
                yield first, self._read(rows)
            first += len(rows)

    def _steps(self, ranges: Sequence[range]) -> Iterator[range]:
        """Cut ranges of the map into those of blocks."""
        for rows in ranges:
            for first in range(rows.start, rows.stop, self._block_rows):
                yield range(first, min(first + self._block_rows, rows.stop))

    def _read(self, rows: range) -> Block:
        """Read rows of the map as a copy."""
        values = self._rows[rows.start : rows.stop].copy()
        self._release()
        return self._block(values, rows)

    def take(self, indices: NDArray[np.int64]) -> Block:
        """Read some rows (n,), in any order."""
        if self.cut is not None:
            indices = self.cut.all_rows(indices)
        if self._fits:
            return self._block(np.take(self._rows, indices, axis=0), indices)
        order = np.argsort(indices)  # so that each window is visited once
        ordered = indices[order]
        rows = np.empty((len(indices), self._rows.shape[1]))
        for part in self._parts(ordered):
            rows[order[part]] = np.take(self._rows, ordered[part], axis=0)
            self._release()
        return self._block(rows, indices)

    def columns_of(self, mask: NDArray[np.bool_], positions: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """Yield the columns (n,) of the features at some positions, with memory for one of them."""
        return (self._column(position, mask) for position in positions)

    def weight(self) -> NDArray[np.float64] | None:
        """Return the weights of all rows (n_rows,), or None."""
        return self._column(-1, np.ones(self.n_rows, dtype=bool)) if self.is_weighted else None

    def dataset(self, transform: Transform, parts: Parts, where: str) -> "MappedDataset":
        """Return the rows as inputs of the network, read on demand. Raises DataError."""
        self._refuse_unseen(transform, parts)
        self._refuse_unfit(transform, parts, where)
        return MappedDataset(self, transform)

    def _column(self, position: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Read one column of the rows of a mask, (n,)."""
        values, first, done = np.empty(int(mask.sum())), 0, 0
        for rows in self._steps(self._own):
            block = self._rows[rows.start : rows.stop, position][mask[first : first + len(rows)]]
            values[done : done + len(block)] = block
            first, done = first + len(rows), done + len(block)
            self._release()
        return values

    def _refuse_unseen(self, transform: Transform, parts: Parts) -> None:
        """Raise a DataError for a category that is only in the validation part, unless `unseen` allows it."""
        known = [len(values) for values in self.categories.values()]
        learnt = [len(feature.categories) for feature in transform.features if feature.categories is not None]
        if self.unseen == "error" and sorted(known) != sorted(learnt):
            for block, _ in used_blocks(self, parts):
                transform.recode(block)

    def _refuse_unfit(self, transform: Transform, parts: Parts, where: str) -> None:
        """Raise a DataError for values that do not fit the network's dtype. Without transforms, preprocessing keeps the
        order of values, so the extremes of each column suffice."""
        n_features, width = len(self.feature_names), len(self.feature_names) + len(self.target_names)
        names = [*transform.column_names, *self.target_names]
        shards = None if self.cut is None else self.cut.shards
        precision = Precision(names, transform.dtype, where=where, shards=shards)

        def values() -> Iterator[NDArray[np.floating]]:
            return (transform.values(block) for block, _ in used_blocks(self, parts))

        fits = True
        if transform.is_monotonic:
            extremes = np.stack([self.minimum, self.maximum])
            extremes[:, self.categorical_positions] = 0.0
            x, y = torch.from_numpy(extremes[:, :n_features]), torch.from_numpy(extremes[:, n_features:width])
            if transform.preprocessing is not None:
                x, y = transform.preprocessing(x), transform.preprocessing.scaled(y)
            ends = torch.cat([x, y], dim=1)
            precision.add(ends.numpy(), n_rows=self.n_rows)
            fits = bool(torch.isfinite(ends.to(getattr(torch, transform.dtype))).all())
        if not transform.is_monotonic or not fits:
            for block, _ in used_blocks(self, parts):  # to find the row
                given = transform.values(block)
                with np.errstate(over="ignore"):
                    refuse_unfit(names, given.astype(transform.dtype), given, block.where, where=where)
                if not transform.is_monotonic:
                    precision.add(given)
        precision.log(values)

    def _block(self, rows: NDArray[np.float64], numbers: Sequence[int] | NDArray[np.int64]) -> Block:
        n_features, width = len(self.feature_names), len(self.feature_names) + len(self.target_names)
        weight = rows[:, width] if self.is_weighted else None
        x, y = rows[:, :n_features], rows[:, n_features:width]
        return Block(x, y, weight, lambda row: self._place(int(numbers[row])))

    def _parts(self, ordered: NDArray[np.int64]) -> Iterator[slice]:
        """Cut ascending rows into parts that each touch at most `_windows_at_once` windows."""
        windows = ordered * self._rows.strides[0] // WINDOW
        starts = np.flatnonzero(np.diff(windows, prepend=-1))[:: self._windows_at_once]
        for first, last in zip(starts, [*starts[1:], len(ordered)], strict=True):
            yield slice(first, last)

    def _release(self) -> None:
        """Release the memory of the map; its pages stay in the page cache. Only Linux does so at once."""
        if not self._fits:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _place(self, row: int) -> str:
        """Return the origin of a row in the source."""
        first = 0
        for block in self.source.blocks():
            if row < first + len(block.x):
                return block.where(row - first)
            first += len(block.x)
        raise DataError(f"row {row + 1}: no longer in the source; run the command again")


class MappedDataset(Dataset[Point]):
    """The points of a map as inputs of the network, like `CustomDataset`: (x, y) or (x, y, weight)."""

    def __init__(self, points: MappedRows, transform: Transform) -> None:
        self.points, self.transform = points, transform
        self.dtype = getattr(torch, transform.dtype)

    def __len__(self) -> int:
        return self.points.n_rows

    def __getitem__(self, index: int) -> Point:
        return tuple(part[0] for part in self.rows(torch.tensor([index])))

    def __getitems__(self, indices: Sequence[int]) -> list[Point]:
        """Return the points of a batch. DataLoader calls this."""
        return list(zip(*self.rows(torch.tensor(indices)), strict=True))

    @property
    def n_bytes(self) -> int:
        """The size of the map."""
        return self.points.n_bytes

    @property
    def n_values(self) -> int:
        """The number of values of a point of the dataset."""
        return self.transform.n_columns + len(self.points.target_names) + (self.transform.scale is not None)

    def to(self, device: torch.device) -> "MappedDataset":
        """Return the dataset itself: its batches move to a device, not its points."""
        return self

    def rows(self, indices: torch.Tensor) -> Point:
        """Return n points: x (n, n_columns), y (n, n_targets) and, with weights, weight (n, 1)."""
        numbers = indices.cpu().numpy().astype(np.int64)
        block = self.points.take(numbers)
        parts = [*self.transform(block)]
        if self.transform.scale is not None and block.weight is not None:
            parts.append(torch.from_numpy(block.weight / self.transform.scale(numbers))[:, None])
        return tuple(part.to(self.dtype).contiguous() for part in parts)

    def take(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.floating], ...]:
        """Return n points as `rows` does, in arrays."""
        return tuple(part.numpy() for part in self.rows(torch.from_numpy(indices)))
