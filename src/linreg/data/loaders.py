"""From arrays to mini-batches: dataset, split, loaders."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from linreg.data.sources import Block, Points, Samples
from linreg.errors import DataError

ROWS_AT_ONCE, VALUES_AT_ONCE = 2**14, 2**19  # gathered for many batches, unless one has more; they fit the near caches
ALIGNMENT = 64  # bytes, of what torch's CPU allocator gives

Point = tuple[torch.Tensor, ...]


class CustomDataset(Dataset[Point]):
    """The points of a data set, one (x, y) an index: x (n_features,), y (n_targets,); or (x, y, weight) with weights
    (n_samples, 1)."""

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
        """Give many points at once: x (n, n_features), y (n, n_targets) and, with weights, weight (n, 1)."""
        indices = indices.to(self.x.device)
        return tuple(part.index_select(0, indices) for part in self._parts)

    def to(self, device: torch.device) -> "CustomDataset":
        """Give the points on a device."""
        return CustomDataset(*(part.to(device) for part in self._parts))

    @property
    def n_bytes(self) -> int:
        """The memory that the points take."""
        return sum(part.nbytes for part in self._parts)

    @property
    def n_values(self) -> int:
        """How many values a point has."""
        return sum(part.shape[1] for part in self._parts)

    @property
    def _parts(self) -> list[torch.Tensor]:
        return [self.x, self.y] if self.weight is None else [self.x, self.y, self.weight]


def refuse_shapes(samples: Samples, *, where: str = "data.source") -> None:
    """Refuse samples that are not rows of numbers, as many of x as of y, with a name for each column."""
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


def refuse_unfit(name: str, converted: NDArray[Any], given: NDArray[Any], *, where: str, first: int = 0) -> None:
    """Refuse rows that are not finite in the type that they are converted to. first: the number of the
    first of them."""
    if np.isfinite(converted).all():
        return
    row, column = (int(places[0]) for places in np.nonzero(~np.isfinite(converted)))
    raise DataError(
        f"{where}: {name}[{first + row}, {column}] is {given[row, column]}; every value must be finite, and fit "
        f"{converted.dtype}"
    )


def split(
    dataset: Dataset[Any], *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[Subset[Any], Subset[Any] | None]:
    """Divide a dataset at random into a training and a validation part, as `random_split` does after
    `torch.manual_seed(seed)`, with indices in arrays. With a train_ratio of 1 there is no validation part; too few
    points for the ratio are a DataError."""
    assert isinstance(dataset, Sized)
    train, val = split_rows(len(dataset), train_ratio=train_ratio, seed=seed, where=where)
    parts: list[Any] = [train, val]  # what can be indexed
    return Subset(dataset, parts[0]), None if val is None else Subset(dataset, parts[1])


def split_rows(
    n_total: int, *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[NDArray[np.integer], NDArray[np.integer] | None]:
    """Give the rows that `split` puts into each part, in its order."""
    n_train, n_val = _lengths(n_total, train_ratio, where)
    order: NDArray[np.integer] = permutation(n_total, seed).numpy()
    return order[:n_train], order[n_train:] if n_val else None


def permutation(n: int, seed: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Give the numbers below n in the order of `torch.randperm` after seeding, with 4 bytes for each where that will
    do: it draws the same numbers, in a third of the time. generator: one to seed, where one is at hand."""
    dtype = torch.int32 if n < 2**31 else torch.int64
    return torch.randperm(n, generator=(generator or torch.Generator()).manual_seed(seed), dtype=dtype)


def _lengths(n_total: int, train_ratio: float, where: str) -> tuple[int, int]:
    n_train = int(n_total * train_ratio)
    n_val = n_total - n_train
    if not n_train or (not n_val and train_ratio < 1):
        raise DataError(
            f"{where}: {n_total} points in the ratio {train_ratio} leave {n_train} to train on and {n_val} to "
            "validate on; use more points, another ratio, or 1.0 to train on all"
        )
    return n_train, n_val


def drawn(generator: torch.Generator, place: torch.Tensor | None = None) -> int:
    """Draw a seed, as `torch.utils.data` does for a loader's workers and for a sampler's order. place: an integer to
    draw it into, where one is at hand."""
    place = torch.empty((), dtype=torch.int64) if place is None else place
    return int(place.random_(generator=generator).item())


class ShuffleSampler(Sampler[int]):
    """Gives all indices in a new random order each time."""

    def __init__(self, data_source: Sized, generator: torch.Generator) -> None:
        self.data_source = data_source
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        yield from permutation(len(self.data_source), drawn(self.generator)).tolist()

    def __len__(self) -> int:
        return len(self.data_source)


