"""The dataset of the loaders, and the checks of arrays before they become one."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.sources import Samples
from linreg.errors import DataError

Point = tuple[torch.Tensor, ...]


class CustomDataset(Dataset[Point]):
    """The points of a data set: (x, y) at each index, with x (n_features,) and y (n_targets,); or (x, y, weight)."""

    def __init__(
        self, x_tensor: torch.Tensor, y_tensor: torch.Tensor, weight_tensor: torch.Tensor | None = None
    ) -> None:
        self.x = x_tensor
        self.y = y_tensor
        self.weight = weight_tensor

    def __getitem__(self, index: int) -> Point:
        if self.weight is not None:
            return (self.x[index], self.y[index], self.weight[index])
        return (self.x[index], self.y[index])

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, indices: torch.Tensor) -> Point:
        """Return n points: x (n, n_features), y (n, n_targets) and, with weights, weight (n, 1)."""
        indices = indices.to(self.x.device)
        return tuple(part.index_select(0, indices) for part in self._parts)

    def take(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.floating], ...]:
        """Return n points as `rows` does, in arrays, with one thread."""
        return tuple(part.numpy().take(indices, axis=0) for part in self._parts)

    def to(self, device: torch.device) -> "CustomDataset":
        """Return the points on a device."""
        return CustomDataset(*(part.to(device) for part in self._parts))

    @property
    def n_bytes(self) -> int:
        """The memory of the points."""
        return sum(part.nbytes for part in self._parts)

    @property
    def n_values(self) -> int:
        """The number of values of a point."""
        return sum(part.shape[1] for part in self._parts)

    @property
    def _parts(self) -> list[torch.Tensor]:
        return [self.x, self.y] if self.weight is None else [self.x, self.y, self.weight]


def refuse_shapes(samples: Samples, *, where: str = "data.source") -> None:
    """Raise a DataError unless x, y and weight are numbers of the same number of rows, with a name for each column."""
    _refuse_shape("x", samples.x, samples.feature_names, where)
    _refuse_shape("y", samples.y, samples.target_names, where)
    if len(samples.x) != len(samples.y):
        raise DataError(f"{where}: {len(samples.x)} rows of x but {len(samples.y)} of y; each point needs both")
    if samples.weight is not None and samples.weight.shape != (len(samples.x),):
        raise DataError(f"{where}: weight is {samples.weight.shape}; it must be one number for each point")


def _refuse_shape(name: str, array: object, names: Sequence[str], where: str) -> None:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{where}: {name} is {kind}; it must be an array of numbers with two dimensions")
    if not len(array) or not array.shape[1]:
        raise DataError(f"{where}: {name} is empty, {array.shape}; there must be at least one point")
    if len(names) != array.shape[1] or len(set(names)) < len(names):
        raise DataError(
            f"{where}: {list(names)} are not names for the {array.shape[1]} columns of {name}; name each column once"
        )
