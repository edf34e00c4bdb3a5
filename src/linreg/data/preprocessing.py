"""What stands between a table and the network: gaps filled, categories one-hot, columns on one scale.

Everything is learnt from the training part alone and is a part of the model: it is saved with it and applied
whenever the model is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.sources import Block, Points
from linreg.errors import DataError

FILLING = ("mean", "median")  # what `missing` may be for gaps to be filled in
VALUES_AT_ONCE = 2**20  # merged into the statistics

Standardize = bool | Literal["features", "target"]
RecodeFn = Callable[[Block], NDArray[np.floating]]


@dataclass(frozen=True)
class Feature:
    """A column of the inputs. minimum, maximum: the range seen in training; categories: those seen in training, in
    order, if it has such."""

    name: str
    minimum: float | None = None
    maximum: float | None = None
    categories: list[str] | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns that the network sees of it."""
        return [self.name] if self.categories is None else [f"{self.name}={category}" for category in self.categories]


class Preprocessing(nn.Module):
    """Maps the inputs of a table (N, n_features), float64, to what the network takes (N, n_columns), and what it gives
    (N, n_targets) back to the targets' units. In x a gap is NaN, and a category its position among those of its
    feature, -1 for any other.

    Its numbers are kept in float64, whatever the network has: a year standardised in float32 would lose its days.
    """

    fill: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    y_mean: torch.Tensor
    y_scale: torch.Tensor

    def __init__(self, features: Sequence[Feature], n_targets: int, *, fills: bool) -> None:
        """fills: whether gaps are filled in; else they stay gaps."""
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
        """The names of the columns that the network sees."""
        return [column for feature in self.features for column in feature.columns]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn inputs (N, n_features) into what the network takes (N, n_columns)."""
        x = torch.where(torch.isnan(x), self.fill, x.double()) if self.fills else x.double()
        if any(feature.categories is not None for feature in self.features):
            x = torch.cat([self._columns_of(position, x) for position in range(len(self.features))], dim=1)
        return (x - self.mean) / self.scale

    def _columns_of(self, position: int, x: torch.Tensor) -> torch.Tensor:
        column, categories = x[:, position : position + 1], self.features[position].categories
        if categories is None:
            return column
        return (column == torch.arange(len(categories), dtype=torch.float64)).double()

    def scaled(self, y: torch.Tensor) -> torch.Tensor:
        """Turn targets (N, n_targets) into those that the network is trained on."""
        return (y.double() - self.y_mean) / self.y_scale

    def restored(self, y: torch.Tensor) -> torch.Tensor:
        """Turn what the network gives (N, n_targets) into the targets' own units."""
        return y.double() * self.y_scale + self.y_mean


class Preprocessed(nn.Module):
    """A network with its preprocessing: maps the inputs of a table to predictions in the targets' own units."""

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict for inputs (N, n_features), float64; (N, n_targets) in the network's precision."""
        like = next(self.network.parameters())
        yhat: torch.Tensor = self.network(self.preprocessing(x.cpu()).to(like))
        return self.preprocessing.restored(yhat.cpu()).to(yhat.dtype)


