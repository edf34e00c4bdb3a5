"""Learns the preprocessing from the training part, in passes over its rows. `pipeline` and `solver: exact` use it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.components.transforms import OfTarget
from linreg.data.derived import Transforms, TransformSpec, UnfitRowError
from linreg.data.fingerprint import shared_categories
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
    gathered = Gathered(rows, len(rows.feature_names), rows.categorical_positions)
    for first, block, mask in _training_blocks(rows, parts):
        for shard, chosen in gathered.masks(first, mask):
            if needs_statistics(rows, recipe):
                gathered.of(shard).add(block.x[chosen], block.y[chosen])
            elif chosen.any():
                with np.errstate(over="ignore"):  # the dataset refuses values that do not fit
                    gathered.of(shard).add_ranges(block.x[chosen].astype(ranges_in, copy=False))
    statistics, categories = gathered.merged()

    def medians(positions: Sequence[int]) -> NDArray[np.float64]:
        columns = rows.columns_of(parts.mask, positions)
        return np.array([np.nanmedian(np.concatenate(_shared(rows, [column]))) for column in columns])

    preprocessing = learn(statistics, rows, recipe, where=where, medians=medians, categories=categories)
    return _with_transforms(preprocessing, rows, parts, recipe, where) if recipe.derives else preprocessing


class Gathered:
    """The statistics of rows, by shard if they are cut into shards, and merged in the order of the shards."""

    def __init__(self, rows: Rows, n_features: int, categorical: Sequence[int] = ()) -> None:
        self.rows, self.n_features, self.categorical = rows, n_features, categorical
        self.by_shard = {shard: self._new() for shard in ([0] if rows.cut is None else rows.cut.shards.own)}
        self._last = 0

    def _new(self) -> Statistics:
        return Statistics(self.n_features, len(self.rows.target_names), self.categorical)

    def masks(self, first: int, mask: NDArray[np.bool_]) -> Iterable[tuple[int, NDArray[np.bool_]]]:
        """Return the shards of some rows, each with its mask (n,)."""
        return [(0, mask)] if self.rows.cut is None else self.rows.cut.masks(first, mask)

    def of(self, shard: int) -> Statistics:
        """Return the statistics of a shard. Those before it have all their rows."""
        if shard != self._last and self._last in self.by_shard:
            self.by_shard[self._last].finish()
        self._last = shard
        return self.by_shard[shard]

    def merged(self) -> tuple[Statistics, Mapping[str, Sequence[str]]]:
        """Return the statistics of all rows, also of other processes, and the categories that its codes are of."""
        for statistics in self.by_shard.values():
            statistics.finish()
        if self.rows.cut is None:
            return self.by_shard[0], self.rows.categories
        shards = self.rows.cut.shards
        categories, whole = shared_categories(self.rows, shards), self._new()
        for part, known in shards.share((list(self.by_shard.values()), dict(self.rows.categories))):
            for statistics in part:
                whole.merge(statistics)
                for position in self.categorical:
                    name = self.rows.feature_names[position]
                    often, codes = whole.often[position], {value: code for code, value in enumerate(categories[name])}
                    for code, number in statistics.often[position].items():
                        own = codes[known[name][code]]
                        often[own] = often.get(own, 0) + number
        return whole, categories


def _training_blocks(rows: Rows, parts: Parts) -> Iterator[tuple[int, Block, NDArray[np.bool_]]]:
    """Read the blocks with rows of the training part, after the number of the first row, with the mask of the part."""
    first = 0
    for block, mask in masked_blocks(rows, parts.mask):
        if mask.any():
            yield first, block, mask
        first += len(mask)


def _shared(rows: Rows, values: Sequence[Any]) -> list[Any]:
    """Return values of all processes, in the order of their shards."""
    return list(values) if rows.cut is None else rows.cut.shards.share_lists(values)


def learn(
    statistics: Statistics,
    points: Points,
    recipe: Recipe,
    *,
    where: str,
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None = None,
    categories: Mapping[str, Sequence[str]] | None = None,
) -> Preprocessing:
    """Make the preprocessing from the statistics of the training part, except the transforms.

    Scales are standard deviations over n, as in scikit-learn's StandardScaler. Without centring a constant column keeps
    its scale. medians: returns the medians of the features at some positions, for `missing: median`; categories:
    those of the codes, by default those of the points. Raises DataError for a column without values, or with values too
    large for their mean.
    """
    categories = points.categories if categories is None else categories
    if recipe.standardize or points.missing == "mean":
        refuse_large([*points.feature_names, *points.target_names], statistics, where=where)
    for name, count in zip(points.feature_names, statistics.count, strict=False):
        if not count:
            raise DataError(f"{where}: column {name!r} has only gaps in the training part; put it in exclude")
    features = [
        _feature(statistics, points.feature_names[position], position, categories)
        for position in range(statistics.n_features)
    ]
    preprocessing = Preprocessing(features, statistics.n_targets, fills=points.missing in FILLING)
    fills = None
    if preprocessing.fills:
        fills = _fills(statistics, points, features, medians, categories)
        preprocessing.fill.copy_(torch.from_numpy(fills))
    if not recipe.derives:
        standardize(preprocessing, statistics, recipe, positions_of(features), fills)
    return preprocessing


def _feature(statistics: Statistics, name: str, position: int, categories: Mapping[str, Sequence[str]]) -> Feature:
    if name in categories:
        known = categories[name]
        return Feature(name, categories=sorted_categories([known[code] for code in statistics.often[position]]))
    return Feature(name, float(statistics.minimum[position]), float(statistics.maximum[position]))


def _fills(
    statistics: Statistics,
    points: Points,
    features: Sequence[Feature],
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None,
    categories: Mapping[str, Sequence[str]],
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
            known, often = list(categories[feature.name]), statistics.often[position]
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
        for _, block, mask in _training_blocks(rows, parts):
            current = select(block, mask)
            yield torch.from_numpy(recode(current)), torch.from_numpy(np.asarray(current.y, np.float64))

    def share(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.cat(_shared(rows, list(blocks)))

    transforms = Transforms(columns_of(learnt.features, rows.dates))
    try:
        for transform in recipe.transforms:
            if targets := [name for name in transform.columns if name in rows.target_names]:
                raise SpecError([f"{transform.where}: {targets[0]!r} is a target; set data.target_transform"])
            transforms.add(transform, lambda: (learnt.filled(x) for x, _ in training()), {}, share)
        target = None
        if recipe.target is not None:
            learn_target = recipe.target.learn
            values = learn_target(share(y for _, y in training())) if learn_target else {}
            target = TargetTransform(recipe.target, values, rows.target_names)
        made = Preprocessing(
            learnt.features, len(rows.target_names), fills=learnt.fills, transforms=transforms, target=target
        )
        if learnt.fills:
            made.fill.copy_(learnt.fill)
        if recipe.standardize:
            gathered = Gathered(rows, len(made.columns))
            for first, block, mask in _training_blocks(rows, parts):
                for shard, chosen in gathered.masks(first, mask):
                    current = select(block, chosen)
                    x, y = torch.from_numpy(recode(current)), torch.from_numpy(np.asarray(current.y, np.float64))
                    gathered.of(shard).add(made.derived(x).numpy(), made.scaled(y).numpy())
            statistics, _ = gathered.merged()
            refuse_large([*made.column_names, *rows.target_names], statistics, where=where)
            standardize(made, statistics, recipe, range(len(made.columns)))
    except UnfitRowError as error:
        raise DataError(f"{current.where(error.row)}, {error}") from None
    return made
