"""Rows in memory, and their dataset."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.dataset import CustomDataset
from linreg.data.precision import Precision, refuse_unfit
from linreg.data.rows import Identity, Rows, refuse_infinite, used_blocks
from linreg.data.shards import Shards, own_points
from linreg.data.sources import Block, Points
from linreg.data.split import Parts
from linreg.data.transform import Transform
from linreg.errors import DataError
from linreg.system.memory import arrow_without_pool, gigabytes, usable_bytes

BLOCK_ROWS = 2**15  # in a block of a pass


class ResidentRows(Rows):
    """Rows in memory: x (n_rows, n_features), y (n_rows, n_targets), both of one dtype, weights in float64.

    gaps: whether x may have gaps, for the preprocessing to fill; else every value must fit the dtype.
    """

    def __init__(self, points: Points, *, dtype: str, gaps: bool, where: str, shards: Shards | None = None) -> None:
        source, cut = (points, None) if shards is None else own_points(points, shards, where)
        super().__init__(source)
        x, y, weight = _Growing(dtype), _Growing(dtype), _Growing("float64")
        identity = Identity(source, cut, shards, where)
        names = [*self.feature_names, *self.target_names]
        precision = Precision(names, dtype, where=where, shards=shards)
        self._starts: list[int] = []
        self._places: list[Callable[[int], str]] = []
        with arrow_without_pool():
            for block in source.blocks():
                refuse_infinite(block, source, where)
                identity.add(block)
                self._starts.append(x.n_rows)
                self._places.append(block.where)
                if x.array.nbytes + y.array.nbytes + block.x.nbytes > usable_bytes():
                    most = gigabytes(usable_bytes())
                    raise DataError(f"{where}: the rows take more than the {most} of memory; set data.memory: mapped")
                precision.add(block.x)
                precision.add(block.y, block.x.shape[1])
                for columns, rows, values in ((self.feature_names, x, block.x), (self.target_names, y, block.y)):
                    added = rows.add(values)
                    if not gaps:
                        refuse_unfit(columns, added, values, block.where, where=where)
                if block.weight is not None:
                    values = block.weight[:, None]
                    refuse_unfit(["sample_weight"], weight.add(values), values, block.where, where=where)
            precision.log(lambda: (np.hstack([block.x, block.y]) for block in source.blocks()))
        self.x, self.y = x.whole(), y.whole()
        self.n_rows, (self.fingerprint, self.cut) = len(self.x), identity.finish()
        self.is_weighted = weight.n_rows > 0
        self._weight = weight.whole()[:, 0] if self.is_weighted else None

    def blocks(self) -> Iterator[Block]:
        """Return the rows, in blocks of BLOCK_ROWS."""
        for first in range(0, self.n_rows, BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            weight = None if self._weight is None else self._weight[rows]
            yield Block(self.x[rows], self.y[rows], weight, partial(self._place, first))

    def weight(self) -> NDArray[np.float64] | None:
        """Return the weights of all rows (n_rows,), or None."""
        return self._weight

    def dataset(self, transform: Transform, parts: Parts, where: str) -> CustomDataset:
        """Return the rows as tensors. Raises DataError for a value that does not fit the network's dtype."""
        x, y = (self.x, self.y) if transform.preprocessing is None else self._preprocessed(transform, parts, where)
        tensors = [torch.from_numpy(x), torch.from_numpy(y)]
        if self._weight is not None and transform.scale is not None:
            weight = self._weight / transform.scale(slice(None))
            tensors.append(torch.from_numpy(weight[:, None].astype(transform.dtype)))
        return CustomDataset(*tensors)

    def _preprocessed(self, transform: Transform, parts: Parts, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
        make = np.empty if parts.train_on_all else np.zeros
        x = make((self.n_rows, transform.n_columns), transform.dtype)
        y = make(self.y.shape, transform.dtype)
        names = [transform.column_names, self.target_names]
        shards = None if self.cut is None else self.cut.shards
        precision = Precision([*names[0], *names[1]], transform.dtype, where=where, shards=shards)
        for block, rows in used_blocks(self, parts):
            width = 0
            with torch.no_grad(), np.errstate(over="ignore"):
                for columns, array, tensor in zip(names, (x, y), transform(block), strict=True):
                    precision.add(tensor.numpy(), width)
                    array[rows] = tensor.numpy()
                    refuse_unfit(columns, array[rows], tensor.numpy(), block.where, where=where)
                    width += len(columns)
        precision.log(lambda: (transform.values(block) for block, _ in used_blocks(self, parts)))
        return x, y

    def _place(self, first: int, number: int) -> str:
        row = first + number
        block = bisect_right(self._starts, row) - 1
        return self._places[block](row - self._starts[block])


class _Growing:
    """An array (n_rows, width) that grows in place, without a second copy in memory."""

    def __init__(self, dtype: str) -> None:
        self.array: NDArray[Any] = np.empty((0, 0), dtype)
        self.n_rows = 0

    def add(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Add rows (m, width); return them in the array's dtype."""
        n_rows = self.n_rows + len(rows)
        if n_rows > len(self.array):
            self._resize(max(n_rows, len(self.array) * 17 // 16), rows.shape[1])
        added = self.array[self.n_rows : n_rows]
        with np.errstate(over="ignore"):  # a value that is too large becomes infinite, and is refused
            added[:] = rows
        self.n_rows = n_rows
        return added

    def whole(self) -> NDArray[Any]:
        """Return all rows."""
        self._resize(self.n_rows, self.array.shape[1])
        return self.array

    def _resize(self, n_rows: int, width: int) -> None:
        self.array.resize((n_rows, width), refcheck=False)  # its views are used at once
