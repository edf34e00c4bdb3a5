"""The data of a spec: read, divided, preprocessed."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.ahead import in_order
from linreg.datasets import DATASETS, Block, Points, Samples
from linreg.errors import DataError
from linreg.loaders import CustomDataset, Fingerprint, refuse_shapes, refuse_unfit, split_mask, split_rows
from linreg.mapped import MappedDataset, MappedPoints, open_mapped
from linreg.preprocessing import (
    Feature,
    Preprocessing,
    Statistics,
    by_column,
    is_needed,
    learn,
    make_recode_fn,
    to_dict,
)
from linreg.spec import ExperimentSpec

BLOCK_ROWS = 2**13  # gathered, learnt from and preprocessed at once


@dataclass(frozen=True)
class Columns:
    """The names of columns, and whether the points have weights."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    weighted: bool


@dataclass(frozen=True)
class Data:
    """The data of an experiment. samples: the names of its columns; dataset: its rows as the network takes them;
    preprocessing: what stands between the source and those, or None; described: what a checkpoint keeps of it beside
    its numbers."""

    samples: Columns | MappedPoints
    dataset: CustomDataset | MappedDataset
    train_data: Subset[Any]
    val_data: Subset[Any] | None
    features: list[Feature]
    preprocessing: Preprocessing | None
    described: dict[str, Any]
    fingerprint: str

    @property
    def n_columns(self) -> int:
        """How many columns the network takes."""
        return sum(len(feature.columns) for feature in self.features)

    @property
    def is_weighted(self) -> bool:
        """Whether the points have weights."""
        return self.samples.weighted


def prepare(spec: ExperimentSpec) -> Data:
    """Read the data of a spec into memory, divide it, and learn the preprocessing of its training part; with
    `data.memory: mapped` from its map. Raises SpecError, DataError.

    Without preprocessing the rows are read straight into the dataset; else in float64, which is dropped at the end.
    """
    where = spec.where("data", "source")
    points = open_points(spec)
    if isinstance(points, MappedPoints):
        from linreg.experiment.mapped import prepare_mapped  # built on what stands here

        return prepare_mapped(spec, points)
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    needed = is_needed(points, spec.data.standardize)
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
        samples=Columns(points.feature_names, points.target_names, weight is not None),
        dataset=dataset,
        train_data=Subset(dataset, train),  # type: ignore[arg-type]  # anything that can be indexed
        val_data=None if val is None else Subset(dataset, val),  # type: ignore[arg-type]
        features=preprocessing.features,
        preprocessing=preprocessing if needed else None,
        described=to_dict(preprocessing.features, points),
        fingerprint=raw.fingerprint,
    )


def open_points(spec: ExperimentSpec) -> Points:
    """Open the source of a spec; with `data.memory: mapped`, the map of what was converted from it."""
    where = spec.where("data", "source")
    points: Points = DATASETS.build(spec.data.source, where=where)
    if spec.data.memory == "resident":
        return points
    return open_mapped(
        points, source=spec.data.source.to_dict(), memory_limit=spec.data.memory_limit * 2**20, where=where
    )


def split_of(spec: ExperimentSpec) -> dict[str, Any]:
    """The arguments that `split` takes, as a spec has them."""
    part = spec.data.split
    return {"train_ratio": part.train_ratio, "seed": part.seed, "where": spec.where("data", "split")}


def categorical_of(points: Points) -> list[int]:
    """The positions of the features that are categories."""
    return [position for position, name in enumerate(points.feature_names) if name in points.categories]


def _scaled_weight(
    weight: NDArray[Any], train: NDArray[np.integer], val: NDArray[np.integer] | None, where: str
) -> NDArray[np.float64]:
    """Scale weights (n,), float64, where they lie so that their mean over each part is 1."""
    for part in (train, val):
        if part is not None:
            weight[part] /= weight_mean(weight[part], where)
    return weight


def weight_mean(weight: NDArray[np.float64], where: str) -> float:
    """The mean of the weights of a part, by which they are divided."""
    mean = float(weight.mean())
    if not mean > 0:
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; give some of its points weight")
    return mean


@dataclass(frozen=True)
class Survey:
    """What a first pass over all points tells: the parts they are divided into, and their fingerprint."""

    mask: NDArray[np.bool_]
    fingerprint: str


def survey(points: Points, spec: ExperimentSpec) -> Survey:
    """Read all points once; of mapped ones it is known already."""
    if isinstance(points, MappedPoints):
        return Survey(split_mask(points.n_rows, **split_of(spec)), points.fingerprint)
    found = Fingerprint(points)
    for block in points.blocks():
        found.add(block)
    return Survey(split_mask(found.n_rows, **split_of(spec)), found.hexdigest())


def with_mask(points: Points, mask: NDArray[np.bool_]) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
    """Read all points again, each block with its part of the mask."""
    first = 0
    for block in points.blocks():
        yield block, mask[first : first + len(block.x)]
        first += len(block.x)


def chunks(rows: Any) -> Iterator[Any]:
    """Cut rows into blocks."""
    return (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))


def mask_of(indices: NDArray[Any], n_total: int) -> NDArray[np.bool_]:
    """Say of each row whether it is among the indices."""
    mask = np.zeros(n_total, dtype=bool)
    mask[indices] = True
    return mask


def ascending(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Give the rows of a mask, block by block, in the order in which they lie in memory: to fetch them in another takes
    several times as long."""
    for rows in chunks(range(len(mask))):
        here = np.flatnonzero(mask[rows.start : rows.stop])
        if len(here):
            yield here + rows.start


def _learnt_from(raw: "_Gathered", mask: NDArray[np.bool_], points: Points, *, ranges_only: bool) -> Statistics:
    """Learn from the rows of a mask."""
    statistics = Statistics(raw.x.shape[1], raw.y.shape[1], medians=points.missing == "median")

    def ranges(rows: NDArray[np.int64]) -> tuple[int, NDArray[Any], NDArray[Any]]:
        x = raw.x.take(rows, axis=0)
        return len(x), by_column(np.minimum, x), by_column(np.maximum, x)

    if ranges_only:
        for found in in_order(ranges, ascending(mask), torch.get_num_threads()):
            statistics.add_found_ranges(*found)
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
        found.add(block)
        starts.append(x.n_rows)
        places.append(block.where)
        parts = [("x", x, block.x), ("y", y, block.y)]
        if block.weight is not None:
            parts.append(("weight", weight, block.weight[:, None]))
        for name, rows, more in parts:
            first, here = rows.n_rows, rows.add(more)
            if name == "weight" or not gaps:
                refuse_unfit(name, here, more, where=where, first=first)

    def place(row: int) -> str:
        block = bisect_right(starts, row) - 1
        return places[block](row - starts[block])

    return _Gathered(x.whole(), y.whole(), weight.whole()[:, 0] if weight.n_rows else None, place, found.hexdigest())


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
