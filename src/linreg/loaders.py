"""From arrays to mini-batches: dataset, split, loaders."""

import hashlib
from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, random_split

from linreg.datasets import Samples
from linreg.errors import DataError

Point = tuple[torch.Tensor, torch.Tensor]


class CustomDataset(Dataset[Point]):
    """The points of a data set, one (x, y) an index: x (n_features,), y (n_targets,)."""

    def __init__(self, x_tensor: torch.Tensor, y_tensor: torch.Tensor) -> None:
        self.x = x_tensor
        self.y = y_tensor

    def __getitem__(self, index: int) -> Point:
        return (self.x[index], self.y[index])

    def __len__(self) -> int:
        return len(self.x)


def dataset_of(samples: Samples, dtype: torch.dtype, *, where: str = "data.source") -> CustomDataset:
    """Make the dataset, of its own copy, of what a source returned; what cannot be trained on is a DataError."""
    parts = [("x", samples.x, samples.feature_names), ("y", samples.y, samples.target_names)]
    tensors = [_tensor(name, array, names, dtype, where) for name, array, names in parts]
    if len(samples.x) != len(samples.y):
        raise DataError(f"{where}: {len(samples.x)} rows of x but {len(samples.y)} of y; each point needs both")
    return CustomDataset(*tensors)


def _tensor(name: str, array: object, names: Sequence[str], dtype: torch.dtype, where: str) -> torch.Tensor:
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"{where}: {name} is {kind}; it must be an array of numbers with two dimensions")
    if not len(array) or not array.shape[1]:
        raise DataError(f"{where}: {name} is empty, {array.shape}; there must be at least one point")
    if len(names) != array.shape[1] or len(set(names)) < len(names):
        raise DataError(
            f"{where}: {list(names)} are not names for the {array.shape[1]} columns of {name}; name each column once"
        )
    with np.errstate(over="ignore"):
        converted = np.array(array, dtype=str(dtype).removeprefix("torch."), order="C")
    rows, columns = np.nonzero(~np.isfinite(converted))
    if len(rows):
        value = array[rows[0], columns[0]]
        raise DataError(
            f"{where}: {name}[{rows[0]}, {columns[0]}] is {value}; every value must be finite, and fit {dtype}"
        )
    return torch.from_numpy(converted)


def split(
    dataset: Dataset[Point], *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[Subset[Point], Subset[Point] | None]:
    """Divide a dataset at random into a training and a validation part, as `random_split` does after
    `torch.manual_seed(seed)`. With a train_ratio of 1 there is no validation part; too few points for the ratio
    are a DataError."""
    assert isinstance(dataset, Sized)
    n_total = len(dataset)
    n_train = int(n_total * train_ratio)
    n_val = n_total - n_train
    if not n_train or (not n_val and train_ratio < 1):
        raise DataError(
            f"{where}: {n_total} points in the ratio {train_ratio} leave {n_train} to train on and {n_val} to "
            "validate on; use more points, another ratio, or 1.0 to train on all"
        )
    generator = torch.Generator().manual_seed(seed)
    train_data, val_data = random_split(dataset, [n_train, n_val], generator=generator)
    return train_data, val_data if n_val else None


class ShuffleSampler(Sampler[int]):
    """Gives all indices in a new random order each time, drawing from a generator of the loaders' what
    `torch.utils.data.RandomSampler` draws from the global one: a seed for a generator of its own."""

    def __init__(self, data_source: Sized, generator: torch.Generator) -> None:
        self.data_source = data_source
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=self.generator).item())
        yield from torch.randperm(len(self.data_source), generator=torch.Generator().manual_seed(seed)).tolist()

    def __len__(self) -> int:
        return len(self.data_source)


class Loaders(NamedTuple):
    """A loader for each part, and the generator that both draw from, and nothing else does."""

    train: DataLoader[Point]
    val: DataLoader[Point] | None
    generator: torch.Generator


def make_loaders(
    train_data: Dataset[Point], val_data: Dataset[Point] | None, *, batch_size: int | None, shuffle: bool
) -> Loaders:
    """Make the loaders of the training part, shuffled if asked, and of the validation part, never shuffled.

    batch_size: points in a mini-batch; None puts each part in one batch. The loaders' generator starts as a copy
    of the global one, so call this just after building the model: then the batches are the textbook's.
    """
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())

    def loader(data: Any, sampler: Sampler[int] | None) -> DataLoader[Point]:
        return DataLoader(data, batch_size=batch_size or len(data), sampler=sampler, generator=generator)

    assert isinstance(train_data, Sized)
    train_loader = loader(train_data, ShuffleSampler(train_data, generator) if shuffle else None)
    val_loader = None if val_data is None else loader(val_data, None)
    return Loaders(train_loader, val_loader, generator)


def fingerprint(dataset: CustomDataset) -> str:
    """Identify the data: the SHA-256 of shapes, types and values."""
    digest = hashlib.sha256()
    for tensor in (dataset.x, dataset.y):
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
