"""Learns the preprocessing from the training part, in passes over its rows. `pipeline` and `solver: exact` use it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.components.transforms import OfTarget
from linreg.data.derived import Transforms, TransformSpec, UnfitRowError
from linreg.data.preprocessing import (
    FILLING,
    Feature,
    Preprocessing,
    TargetTransform,
    columns_of,
    positions_of,
    sorted_categories,
)
from linreg.data.rows import Rows, masked_blocks, select
from linreg.data.sources import Block, Points
from linreg.data.split import Parts
from linreg.data.statistics import Statistics
from linreg.data.transform import Recode
from linreg.errors import DataError, SpecError

Standardize = bool | Literal["features", "target"]


@dataclass(frozen=True)
class Recipe:
    """The preprocessing that a spec asks for. center: whether `standardize` subtracts means."""

    standardize: Standardize = False
    center: bool = True
    transforms: Sequence[TransformSpec] = ()
    target: OfTarget | None = None

    @property
    def derives(self) -> bool:
        """Whether there is a transform, of features or of the target."""
        return bool(self.transforms) or self.target is not None


def is_needed(points: Points, recipe: Recipe) -> bool:
    """Return whether the table needs any preprocessing."""
    return recipe.derives or needs_statistics(points, recipe)


def needs_statistics(points: Points, recipe: Recipe) -> bool:
    """Return whether the preprocessing depends on more than the ranges of the features."""
    standardizes_features = bool(recipe.standardize) and not recipe.derives
    return standardizes_features or points.missing in FILLING or bool(points.categories)


def learn_from(rows: Rows, parts: Parts, recipe: Recipe, *, where: str, ranges_in: str = "float64") -> Preprocessing:
    """Learn the preprocessing from the training part, in one pass; medians and some transforms need others.

    ranges_in: the dtype of the values whose ranges are learnt, if rows need no other statistics.
    """
    statistics = Statistics(len(rows.feature_names), len(rows.target_names), rows.categorical_positions)
    for block, mask in masked_blocks(rows, parts.mask):
        if not mask.any():
            continue
        if needs_statistics(rows, recipe):
            statistics.add(block.x[mask], block.y[mask])
        else:
            with np.errstate(over="ignore"):  # the dataset refuses values that do not fit
                statistics.add_ranges(block.x[mask].astype(ranges_in, copy=False))
    statistics.finish()
    medians = partial(rows.medians, parts.mask)
    preprocessing = learn(statistics, rows, recipe, where=where, medians=medians)
    return _with_transforms(preprocessing, rows, parts, recipe, where) if recipe.derives else preprocessing


def learn(
    statistics: Statistics,
    points: Points,
    recipe: Recipe,
    *,
    where: str,
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None = None,
) -> Preprocessing:
    """Make the preprocessing from the statistics of the training part, except the transforms.

    Scales are standard deviations over n, as in scikit-learn's StandardScaler. Without centring a constant column keeps
    its scale. medians: returns the medians of the features at some positions, for `missing: median`. Raises DataError
    for a column without values, or with values too large for their mean.
    """
    if recipe.standardize or points.missing == "mean":
        refuse_large([*points.feature_names, *points.target_names], statistics, where=where)
    for name, count in zip(points.feature_names, statistics.count, strict=False):
        if not count:
            raise DataError(f"{where}: column {name!r} has only gaps in the training part; put it in exclude")
    features = [_feature(statistics, points, position) for position in range(statistics.n_features)]
    preprocessing = Preprocessing(features, statistics.n_targets, fills=points.missing in FILLING)
    fills = None
    if preprocessing.fills:
        fills = _fills(statistics, points, features, medians)
        preprocessing.fill.copy_(torch.from_numpy(fills))
    if not recipe.derives:
        standardize(preprocessing, statistics, recipe, positions_of(features), fills)
    return preprocessing


def _feature(statistics: Statistics, points: Points, position: int) -> Feature:
    name = points.feature_names[position]
    if name in points.categories:
        known = points.categories[name]
        return Feature(name, categories=sorted_categories([known[code] for code in statistics.often[position]]))
    return Feature(name, float(statistics.minimum[position]), float(statistics.maximum[position]))


def _fills(
    statistics: Statistics,
    points: Points,
    features: Sequence[Feature],
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None,
) -> NDArray[np.float64]:
    """Return the value that fills the gaps of each feature (n_features,): the most frequent category, the first of
    several."""
    fills = statistics.mean[: len(features)].copy()
    numeric = [position for position, feature in enumerate(features) if feature.categories is None]
    if points.missing == "median":
        assert medians is not None
        fills[numeric] = medians(numeric)
    for position, feature in enumerate(features):
        if feature.categories is not None:
            known, often = list(points.categories[feature.name]), statistics.often[position]
            most = max(often.values())
            fills[position] = next(i for i, c in enumerate(feature.categories) if often[known.index(c)] == most)
    return fills


def standardize(
    preprocessing: Preprocessing,
    statistics: Statistics,
    recipe: Recipe,
    positions: Sequence[int],
    fills: NDArray[np.float64] | None = None,
) -> None:
    """Set the means and scales from statistics. positions: of each column in the statistics; fills: the values that
    count as those of gaps."""
    if recipe.standardize in (True, "features"):
        for column, (info, position) in enumerate(zip(preprocessing.columns, positions, strict=True)):
            if info.kind != "indicator":
                fill = None if fills is None else float(fills[position])
                mean, scale = statistics.mean_and_scale(position, fill=fill)
                preprocessing.mean[column] = mean if recipe.center else 0.0
                preprocessing.scale[column] = scale if recipe.center else scale or 1.0
    if recipe.standardize in (True, "target"):
        for target in range(statistics.n_targets):
            mean, scale = statistics.mean_and_scale(statistics.n_features + target)
            preprocessing.y_mean[target] = mean if recipe.center else 0.0
            preprocessing.y_scale[target] = scale or 1.0


def refuse_large(names: Sequence[str], statistics: Statistics, *, where: str) -> None:
    """Raise a DataError for a column whose mean or variance is not finite."""
    for name, mean, squares in zip(names, statistics.mean, statistics.squares, strict=True):
        if not np.isfinite([mean, squares]).all():
            raise DataError(f"{where}: column {name!r} has values too large for their mean; give it another unit")


def _with_transforms(learnt: Preprocessing, rows: Rows, parts: Parts, recipe: Recipe, where: str) -> Preprocessing:
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
            if targets := [name for name in transform.columns if name in rows.target_names]:
                raise SpecError([f"{transform.where}: {targets[0]!r} is a target; set data.target_transform"])
            transforms.add(transform, lambda: (learnt.filled(x) for x, _ in training()), {})
        target = None
        if recipe.target is not None:
            learn_target = recipe.target.learn
            values = learn_target(torch.cat([y for _, y in training()])) if learn_target else {}
            target = TargetTransform(recipe.target, values, rows.target_names)
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
            refuse_large([*made.column_names, *rows.target_names], statistics, where=where)
            standardize(made, statistics, recipe, range(len(made.columns)))
    except UnfitRowError as error:
        raise DataError(f"{current.where(error.row)}, {error}") from None
    return made