class TensorLoader:
    """Gives the mini-batches that a loader of `make_loaders` gives, and draws what it draws, but takes them from the
    dataset, and to the device, many rows at once.

    indices: the rows (n,) of the dataset that are a part, in its order; generator: the loaders' own.
    """

    def __init__(
        self,
        dataset: CustomDataset,
        indices: torch.Tensor,
        *,
        batch_size: int,
        shuffle: bool,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.dataset, self.indices, self.batch_size = dataset, indices, batch_size
        self.shuffle, self.generator, self.device = shuffle, generator, device
        self.n_rows = len(indices)
        self._of_order, self._place = torch.Generator(), torch.empty((), dtype=torch.int64)

    def __len__(self) -> int:
        return math.ceil(self.n_rows / self.batch_size)

    @cached_property
    def rows_at_once(self) -> int:
        """How many rows are gathered at once: whole batches, of points however wide."""
        most = min(ROWS_AT_ONCE, VALUES_AT_ONCE // self.dataset.n_values)
        return max(1, most // self.batch_size) * self.batch_size

    def begin(self) -> Callable[[int, int], torch.Tensor]:
        """Begin a pass: draw what DataLoader draws for one, and give the function that tells which rows of the dataset
        stand from one place to another in the order of the pass."""
        drawn(self.generator, self._place)  # the workers' seed, had the loader such
        if not self.shuffle:
            return lambda first, end: self.indices[first:end]
        order = permutation(self.n_rows, drawn(self.generator, self._place), self._of_order)
        return lambda first, end: self.indices.index_select(0, order[first:end])

    def batches(self, *, after: int = 0) -> Iterator[Point]:
        """Begin a pass, and give its mini-batches but the first `after`."""
        return self._batches(self.begin(), after)

    def _batches(self, rows: Callable[[int, int], torch.Tensor], after: int) -> Iterator[Point]:
        size, n_rows = self.batch_size, self.rows_at_once
        for first in range(after * size, self.n_rows, n_rows):
            parts = (part.to(self.device) for part in self.dataset.rows(rows(first, first + n_rows)))
            yield from zip(*(_cut(part, size) for part in parts), strict=True)


def _cut(rows: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Cut rows into batches that begin in memory as tensors of their own do: elsewhere a matrix product may round
    otherwise."""
    n_rows, n_columns = rows.shape
    n_whole, rest = divmod(n_rows, size)
    parts = rows.split_with_sizes([size] * n_whole + [rest] * (rest > 0))
    aligned = size * n_columns * rows.element_size() % ALIGNMENT == 0
    return parts if aligned else [part.clone() for part in parts]


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


def make_tensor_loaders(loaders: Loaders, device: torch.device) -> tuple[TensorLoader, TensorLoader | None]:
    """Make the loaders that give, straight from tensors, what those of `make_loaders` give for two parts, `Subset`s of
    one dataset. The dataset is moved to the device once, where it fits."""
    part: Any = loaders.train.dataset
    dataset = _on_device(part.dataset, device)

    def tensor_loader(loader: DataLoader[Point]) -> TensorLoader:
        part: Any = loader.dataset
        assert loader.batch_size is not None
        return TensorLoader(
            dataset,
            torch.as_tensor(part.indices),
            batch_size=loader.batch_size,
            shuffle=isinstance(loader.sampler, ShuffleSampler),
            generator=loaders.generator,
            device=device,
        )

    return tensor_loader(loaders.train), None if loaders.val is None else tensor_loader(loaders.val)


def _on_device(dataset: CustomDataset, device: torch.device) -> CustomDataset:
    if device.type != "cuda":
        return dataset.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    return dataset.to(device) if 2 * dataset.n_bytes < free else dataset


class Fingerprint:
    """Identifies data, block by block, however they are cut: the number of rows, and the SHA-256 of the columns' names
    and of the values of x, y and weight."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.n_rows = 0
        self.digests = [hashlib.sha256() for _ in range(3)]

    def add(self, block: Block) -> None:
        """Add the rows of a block."""
        self.n_rows += len(block.x)
        for digest, array in zip(self.digests, (block.x, block.y, block.weight), strict=True):
            if array is not None:
                digest.update(np.ascontiguousarray(array, dtype=np.float64).data)

    def text(self) -> str:
        """Give the fingerprint of the rows so far: its parts, each with its name."""
        names = [*self.points.feature_names, *self.points.target_names, *self.points.categories.items()]
        columns = hashlib.sha256(repr(names).encode())
        digests = zip(("columns", "x", "y", "weight"), (columns, *self.digests), strict=True)
        return " ".join([f"rows={self.n_rows}", *(f"{name}={digest.hexdigest()}" for name, digest in digests)])


def differing(then: str, now: str) -> list[str]:
    """Name the parts in which two fingerprints differ, with the rows that there were and are."""
    before, after = (dict(part.partition("=")[::2] for part in text.split()) for text in (then, now))
    rows = [f"{before.get('rows')} rows, now {after.get('rows')}"] if before.get("rows") != after.get("rows") else []
    words = {"columns": "the names of the columns or categories", "x": "values of x", "y": "values of y"}
    others = [name for name in ("columns", "x", "y", "weight") if before.get(name) != after.get(name)]
    return rows + [words.get(name, "weights") for name in others]
