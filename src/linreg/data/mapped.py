"""Tables larger than memory: converted once into a file of float64 that is mapped, and read from there.

A row of the file is a point: its inputs as the source has them, its targets, and its weight if it has one, side by
side, so that a point taken at random is in one place. What a pass or a batch has read is a copy; of the map itself no
more than a limit is resident at any moment.
"""

import logging
import mmap
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.cache import (
    POINTS,
    REMEDIES,
    cache_folder,
    key_of,
    make_room,
    new_entry,
    open_entry,
    publish,
)
from linreg.data.dataset import Point, refuse_shapes
from linreg.data.fingerprint import Fingerprint
from linreg.data.preprocessing import Preprocessing, RecodeFn, refuse_infinite
from linreg.data.sources import Block, Points, Samples
from linreg.errors import DataError, StorageError
from linreg.system.files import translated_errors

log = logging.getLogger("linreg")

WINDOW = 2**21  # bytes; the most that one touch makes resident: a huge page, where the page cache has such
BLOCK = 2**22  # bytes read at once in a pass
STRIDE = 2**26  # bytes written between two looks at the room there is


class MappedPoints(Points):
    """The points of an entry of the cache, held there as long as this object lives. memory_limit: bytes of the map that
    may be resident at once, on Linux (see `_let_go`); source: where they came from, which is read again only to say
    where a row stands.

    minimum, maximum: of each column, its gaps left out: of the features, the targets, the weight.
    """

    def __init__(self, file: IO[bytes], meta: Mapping[str, Any], *, memory_limit: int, source: Points) -> None:
        self.feature_names, self.target_names = tuple(meta["feature_names"]), tuple(meta["target_names"])
        self.categories: Mapping[str, Sequence[str]] = meta["categories"]
        self.missing, self.unseen = source.missing, source.unseen
        self.fingerprint: str = meta["fingerprint"]
        self.weighted: bool = meta["weighted"]
        self.minimum, self.maximum = (np.array(meta[name], dtype=np.float64) for name in ("minimum", "maximum"))
        self.n_rows: int = meta["n_rows"]
        self.source = source
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.n_bytes = len(self._map)
        file.close()  # the map has a descriptor of its own, and with it the lock
        self._rows = np.frombuffer(self._map, dtype=np.float64).reshape(self.n_rows, -1)
        row_bytes = self._rows.strides[0]
        self._fits = self.n_bytes + WINDOW <= memory_limit
        self._windows_at_once = max(1, memory_limit // (WINDOW * (2 + row_bytes // WINDOW)))
        self._block_rows = max(1, BLOCK // row_bytes)

    def blocks(self) -> Iterator[Block]:
        """Read the rows, in blocks of their own memory."""
        for first in range(0, self.n_rows, self._block_rows):
            rows = self._rows[first : first + self._block_rows].copy()
            self._let_go()
            yield self._block(rows, range(first, first + len(rows)))

    def take(self, indices: NDArray[np.int64]) -> Block:
        """Read some rows (n,), in any order."""
        if self._fits:
            return self._block(np.take(self._rows, indices, axis=0), indices)
        order = np.argsort(indices)  # so that each window is visited once
        ordered = indices[order]
        rows = np.empty((len(indices), self._rows.shape[1]))
        for part in self._parts(ordered):
            rows[order[part]] = np.take(self._rows, ordered[part], axis=0)
            self._let_go()
        return self._block(rows, indices)

    def column(self, position: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Read one feature of the rows that the mask has, (n,)."""
        values, done = np.empty(int(mask.sum())), 0
        for first in range(0, self.n_rows, self._block_rows):
            rows = slice(first, first + self._block_rows)
            here = self._rows[rows, position][mask[rows]]
            values[done : done + len(here)] = here
            done += len(here)
            self._let_go()
        return values

    def medians(self, mask: NDArray[np.bool_], positions: Sequence[int]) -> NDArray[np.float64]:
        """Find the medians of some features, their gaps left out, of the rows that the mask has."""
        return np.array([np.nanmedian(self.column(position, mask)) for position in positions])

    def weight(self) -> NDArray[np.float64]:
        """Read the weights of all points (N,)."""
        return self.column(-1, np.ones(self.n_rows, dtype=bool))

    def _block(self, rows: NDArray[np.float64], numbers: Sequence[int] | NDArray[np.int64]) -> Block:
        d, t = len(self.feature_names), len(self.target_names)
        weight = rows[:, d + t] if self.weighted else None
        return Block(rows[:, :d], rows[:, d : d + t], weight, lambda row: self._where(int(numbers[row])))

    def _parts(self, ordered: NDArray[np.int64]) -> Iterator[slice]:
        """Cut ascending rows into parts, each with no more windows than may be resident."""
        windows = ordered * self._rows.strides[0] // WINDOW
        starts = np.flatnonzero(np.diff(windows, prepend=-1))[:: self._windows_at_once]
        for first, last in zip(starts, [*starts[1:], len(ordered)], strict=True):
            yield slice(first, last)

    def _let_go(self) -> None:
        """Give back the memory of the map; the system keeps what it has read as long as it has room for it. Linux does
        so at once; elsewhere it is advice, which the system may follow later."""
        if not self._fits:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _where(self, row: int) -> str:
        """Say where a row came from, which only the source can tell."""
        first = 0
        for block in self.source.blocks():
            if row < first + len(block.x):
                return block.where(row - first)
            first += len(block.x)
        raise DataError(f"row {row + 1}: no longer in the source; start again")


class MappedDataset(Dataset[Point]):
    """The points of a map as the network takes them, like `CustomDataset`: (x, y) or (x, y, weight).

    recode, preprocessing: what a point goes through, in float64, before it is brought to dtype; scale: of each row (n,)
    what its weight is divided by.
    """

    def __init__(
        self,
        points: MappedPoints,
        dtype: torch.dtype,
        *,
        recode: RecodeFn,
        preprocessing: Preprocessing | None,
        scale: "WeightScale | None" = None,
    ) -> None:
        self.points, self.dtype = points, dtype
        self.recode, self.preprocessing, self.scale = recode, preprocessing, scale

    def __len__(self) -> int:
        return self.points.n_rows

    def __getitem__(self, index: int) -> Point:
        return tuple(part[0] for part in self.rows(torch.tensor([index])))

    def __getitems__(self, indices: Sequence[int]) -> list[Point]:
        """Give the points of a batch, as DataLoader asks for them where it can."""
        return list(zip(*self.rows(torch.tensor(indices)), strict=True))

    def raw(self, indices: NDArray[np.int64]) -> Block:
        """Give points (n,) as the table has them, with categories numbered as those of the features, weights scaled."""
        block = self.points.take(indices)
        weight = None
        if self.scale is not None and block.weight is not None:
            weight = block.weight / self.scale(indices)
        return Block(self.recode(block), block.y, weight, block.where)

    @property
    def n_bytes(self) -> int:
        """The size of the map."""
        return self.points.n_bytes

    @property
    def n_values(self) -> int:
        """How many values a point has, as the network takes it."""
        points, made = self.points, self.preprocessing
        n_columns = len(points.feature_names if made is None else made.column_names)
        return n_columns + len(points.target_names) + (self.scale is not None)

    def to(self, device: torch.device) -> "MappedDataset":
        """Give the points, which stay where they are whatever the device: it is batches that are moved."""
        return self

    def rows(self, indices: torch.Tensor) -> Point:
        """Give many points at once: x (n, n_columns), y (n, n_targets) and, with weights, weight (n, 1)."""
        block = self.raw(indices.cpu().numpy().astype(np.int64))
        x, y = torch.from_numpy(block.x), torch.from_numpy(block.y)
        if self.preprocessing is not None:
            x, y = self.preprocessing(x), self.preprocessing.scaled(y)
        parts = [x, y] if block.weight is None else [x, y, torch.from_numpy(block.weight)[:, None]]
        return tuple(part.to(self.dtype).contiguous() for part in parts)


class WeightScale:
    """Says what the weights of rows are divided by for a mean of 1 in each part: with one byte a row."""

    def __init__(self, train_mask: NDArray[np.bool_], train_mean: float, val_mean: float) -> None:
        self.train_mask, self.train_mean, self.val_mean = train_mask, train_mean, val_mean

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give the divisors (n,)."""
        return np.where(self.train_mask[rows], self.train_mean, self.val_mean)


def open_mapped(
    points: Points, *, source: Mapping[str, Any], memory_limit: int, where: str = "data.source"
) -> MappedPoints:
    """Open the points from the cache, where they are converted to if they are not there.

    source: what describes them, in plain values. Points from files are known by it and by the files' sizes and times,
    so that an unchanged table is not read again; others, by their fingerprint. Raises DataError, StorageError.
    """
    folder, stamp = cache_folder(), points.stamp()
    key = uuid.uuid4().hex if stamp is None else key_of(source, stamp)
    opened = open_entry(folder, key)
    if opened is None:
        with new_entry(folder, key) as temporary:
            opened = open_entry(folder, key)  # another process may have made it meanwhile
            if opened is None:
                log.info("converting the data into %s, once", folder)
                meta = _convert(points, temporary, where)
                if points.stamp() != stamp:
                    raise DataError(f"{where}: a file changed while it was read; start again")
                if stamp is None:
                    key = key_of(meta["fingerprint"])
                publish(temporary, key, {**meta, "source": _described(source, stamp)})
                opened = open_entry(folder, key)
        if opened is None:
            raise StorageError(f"{folder / key}: removed by another process; start again")
    return MappedPoints(*opened, memory_limit=memory_limit, source=points)


def _described(source: Mapping[str, Any], stamp: Sequence[Sequence[str | int]] | None) -> str:
    return ", ".join(str(path) for path, *_ in stamp) if stamp else str(source["name"])


def _convert(points: Points, temporary: Path, where: str) -> dict[str, Any]:
    """Write the points into a folder, in one pass. Gives what meta.json says of them."""
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    found = Fingerprint(points)
    lows, highs = [], []
    n_bytes = looked = n_columns = 0
    weighted = False
    with (temporary / POINTS).open("wb") as file:
        for block in points.blocks():
            refuse_infinite(block, points, where)
            found.add(block)
            weighted = block.weight is not None
            parts = [block.x, block.y] if block.weight is None else [block.x, block.y, block.weight[:, None]]
            rows = np.hstack([np.asarray(part, dtype=np.float64) for part in parts])
            rows = np.ascontiguousarray(rows)
            lows.append(np.fmin.reduce(rows, axis=0))
            highs.append(np.fmax.reduce(rows, axis=0))
            n_columns = rows.shape[1]
            n_bytes += rows.nbytes
            if not looked or n_bytes > looked + STRIDE:
                make_room(temporary.parent, n_bytes)
                looked = n_bytes
            with translated_errors(temporary.parent, REMEDIES):
                file.write(rows.data)
        make_room(temporary.parent, n_bytes)
        with translated_errors(temporary.parent, REMEDIES):
            file.flush()
            os.fsync(file.fileno())
    with np.errstate(invalid="ignore"):
        extremes = np.fmin.reduce(lows, axis=0), np.fmax.reduce(highs, axis=0)
    return {
        "feature_names": list(points.feature_names),
        "target_names": list(points.target_names),
        "categories": {name: list(met) for name, met in points.categories.items()},
        "weighted": weighted,
        "n_rows": found.n_rows,
        "n_columns": n_columns,
        "minimum": [None if np.isnan(value) else float(value) for value in extremes[0]],
        "maximum": [None if np.isnan(value) else float(value) for value in extremes[1]],
        "fingerprint": found.text(),
    }
