"""Preprocessing between a table and the network: fills gaps, makes categories one-hot, standardizes columns.

It is learnt from the training part alone. It is a part of the model, and is saved and applied with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.sources import Points
from linreg.data.statistics import Statistics
from linreg.errors import DataError

FILLING = ("mean", "median")  # values of `missing` that fill gaps

Standardize = bool | Literal["features", "target"]


@dataclass(frozen=True)
class Feature:
    """A column of the inputs. minimum, maximum: the range in the training part; categories: those of the training part,
    sorted, or None."""

    name: str
    minimum: float | None = None
    maximum: float | None = None
    categories: list[str] | None = None

    @property
    def columns(self) -> list[str]:
        """The names of its columns in the inputs of the network."""
        return [self.name] if self.categories is None else [f"{self.name}={category}" for category in self.categories]


class Preprocessing(nn.Module):
    """Maps the inputs of a table (N, n_features), float64, to inputs of the network (N, n_columns), and its outputs
    (N, n_targets) to the targets' units. In x a gap is NaN, and a category is its position in the list of its feature,
    -1 for an unseen one. A column with scale 0, constant in the training part, becomes 0 whatever its value.

    Its buffers are float64, whatever the dtype of the network: a year standardized in float32 would lose its days.
    """

    fill: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    y_mean: torch.Tensor
    y_scale: torch.Tensor

    def __init__(self, features: Sequence[Feature], n_targets: int, *, fills: bool) -> None:
        """fills: whether gaps are filled."""
        super().__init__()
        self.features = list(features)
        width = sum(len(feature.columns) for feature in features)
        self.fills = fills
        if fills:
            self.register_buffer("fill", torch.zeros(len(features), dtype=torch.float64))
        for name, length, value in (
            ("mean", width, 0.0),
            ("scale", width, 1.0),
            ("y_mean", n_targets, 0.0),
            ("y_scale", n_targets, 1.0),
        ):
            self.register_buffer(name, torch.full((length,), value, dtype=torch.float64))

    @property
    def column_names(self) -> list[str]:
        """The names of the inputs of the network."""
        return [column for feature in self.features for column in feature.columns]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the network (N, n_columns) for inputs of the table (N, n_features)."""
        x = torch.where(torch.isnan(x), self.fill, x.double()) if self.fills else x.double()
        if any(feature.categories is not None for feature in self.features):
            x = torch.cat([self._columns_of(position, x) for position in range(len(self.features))], dim=1)
        scaled, constant = (x - self.mean) / self.scale, self.scale == 0
        return scaled.masked_fill(constant, 0.0) if constant.any() else scaled

    def _columns_of(self, position: int, x: torch.Tensor) -> torch.Tensor:
        column, categories = x[:, position : position + 1], self.features[position].categories
        if categories is None:
            return column
        return (column == torch.arange(len(categories), dtype=torch.float64)).double()

    def scaled(self, y: torch.Tensor) -> torch.Tensor:
        """Return targets (N, n_targets) on the scale of the network."""
        return (y.double() - self.y_mean) / self.y_scale

    def restored(self, y: torch.Tensor) -> torch.Tensor:
        """Return outputs of the network (N, n_targets) in the targets' units."""
        return y.double() * self.y_scale + self.y_mean


class Preprocessed(nn.Module):
    """A network with its preprocessing: maps the inputs of a table to predictions in the targets' units."""

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict for inputs (N, n_features), float64; (N, n_targets) in float64, as a mean may need more digits than
        the network's precision has."""
        return self.preprocessing.restored(self._outputs(x))

    def errors(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return y - yhat (N, n_targets), without the rounding of yhat to the digits that its mean leaves."""
        y_mean, y_scale = self.preprocessing.y_mean, self.preprocessing.y_scale
        return (y.double() - y_mean) - self._outputs(x).double() * y_scale

    def _outputs(self, x: torch.Tensor) -> torch.Tensor:
        like = next(self.network.parameters())
        outputs: torch.Tensor = self.network(self.preprocessing(x.cpu()).to(like))
        return outputs.cpu()


def learn(
    statistics: Statistics,
    points: Points,
    *,
    standardize: Standardize,
    center: bool = True,
    where: str,
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None = None,
) -> Preprocessing:
    """Make the preprocessing from the statistics of the training part.

    Scales are standard deviations over n, as in scikit-learn's StandardScaler. center: whether `standardize` subtracts
    means; without it a constant column keeps its scale. medians: returns the medians of the features at some positions,
    for `missing: median`. Raises DataError for a column without values, or with values too large for their mean.
    """
    if standardize or points.missing == "mean":
        names = [*points.feature_names, *points.target_names]
        for name, mean, squares in zip(names, statistics.mean, statistics.squares, strict=True):
            if not np.isfinite([mean, squares]).all():
                raise DataError(f"{where}: column {name!r} has values too large for their mean; give it another unit")
    for name, count in zip(points.feature_names, statistics.count, strict=False):
        if not count:
            raise DataError(f"{where}: column {name!r} has only gaps in the training part; put it in exclude")
    features = [_feature(statistics, points, position) for position in range(statistics.n_features)]
    preprocessing = Preprocessing(features, statistics.n_targets, fills=points.missing in FILLING)
    fills = None
    if preprocessing.fills:
        fills = _fills(statistics, points, features, medians)
        preprocessing.fill.copy_(torch.from_numpy(fills))
    if standardize in (True, "features"):
        _standardize_features(preprocessing, statistics, fills, center)
    if standardize in (True, "target"):
        for target in range(statistics.n_targets):
            mean, scale = statistics.mean_and_scale(statistics.n_features + target)
            preprocessing.y_mean[target] = mean if center else 0.0
            preprocessing.y_scale[target] = scale or 1.0
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


def _standardize_features(
    preprocessing: Preprocessing, statistics: Statistics, fills: NDArray[np.float64] | None, center: bool
) -> None:
    """Set mean and scale of the numeric columns. A filled gap counts as a value."""
    column = 0
    for position, feature in enumerate(preprocessing.features):
        if feature.categories is None:
            mean, scale = statistics.mean_and_scale(position, fill=None if fills is None else float(fills[position]))
            preprocessing.mean[column] = mean if center else 0.0
            preprocessing.scale[column] = scale if center else scale or 1.0
        column += len(feature.columns)


def is_needed(points: Points, standardize: Standardize) -> bool:
    """Return whether the table needs any preprocessing."""
    return bool(standardize) or points.missing in FILLING or bool(points.categories)


def sorted_categories(categories: Sequence[str]) -> list[str]:
    """Sort categories: numbers by value, text alphabetically."""
    try:
        return sorted(categories, key=float)
    except ValueError:
        return sorted(categories)


def to_dict(features: Sequence[Feature], points: Points) -> dict[str, Any]:
    """Return the features as plain values, for a checkpoint."""
    return {
        "features": [
            {"name": f.name, "minimum": f.minimum, "maximum": f.maximum, "categories": f.categories} for f in features
        ],
        "missing": points.missing,
        "unseen": points.unseen,
    }


def features_of(saved: Mapping[str, Any]) -> list[Feature]:
    """Return the features of a checkpoint, from the values of `to_dict`."""
    return [Feature(**feature) for feature in saved["features"]]
