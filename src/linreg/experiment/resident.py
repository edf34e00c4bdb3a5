"""The data of a spec in memory: read, divided, preprocessed."""

from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.data.dataset import CustomDataset, refuse_shapes, refuse_unfit
from linreg.data.fingerprint import Fingerprint
from linreg.data.pipeline import Data, ascending, chunks, mask_of
from linreg.data.preprocessing import (
    Preprocessing,
    categorical_of,
    is_needed,
    learn,
    make_recode_fn,
    refuse_infinite,
    to_dict,
)
from linreg.data.sources import Block, Points, Samples
from linreg.data.split import split_rows
from linreg.data.statistics import Statistics, ranges_of
from linreg.errors import DataError
from linreg.experiment.data import split_of, weight_mean
from linreg.spec.schema import ExperimentSpec
from linreg.system.memory import arrow_keeps_nothing, gigabytes, usable_bytes
from linreg.system.threads import in_order


def prepare_resident(spec: ExperimentSpec, points: Points) -> Data:
    """Read the points of a spec into memory, divide them, and learn the preprocessing of their training part. Raises
    SpecError, DataError.

    Without preprocessing the rows are read straight into the dataset; else in float64, which is dropped at the end.
    """
    where = spec.where("data", "source")
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    needed = is_needed(points, spec.data.standardize)
    with arrow_keeps_nothing():
        raw = _gathered(points, "float64" if needed else spec.dtype, where=where, gaps=needed)
    train, val = split_rows(len(raw.x), **split_of(spec))
    weight = None if raw.weight is None else _scaled_weight(raw.weight, train, val, where)

    statistics = _learnt_from(raw, mask_of(train, len(raw.x)), points, ranges_only=not needed)
    preprocessing = learn(statistics, points, standardize=spec.data.standardize, where=where)
    arrays = _preprocessed(raw, points, preprocessing, spec.dtype, where) if needed else (raw.x, raw.y)
    tensors = [torch.from_numpy(array) for array in arrays]
    if weight is not None:
        tensors.append(torch.from_numpy(weight[:, None].astype(spec.dtype)))
    dataset = CustomDataset(*tensors)
    return Data(
        feature_names=points.feature_names,
        target_names=points.target_names,
        is_weighted=weight is not None,
        dataset=dataset,
        train_data=Subset(dataset, train),  # type: ignore[arg-type]  # anything that can be indexed
        val_data=None if val is None else Subset(dataset, val),  # type: ignore[arg-type]  # as above
        features=preprocessing.features,
        preprocessing=preprocessing if needed else None,
        described=to_dict(preprocessing.features, points),
        fingerprint=raw.fingerprint,
    )


def _scaled_weight(
    weight: NDArray[Any], train: NDArray[np.integer], val: NDArray[np.integer] | None, where: str
) -> NDArray[np.float64]:
    """Scale weights (n,), float64, where they lie so that their mean over each part is 1."""
    for part in (train, val):
        if part is not None:
            weight[part] /= weight_mean(weight[part], where)
    return weight


def _learnt_from(raw: "_Gathered", mask: NDArray[np.bool_], points: Points, *, ranges_only: bool) -> Statistics:
    """Learn from the rows of a mask."""
    statistics = Statistics(raw.x.shape[1], raw.y.shape[1], medians=points.missing == "median")

    def ranges(rows: NDArray[np.int64]) -> tuple[int, NDArray[Any], NDArray[Any]]:
        return ranges_of(raw.x.take(rows, axis=0))

    if ranges_only:
        with closing(in_order(ranges, ascending(mask), torch.get_num_threads())) as several:
            for found in several:
                statistics.add_ranges(*found)
    else:
        for rows in ascending(mask):
            statistics.add(raw.x.take(rows, axis=0), raw.y.take(rows, axis=0), categorical_of(points))
    return statistics


@dataclass(frozen=True)
class _Gathered:
    """All rows, as the source has them: x (n, n_features), y (n, n_targets), weight (n,) or None; where: says of the
    i-th row where it comes from."""

    x: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[Any] | None
    where: Callable[[int], str]
    fingerprint: str


class _Rows:
    """Rows (n, width) in one array, which grows where it lies: the system need not copy it, and there is never a second
    one."""

    def __init__(self, dtype: str) -> None:
        self.array: NDArray[Any] = np.empty((0, 0), dtype)
        self.n_rows = 0

    def add(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Add rows (m, width); give them as they are now."""
        n_rows = self.n_rows + len(rows)
        if n_rows > len(self.array):
            self._resize(max(n_rows, len(self.array) * 17 // 16), rows.shape[1])
        here = self.array[self.n_rows : n_rows]
        with np.errstate(over="ignore"):  # what is too large is refused as infinite
            here[:] = rows
        self.n_rows = n_rows
        return here

    def whole(self) -> NDArray[Any]:
        """Give all rows."""
        self._resize(self.n_rows, self.array.shape[1])
        return self.array

    def _resize(self, n_rows: int, width: int) -> None:
        self.array.resize((n_rows, width), refcheck=False)  # a view of it is used at once, or not at all


def _gathered(points: Points, dtype: str, *, where: str, gaps: bool) -> _Gathered:
    """Bring all points into memory. gaps: whether x and y may have such, for the preprocessing to look at."""
    x, y, weight, found = _Rows(dtype), _Rows(dtype), _Rows("float64"), Fingerprint(points)
    starts, places = [], []
    for block in points.blocks():
        refuse_infinite(block, points, where)
        found.add(block)
        starts.append(x.n_rows)
        places.append(block.where)
        parts = [("x", x, block.x), ("y", y, block.y)]
        if block.weight is not None:
            parts.append(("weight", weight, block.weight[:, None]))
        if x.array.nbytes + y.array.nbytes + block.x.nbytes > usable_bytes():
            most = gigabytes(usable_bytes())
            raise DataError(f"{where}: its rows take more than the {most} of memory here; set data.memory: mapped")
        for name, rows, more in parts:
            first, here = rows.n_rows, rows.add(more)
            if name == "weight" or not gaps:
                refuse_unfit(name, here, more, where=where, first=first)

    def place(row: int) -> str:
        block = bisect_right(starts, row) - 1
        return places[block](row - starts[block])

    return _Gathered(x.whole(), y.whole(), weight.whole()[:, 0] if weight.n_rows else None, place, found.text())


def _preprocessed(
    raw: _Gathered, points: Points, preprocessing: Preprocessing, dtype: str, where: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make of raw rows those that the network takes, block by block."""
    recode = make_recode_fn(preprocessing.features, points)
    x, y = np.empty((len(raw.x), len(preprocessing.column_names)), dtype), np.empty(raw.y.shape, dtype)
    for rows in chunks(range(len(x))):
        here = slice(rows.start, rows.stop)
        block = Block(raw.x[here], raw.y[here], where=partial(_moved, raw.where, rows.start))
        with torch.no_grad(), np.errstate(over="ignore"):
            ready = (
                preprocessing(torch.from_numpy(np.ascontiguousarray(recode(block)))).numpy(),
                preprocessing.scaled(torch.from_numpy(block.y)).numpy(),
            )
            for name, array, values in zip("xy", (x, y), ready, strict=True):
                array[here] = values
                refuse_unfit(name, array[here], values, where=where, first=rows.start)
    return x, y


def _moved(where: Callable[[int], str], first: int, row: int) -> str:
    return where(first + row)