@dataclass
class Statistics:
    """What is learnt of the training part, block by block: the count, mean and sum of squared deviations of every
    column without its gaps, its range, and how often each category comes.

    Rows are merged so many at a time, however they were cut into blocks: the same rows in the same order give the same
    bits, whether they come from memory, from a file, or from a map of one.
    """

    n_features: int
    n_targets: int
    medians: bool = False
    n_rows: int = 0
    count: NDArray[np.float64] = field(init=False)
    mean: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    minimum: NDArray[np.float64] = field(init=False)
    maximum: NDArray[np.float64] = field(init=False)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    often: list[dict[int, int]] = field(init=False)
    waiting: NDArray[np.float64] = field(init=False)
    n_waiting: int = 0

    def __post_init__(self) -> None:
        width = self.n_features + self.n_targets
        self.count, self.mean, self.squares = (np.zeros(width) for _ in range(3))
        self.minimum, self.maximum = np.full(width, np.inf), np.full(width, -np.inf)
        self.often = [{} for _ in range(self.n_features)]
        self.waiting = np.empty((max(VALUES_AT_ONCE // width, 1), width))

    def add(self, x: NDArray[np.floating], y: NDArray[np.floating], categorical: Sequence[int]) -> None:
        """Add rows."""
        first = 0
        while first < len(x):
            n = min(len(x) - first, len(self.waiting) - self.n_waiting)
            rows = self.waiting[self.n_waiting : self.n_waiting + n]
            rows[:, : self.n_features] = x[first : first + n]
            rows[:, self.n_features :] = y[first : first + n]
            first += n
            self.n_waiting += n
            if self.n_waiting == len(self.waiting):
                self.merge(categorical)
        if self.medians:
            self.values.append(np.array(x, dtype=np.float64))

    def merge(self, categorical: Sequence[int]) -> None:
        """Take in the rows that wait for more. Two parts are merged as T. F. Chan, G. H. Golub and R. J. LeVeque,
        Updating formulae and a pairwise algorithm for computing sample variances (1979), eq. 2.1, have it."""
        if self.n_waiting:
            with np.errstate(over="ignore", invalid="ignore"):  # `learn` refuses what comes of it
                self._merge(self.waiting[: self.n_waiting], categorical)
        self.n_waiting = 0

    def add_ranges(self, n_rows: int, low: NDArray[np.floating], high: NDArray[np.floating]) -> None:
        """Add rows without gaps of which only what `ranges_of` gives is known, and to be learnt."""
        self.n_rows += n_rows
        self.count += n_rows
        here = slice(self.n_features)
        self.minimum[here] = np.minimum(self.minimum[here], _as_decimals(low))
        self.maximum[here] = np.maximum(self.maximum[here], _as_decimals(high))

    def _merge(self, values: NDArray[np.float64], categorical: Sequence[int]) -> None:
        self.n_rows += len(values)
        gaps = np.isnan(values)
        has_gaps = bool(gaps.any())

        def without_gaps(array: NDArray[np.float64], instead: float) -> NDArray[np.float64]:
            return np.where(gaps, instead, array) if has_gaps else array

        count = len(values) - (gaps.sum(axis=0) if has_gaps else np.zeros(values.shape[1]))
        mean = without_gaps(values, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = (without_gaps(values - mean, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.count + count, 1)
        gap = mean - self.mean
        self.squares += squares + gap**2 * self.count * count / total
        self.mean += gap * count / total
        self.count += count
        self.minimum = np.minimum(self.minimum, without_gaps(values, np.inf).min(axis=0))
        self.maximum = np.maximum(self.maximum, without_gaps(values, -np.inf).max(axis=0))
        for position in categorical:
            column = values[:, position]
            codes, counts = np.unique(column[~np.isnan(column)].astype(np.int64), return_counts=True)
            often = self.often[position]
            for code, number in zip(codes.tolist(), counts.tolist(), strict=True):
                often[code] = often.get(code, 0) + number

    def median(self, positions: Sequence[int]) -> NDArray[np.float64]:
        """The medians of some features without their gaps."""
        x = np.concatenate(self.values)
        return np.array([np.nanmedian(x[:, position]) for position in positions])


def categorical_of(points: Points) -> list[int]:
    """Give the positions of the features that are categories."""
    return [position for position, name in enumerate(points.feature_names) if name in points.categories]


def learn(
    statistics: Statistics,
    points: Points,
    *,
    standardize: Standardize,
    where: str,
    medians: Callable[[Sequence[int]], NDArray[np.float64]] | None = None,
) -> Preprocessing:
    """Make the preprocessing from the statistics of the training part. Raises DataError for a column of gaps alone.

    Scales are standard deviations over n, as scikit-learn's StandardScaler has them; a constant column keeps its scale.
    medians: gives those of the features at some positions, where `missing` asks for them and the statistics did not
    keep every value.
    """
    statistics.merge(categorical_of(points))
    n_features = statistics.n_features
    if standardize or points.missing == "mean":
        names = [*points.feature_names, *points.target_names]
        for name, mean, squares in zip(names, statistics.mean, statistics.squares, strict=True):
            if not np.isfinite([mean, squares]).all():
                raise DataError(f"{where}: column {name!r} has values too large for their mean; give it another unit")
    features, fills = [], np.full(n_features, np.nan)
    for position, name in enumerate(points.feature_names):
        if not statistics.count[position]:
            raise DataError(f"{where}: column {name!r} has nothing but gaps in the training part; put it in exclude")
        if name in points.categories:
            met, often = points.categories[name], statistics.often[position]
            categories = sorted_categories([met[code] for code in often])
            features.append(Feature(name, categories=categories))
            if points.missing in FILLING:
                most = max(often.values())
                fills[position] = next(i for i, value in enumerate(categories) if often[list(met).index(value)] == most)
        else:
            features.append(Feature(name, float(statistics.minimum[position]), float(statistics.maximum[position])))
            if points.missing == "mean":
                fills[position] = statistics.mean[position]
    if points.missing == "median":
        numeric = [position for position, feature in enumerate(features) if feature.categories is None]
        fills[numeric] = statistics.median(numeric) if medians is None else medians(numeric)

    made = Preprocessing(features, statistics.n_targets, fills=points.missing in FILLING)
    if made.fills:
        made.fill.copy_(torch.from_numpy(fills))
    column = 0
    for position, feature in enumerate(features):
        if feature.categories is None and standardize in (True, "features"):
            count, mean, squares = (float(a[position]) for a in (statistics.count, statistics.mean, statistics.squares))
            gaps = statistics.n_rows - count
            if gaps:  # their fill counts as a value
                fill = fills[position]
                overall = mean + (fill - mean) * gaps / statistics.n_rows
                squares += count * (mean - overall) ** 2 + gaps * (fill - overall) ** 2
                mean = overall
            made.mean[column] = mean
            made.scale[column] = _scale(squares / statistics.n_rows, mean)
        column += len(feature.columns)
    if standardize in (True, "target"):
        made.y_mean.copy_(torch.from_numpy(statistics.mean[n_features:]))
        variances = statistics.squares[n_features:] / statistics.n_rows
        scales = [_scale(*pair) for pair in zip(variances, statistics.mean[n_features:], strict=True)]
        made.y_scale.copy_(torch.tensor(scales, dtype=torch.float64))
    return made


def is_needed(points: Points, standardize: Standardize) -> bool:
    """Say whether anything has to stand between the table and the network."""
    return bool(standardize) or points.missing in FILLING or bool(points.categories)


def make_recode_fn(features: Sequence[Feature], points: Points) -> RecodeFn:
    """Make the function that turns the x of a block, with categories as `points` numbers them, into one with those of
    the features: -1 for one that is not among them, where `points.unseen` allows it, else a DataError."""
    categorical = [i for i, feature in enumerate(features) if feature.categories is not None]
    places = {i: {category: j for j, category in enumerate(features[i].categories or ())} for i in categorical}

    def recode(block: Block) -> NDArray[np.floating]:
        if not categorical:
            return block.x
        x = np.array(block.x, dtype=np.float64)
        for i in categorical:
            met = points.categories[features[i].name]
            table = np.array([places[i].get(category, -1) for category in met], dtype=np.float64)
            there = ~np.isnan(x[:, i])
            codes = x[there, i].astype(np.int64)
            x[there, i] = table[codes]
            unseen = np.nonzero(x[:, i] < 0)[0]
            if len(unseen) and points.unseen == "error":
                row = int(unseen[0])
                value = met[int(block.x[row, i])]
                raise DataError(
                    f"{block.where(row)}, column {features[i].name!r}: {value!r} is not among the categories of the "
                    f"training part ({', '.join((features[i].categories or [])[:10])}); mend it, or train with "
                    "unseen: zeros"
                )
        return x

    return recode


def refuse_infinite(block: Block, points: Points, where: str) -> None:
    """Refuse the rows of a block where a value is not finite, other than a gap that is going to be filled in."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.x.sum() + block.y.sum()):  # nearly always, and found in a fraction of the time
            return
    wrong_x = np.isinf(block.x) if points.missing in FILLING else ~np.isfinite(block.x)
    for names, wrong, values in (
        (points.feature_names, wrong_x, block.x),
        (points.target_names, ~np.isfinite(block.y), block.y),
    ):
        for row, column in zip(*np.nonzero(wrong), strict=True):
            met = values[row, column]
            raise DataError(f"{where}: {block.where(int(row))}, column {names[column]!r}: {met} is not finite; mend it")


def sorted_categories(categories: Sequence[str]) -> list[str]:
    """Put categories in order: numbers by value, others by letter."""
    try:
        return sorted(categories, key=float)
    except ValueError:
        return sorted(categories)


def _scale(variance: float, mean: float) -> float:
    """The standard deviation; 1 for a column that is constant, up to the rounding of its mean."""
    constant = variance <= (10 * np.finfo(np.float64).eps * mean) ** 2
    return 1.0 if constant else float(variance**0.5)


def ranges_of(x: NDArray[np.floating]) -> tuple[int, NDArray[np.floating], NDArray[np.floating]]:
    """Give the number of some rows without gaps, and the least and the largest values (n_features,)."""
    return len(x), _by_column(np.minimum, x), _by_column(np.maximum, x)


def _by_column(reduce: np.ufunc, x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Reduce rows (n, n_features) to one, many side by side: NumPy is slow at rows that are short."""
    beside = max(1, 512 // x.shape[1])
    n_wide = len(x) // beside * beside
    found = [*reduce.reduce(x[:n_wide].reshape(-1, beside, x.shape[1]), axis=0)] if n_wide else []
    return np.asarray(reduce.reduce([*found, *x[n_wide:]], axis=0))


def _as_decimals(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Give the shortest decimals that read back as the values: of 0.1 in float32 still 0.1."""
    return np.array([float(str(value)) for value in values])


def to_dict(features: Sequence[Feature], points: Points) -> dict[str, Any]:
    """Give what a checkpoint keeps beside the numbers, in plain values."""
    return {
        "features": [
            {"name": f.name, "minimum": f.minimum, "maximum": f.maximum, "categories": f.categories} for f in features
        ],
        "missing": points.missing,
        "unseen": points.unseen,
    }


def features_of(saved: Mapping[str, Any]) -> list[Feature]:
    """Read the features that `to_dict` gave."""
    return [Feature(**feature) for feature in saved["features"]]


class Ranges:
    """Watches whether inputs lie outside the range seen in training."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features
        self.n_rows = 0
        self.outside = [0] * len(features)
        self.first: list[tuple[int, float] | None] = [None] * len(features)

    def add(self, x: NDArray[np.floating]) -> None:
        """Look at inputs (N, n_features), some."""
        low, high = _by_column(np.fmin, x), _by_column(np.fmax, x)
        for position, feature in enumerate(self.features):
            if feature.minimum is None or feature.maximum is None:
                continue
            margin = 1e-6 * max(abs(feature.minimum), abs(feature.maximum))  # of inputs in float32
            if not (low[position] < feature.minimum - margin or high[position] > feature.maximum + margin):
                continue
            column = x[:, position]
            found = np.nonzero((column < feature.minimum - margin) | (column > feature.maximum + margin))[0]
            self.outside[position] += len(found)
            if len(found) and self.first[position] is None:
                self.first[position] = (self.n_rows + int(found[0]) + 1, float(column[found[0]]))
        self.n_rows += len(x)

    def told(self) -> list[str]:
        """Say of each feature that does how many inputs lie outside."""
        return [
            f"{feature.name}: {number} of {self.n_rows} rows outside the range seen in training, "
            f"{feature.minimum:g} to {feature.maximum:g}; the first is row {first[0]} ({first[1]:g})"
            for feature, number, first in zip(self.features, self.outside, self.first, strict=True)
            if first is not None
        ]
