"""The data of a spec: read, divided, preprocessed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from linreg.datasets import DATASETS, Block, Points, Samples
from linreg.errors import DataError
from linreg.loaders import CustomDataset, Fingerprint, dataset_of, fingerprint, refuse_shapes, split, split_mask
from linreg.mapped import MappedDataset, MappedPoints, open_mapped
from linreg.preprocessing import Feature, Preprocessing, Statistics, is_needed, learn, make_recode_fn, to_dict
from linreg.spec import ExperimentSpec


@dataclass(frozen=True)
class Data:
    """The data of an experiment. samples: as the source has it, in memory with categories numbered as those of
    `features` are; dataset: as the network takes it; preprocessing: what stands between the two, or None; described:
    what a checkpoint keeps of it beside its numbers."""

    samples: Samples | MappedPoints
    dataset: CustomDataset | MappedDataset
    train_data: Dataset[Any]
    val_data: Dataset[Any] | None
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
        return self.samples.weighted if isinstance(self.samples, MappedPoints) else self.samples.weight is not None

    def table_rows(self, rows: NDArray[np.int64]) -> Block:
        """Give points (n,) as the table has them, with categories numbered as those of `features` are, and weights
        scaled to a mean of 1 in each part."""
        if isinstance(self.dataset, MappedDataset):
            return self.dataset.raw(rows)
        assert isinstance(self.samples, Samples)
        weight = self.samples.weight
        return Block(self.samples.x[rows], self.samples.y[rows], None if weight is None else weight[rows])


def prepare(spec: ExperimentSpec) -> Data:
    """Read the data of a spec into memory, divide it, and learn the preprocessing of its training part; with
    `data.memory: mapped` from its map. Raises SpecError, DataError."""
    where = spec.where("data", "source")
    points = open_points(spec)
    if isinstance(points, MappedPoints):
        from linreg.experiment.mapped import prepare_mapped  # built on what stands here

        return prepare_mapped(spec, points)
    samples = _gathered(points)
    refuse_shapes(samples, where=where)
    rows = range(len(samples.x))
    train_rows, val_rows = split(rows, **split_of(spec))  # type: ignore[arg-type]  # anything with a length
    train = np.asarray(train_rows.indices)
    parts = [part.indices for part in (train_rows, val_rows) if part is not None]

    needed, dtype = is_needed(samples, spec.data.standardize), getattr(torch, spec.dtype)
    if not needed:
        dataset = dataset_of(samples, dtype, where=where)
    statistics = Statistics(samples.x.shape[1], samples.y.shape[1], medians=samples.missing == "median")
    in_order = np.sort(train)  # as a pass over a table comes by them, for the same bits
    statistics.add(samples.x[in_order], samples.y[in_order], categorical_of(samples))
    preprocessing = learn(statistics, samples, standardize=spec.data.standardize, where=where)
    features = preprocessing.features
    recode = make_recode_fn(features, samples)
    identity = fingerprint(samples)
    samples = replace(
        samples,
        x=recode(next(samples.blocks())),
        categories={f.name: f.categories for f in features if f.categories is not None},
        weight=None if samples.weight is None else _scaled_weight(samples.weight, parts, where),
    )
    if needed:
        with torch.no_grad():
            x, y = torch.from_numpy(np.ascontiguousarray(samples.x)), torch.from_numpy(np.ascontiguousarray(samples.y))
            ready = Samples(
                preprocessing(x).numpy(),
                preprocessing.scaled(y).numpy(),
                preprocessing.column_names,
                samples.target_names,
                samples.weight,
            )
        dataset = dataset_of(ready, dtype, where=where)
    elif samples.weight is not None:
        dataset.weight = torch.from_numpy(samples.weight[:, None]).to(dtype)
    return Data(
        samples=samples,
        dataset=dataset,
        train_data=Subset(dataset, train_rows.indices),
        val_data=None if val_rows is None else Subset(dataset, val_rows.indices),
        features=features,
        preprocessing=preprocessing if needed else None,
        described=to_dict(features, points),
        fingerprint=identity,
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


def _scaled_weight(weight: NDArray[Any], parts: Sequence[Sequence[int]], where: str) -> NDArray[np.float64]:
    """Scale weights so that their mean over each part is 1."""
    scaled = np.array(weight, dtype=np.float64)
    for part in parts:
        scaled[part] /= weight_mean(scaled[part], where)
    return scaled


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


def _gathered(points: Points) -> Samples:
    """Bring all points into memory."""
    if isinstance(points, Samples):
        return points
    blocks = list(points.blocks())
    starts = np.cumsum([0, *(len(block.x) for block in blocks)])

    def where(row: int) -> str:
        position = int(np.searchsorted(starts, row, side="right")) - 1
        return blocks_where[position](row - int(starts[position]))

    blocks_where = [block.where for block in blocks]
    weights = [block.weight for block in blocks if block.weight is not None]
    return Samples(
        np.concatenate([block.x for block in blocks]),
        np.concatenate([block.y for block in blocks]),
        points.feature_names,
        points.target_names,
        np.concatenate(weights) if weights else None,
        dict(points.categories),
        points.missing,
        points.unseen,
        where,
    )
