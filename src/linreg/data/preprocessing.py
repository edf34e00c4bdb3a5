"""Preprocessing between a table and the network: fills gaps, makes categories one-hot, applies transforms, standardizes
columns.

It is learnt from the training part alone. It is a part of the model, and is saved and applied with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.components.transforms import Learnt, OfTarget
from linreg.data.derived import REMEDY, ColumnInfo, Transforms, UnfitRowError
from linreg.data.sources import Points
from linreg.errors import DataError

FILLING = ("mean", "median")  # values of `missing` that fill gaps


@dataclass(frozen=True)
class Feature:
    """A column of the inputs. minimum, maximum: the range in the training part; categories: those of the training part,
    sorted, or None."""

    name: str
    minimum: float | None = None
    maximum: float | None = None
    categories: list[str] | None = None


class TargetTransform(nn.Module):
    """A transform of the targets, with what it has learnt in its buffers. names: of the targets."""

    def __init__(self, of_target: OfTarget, learnt: Learnt, names: Sequence[str]) -> None:
        super().__init__()
        self.of_target, self.learnt, self.names = of_target, list(learnt), list(names)
        for name, value in learnt.items():
            self.register_buffer(name, value)

    def values(self, device: torch.device | None = None) -> Learnt:
        """Return what was learnt."""
        return {name: getattr(self, name).to(device) for name in self.learnt}

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Transform targets (N, n_targets). Raises UnfitRowError."""
        transformed: torch.Tensor = self.of_target.apply(y, **self.values())
        if not torch.isfinite(transformed).all():
            row, column = torch.nonzero(~torch.isfinite(transformed))[0].tolist()
            name, value = self.names[column], float(y[row, column])
            made, needs = self.of_target.name(name), self.of_target.needs
            raise UnfitRowError(row, f"column {name!r}: {made} needs {needs}, got {value:g}; {REMEDY}")
        return transformed

    def invert(self, z: torch.Tensor) -> torch.Tensor:
        """Transform predictions (N, n_targets) back."""
        y: torch.Tensor = self.of_target.invert(z, **self.values())
        return y


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

    def __init__(
        self,
        features: Sequence[Feature],
        n_targets: int,
        *,
        fills: bool,
        transforms: Transforms | None = None,
        target: TargetTransform | None = None,
    ) -> None:
        """fills: whether gaps are filled."""
        super().__init__()
        self.features = list(features)
        self.fills, self.transforms, self.target = fills, transforms, target
        self.is_one_hot = any(feature.categories is not None for feature in features)
        width = len(self.columns)
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
    def columns(self) -> list[ColumnInfo]:
        """The inputs of the network."""
        return columns_of(self.features) if self.transforms is None else self.transforms.columns

    @property
    def column_names(self) -> list[str]:
        """The names of the inputs of the network."""
        return [column.name for column in self.columns]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the network (N, n_columns) for inputs of the table (N, n_features). Raises
        UnfitRowError."""
        x = self.derived(x)
        if not self.mean.any() and bool((self.scale == 1).all()):
            return x
        scaled, constant = (x - self.mean) / self.scale, self.scale == 0
        return scaled.masked_fill(constant, 0.0) if constant.any() else scaled

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """Return the columns before the first transform, for inputs of the table."""
        x = torch.where(torch.isnan(x), self.fill, x.double()) if self.fills else x.double()
        if not self.is_one_hot:
            return x
        return torch.cat([self._columns_of(position, x) for position in range(len(self.features))], dim=1)

    def derived(self, x: torch.Tensor) -> torch.Tensor:
        """Return the columns after the last transform, not standardized. Raises UnfitRowError."""
        x = self.filled(x)
        derived: torch.Tensor = x if self.transforms is None else self.transforms(x)
        return derived

    def _columns_of(self, position: int, x: torch.Tensor) -> torch.Tensor:
        column, categories = x[:, position : position + 1], self.features[position].categories
        if categories is None:
            return column
        return (column == torch.arange(len(categories), dtype=torch.float64)).double()

    def scaled(self, y: torch.Tensor) -> torch.Tensor:
        """Return targets (N, n_targets) on the scale of the network. Raises UnfitRowError."""
        y = y.double() if self.target is None else self.target(y.double())
        return (y - self.y_mean) / self.y_scale

    def restored(self, y: torch.Tensor, margin: float | torch.Tensor = 0.0) -> torch.Tensor:
        """Return outputs of the network (N, n_targets) in the targets' units. margin: added before a transform of the
        target is inverted."""
        y = y.double() * self.y_scale + self.y_mean + margin
        return y if self.target is None else self.target.invert(y)


class Preprocessed(nn.Module):
    """A network with its preprocessing: maps the inputs of a table to predictions in the targets' units."""

    def __init__(self, preprocessing: Preprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict for inputs (N, n_features), float64; (N, n_targets) in float64, as a mean may need more digits than
        the network's precision has."""
        return self.preprocessing.restored(self.outputs(x))

    def errors(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return y - yhat (N, n_targets), without the rounding of yhat to the digits that its mean leaves."""
        y_mean, y_scale = self.preprocessing.y_mean, self.preprocessing.y_scale
        if self.preprocessing.target is not None:
            return y.double() - self.preprocessing.restored(self.outputs(x))
        return (y.double() - y_mean) - self.outputs(x).double() * y_scale

    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the network (N, n_targets) for inputs (N, n_features)."""
        like = next(self.network.parameters())
        outputs: torch.Tensor = self.network(self.preprocessing(x.cpu()).to(like))
        return outputs.cpu()


@contextmanager
def rows_as_data_errors(
    preprocessing: Preprocessing | None,
    x: NDArray[np.floating],
    y: NDArray[np.floating] | None,
    where: Callable[[int], str],
) -> Iterator[None]:
    """Raise an UnfitRowError of some rows of a block as a DataError with the place of the row. x, y: of the block."""
    try:
        yield
    except UnfitRowError:
        assert preprocessing is not None
        try:  # again, to find the row in the whole block
            preprocessing.derived(torch.from_numpy(np.ascontiguousarray(x)))
            if y is not None:
                preprocessing.scaled(torch.from_numpy(np.ascontiguousarray(y)))
        except UnfitRowError as error:
            raise DataError(f"{where(error.row)}, {error}") from None
        raise


def columns_of(features: Sequence[Feature], dates: Sequence[str] = ()) -> list[ColumnInfo]:
    """Describe the columns of features, with categories one-hot."""
    columns = []
    for group, feature in enumerate(features):
        if feature.categories is None:
            columns.append(ColumnInfo(feature.name, kind="date" if feature.name in dates else "number"))
        for place, category in enumerate(feature.categories or ()):
            name = f"{feature.name}={category}"
            columns.append(ColumnInfo(name, feature.name, "indicator", group, reference=place == 0))
    return columns


def positions_of(features: Sequence[Feature]) -> list[int]:
    """Return the position of the feature of each of their columns."""
    return [i for i, feature in enumerate(features) for _ in (feature.categories or (feature.name,))]


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
