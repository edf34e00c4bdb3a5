"""The data of a spec, and passes over it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.datasets import DATASETS, Block, Points
from linreg.errors import DataError
from linreg.loaders import CustomDataset, Fingerprint, split_rows
from linreg.mapped import MappedDataset, MappedPoints, open_mapped
from linreg.preprocessing import Feature, Preprocessing
from linreg.spec import ExperimentSpec

BLOCK_ROWS = 2**13  # gathered, learnt from and preprocessed at once


@dataclass(frozen=True)
class Data:
    """The data of an experiment. dataset: its rows as the network takes them; preprocessing: what stands between the
    source and those, or None; described: what a checkpoint keeps of it beside its numbers."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    is_weighted: bool
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


def open_points(spec: ExperimentSpec) -> Points:
    """Open the source of a spec; with `data.memory: mapped`, the map of what was converted from it."""
    where = spec.where("data", "source")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by row and column
        points: Points = DATASETS.build(spec.data.source, where=where)
    if spec.data.memory == "resident":
        return points
    return open_mapped(
        points, source=spec.data.source.to_dict(), memory_limit=spec.data.memory_limit * 2**20, where=where
    )


def split_of(spec: ExperimentSpec) -> dict[str, Any]:
    """Give the arguments that `split` takes, as a spec has them."""
    part = spec.data.split
    return {"train_ratio": part.train_ratio, "seed": part.seed, "where": spec.where("data", "split")}


def weight_mean(weight: NDArray[np.float64], where: str) -> float:
    """Find the mean of the weights of a part, by which they are divided. Raises DataError where all are 0."""
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
        n_rows, fingerprint = points.n_rows, points.fingerprint
    else:
        found = Fingerprint(points)
        for block in points.blocks():
            found.add(block)
        n_rows, fingerprint = found.n_rows, found.text()
    train, _ = split_rows(n_rows, **split_of(spec))
    return Survey(mask_of(train, n_rows), fingerprint)


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
