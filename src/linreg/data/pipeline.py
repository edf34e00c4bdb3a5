"""The stages of the data: rows -> parts -> statistics -> preprocessing -> dataset.

`prepare` runs all stages, for training. `solver: exact` and `evaluate` run the first ones, and end with a triangle or
with metrics.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.data.derived import ColumnInfo, Transforms, UnfitRowError
from linreg.data.preprocessing import (
    Feature,
    Preprocessing,
    Recipe,
    TargetTransform,
    columns_of,
    is_needed,
    learn,
    standardize,
    to_dict,
)
from linreg.data.rows import Rows, masked_blocks, select
from linreg.data.sources import Block
from linreg.data.split import Parts, subsets
from linreg.data.statistics import Statistics
from linreg.data.transform import Recode, Transform, WeightScale
from linreg.errors import DataError

INDICES_AT_ONCE = 2**13


@dataclass(frozen=True)
class Data:
    """The data of an experiment. dataset: its rows as inputs of the network; preprocessing: between the source and the
    network, or None; described: the features as plain values, for a checkpoint."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    is_weighted: bool
    dataset: Any
    train_data: Subset[Any]
    val_data: Subset[Any] | None
    parts: Parts
    features: list[Feature]
    columns: list[ColumnInfo]
    preprocessing: Preprocessing | None
    described: dict[str, Any]
    fingerprint: str

    @property
    def n_columns(self) -> int:
        """The number of inputs of the network."""
        return len(self.columns)


def prepare(rows: Rows, parts: Parts, recipe: Recipe, *, dtype: str, where: str) -> Data:
    """Learn the preprocessing from the training part of the rows, and make the dataset.

    dtype: that of the network. Raises SpecError, DataError.
    """
    needed = is_needed(rows, recipe)
    preprocessing = learn_from(rows, parts, recipe, where=where, ranges_in=None if needed else dtype)
    features = preprocessing.features
    described = to_dict(features, rows)
    weight, recode = rows.weight(), Recode(features, rows)
    scale = None if weight is None else WeightScale(weight, parts, where=where)
    transform = Transform(recode, features, preprocessing if needed else None, scale, dtype)
    dataset = rows.dataset(transform, parts, where)
    train_data, val_data = subsets(dataset, parts)
    return Data(
        feature_names=rows.feature_names,
        target_names=rows.target_names,
        is_weighted=rows.is_weighted,
        dataset=dataset,
        train_data=train_data,
        val_data=val_data,
        parts=parts,
        features=features,
        columns=preprocessing.columns,
        preprocessing=transform.preprocessing,
        described=described,
        fingerprint=rows.fingerprint,
    )


def learn_from(rows: Rows, parts: Parts, recipe: Recipe, *, where: str, ranges_in: str | None = None) -> Preprocessing:
    """Learn the preprocessing from the training part, in one pass; medians and some transforms need others.

    ranges_in: a dtype, for rows without preprocessing; then only the ranges are learnt, of values in that dtype.
    """
    statistics = Statistics(len(rows.feature_names), len(rows.target_names), rows.categorical_positions)
    for block, mask in masked_blocks(rows, parts.mask):
        if not mask.any():
            continue
        if ranges_in is None:
            statistics.add(block.x[mask], block.y[mask])
        else:
            with np.errstate(over="ignore"):  # the dataset refuses values that do not fit
                statistics.add_ranges(block.x[mask].astype(ranges_in, copy=False))
    statistics.finish()
    medians = partial(rows.medians, parts.mask)
    preprocessing = learn(statistics, rows, recipe, where=where, medians=medians)
    return _with_transforms(preprocessing, rows, parts, recipe) if recipe.derives else preprocessing


def _with_transforms(learnt: Preprocessing, rows: Rows, parts: Parts, recipe: Recipe) -> Preprocessing:
    """Learn the transforms, one after the other, then the means and scales of their columns."""
    recode, current = Recode(learnt.features, rows), Block(np.empty(0), np.empty(0))

    def training() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        nonlocal current
        for block, mask in masked_blocks(rows, parts.mask):
            if mask.any():
                current = select(block, mask)
                yield torch.from_numpy(recode(current)), torch.from_numpy(np.asarray(current.y, np.float64))

    transforms = Transforms(columns_of(learnt.features, rows.dates))
    try:
        for transform in recipe.transforms:
            transforms.add(transform, lambda: (learnt.filled(x) for x, _ in training()), {})
        target = None
        if recipe.target is not None:
            learn_target = recipe.target.learn
            values = learn_target(torch.cat([y for _, y in training()])) if learn_target else {}
            target = TargetTransform(recipe.target, values)
        made = Preprocessing(
            learnt.features, len(rows.target_names), fills=learnt.fills, transforms=transforms, target=target
        )
        if learnt.fills:
            made.fill.copy_(learnt.fill)
        if recipe.standardize:
            statistics = Statistics(len(made.columns), len(rows.target_names))
            for x, y in training():
                statistics.add(made.derived(x).numpy(), made.scaled(y).numpy())
            statistics.finish()
            standardize(made, statistics, recipe, range(len(made.columns)))
    except UnfitRowError as error:
        raise DataError(f"{current.where(error.row)}, {error}") from None
    return made


def in_blocks(indices: Any) -> Iterator[Any]:
    """Cut indices into blocks."""
    return (indices[first : first + INDICES_AT_ONCE] for first in range(0, len(indices), INDICES_AT_ONCE))


def ascending(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a mask in blocks, in the order of memory, which is several times as fast as any other."""
    for block in in_blocks(range(len(mask))):
        rows = np.flatnonzero(mask[block.start : block.stop])
        if len(rows):
            yield rows + block.start
