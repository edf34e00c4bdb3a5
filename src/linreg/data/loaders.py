"""Loaders of mini-batches: the textbook's, and faster ones with the same batches. `experiment` and engines use them."""

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from linreg.data.dataset import CustomDataset, Point
from linreg.data.split import draw_seed, permutation

ROWS_AT_ONCE, VALUES_AT_ONCE = 2**14, 2**19  # gathered at once for many batches; they fit the near caches
ALIGNMENT = 64  # bytes, of tensors by torch's CPU allocator


class ShuffleSampler(Sampler[int]):
    """Yields all indices, in a new random order each time."""

    def __init__(self, data_source: Sized, generator: torch.Generator) -> None:
        self.data_source = data_source
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        yield from permutation(len(self.data_source), draw_seed(self.generator)).tolist()

    def __len__(self) -> int:
        return len(self.data_source)


class TensorLoader:
    """Yields the same mini-batches as a loader of `make_loaders`, with the same random numbers, but faster: it takes
    many rows of the dataset at once.

    indices: the rows (n,) of the part, in its order; generator: that of the loaders.
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
        self._kept: list[Point] | None = None
        self._keeps = False
        self._of_order, self._place = torch.Generator(), torch.empty((), dtype=torch.int64)

    def __len__(self) -> int:
        return math.ceil(self.n_rows / self.batch_size)

    @cached_property
    def rows_at_once(self) -> int:
        """The number of rows that are gathered at once: whole batches."""
        most = min(ROWS_AT_ONCE, VALUES_AT_ONCE // self.dataset.n_values)
        return max(1, most // self.batch_size) * self.batch_size

    def begin(self) -> Callable[[int, int], torch.Tensor]:
        """Begin a pass, with the random numbers of a DataLoader. Return the function from two positions in the pass to
        the rows of the dataset between them."""
        draw_seed(self.generator, self._place)  # DataLoader draws a seed for workers
        if not self.shuffle:
            return lambda first, end: self.indices[first:end]
        order = permutation(self.n_rows, draw_seed(self.generator, self._place), self._of_order)
        return lambda first, end: self.indices.index_select(0, order[first:end])

    def keep_batches(self) -> None:
        """Keep the mini-batches of a small part that is not shuffled, for passes that do not change them."""
        self._keeps = not self.shuffle and self.n_rows <= self.rows_at_once

    def batches(self, *, after: int = 0) -> Iterator[Point]:
        """Begin a pass, and yield its mini-batches except the first `after`."""
        rows = self.begin()
        if not self._keeps:
            return self._batches(rows, after)
        if self._kept is None:
            self._kept = list(self._batches(rows, 0))
        return islice(self._kept, after, None)

    def _batches(self, rows: Callable[[int, int], torch.Tensor], after: int) -> Iterator[Point]:
        size, n_rows = self.batch_size, self.rows_at_once
        for first in range(after * size, self.n_rows, n_rows):
            parts = (part.to(self.device) for part in self.dataset.rows(rows(first, first + n_rows)))
            yield from zip(*(_cut(part, size) for part in parts), strict=True)


def _cut(rows: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Cut rows into batches that are aligned in memory like new tensors: otherwise a matrix product may round
    differently."""
    n_rows, n_columns = rows.shape
    n_whole, rest = divmod(n_rows, size)
    parts = rows.split_with_sizes([size] * n_whole + [rest] * (rest > 0))
    aligned = size * n_columns * rows.element_size() % ALIGNMENT == 0
    return parts if aligned else [part.clone() for part in parts]


class Loaders(NamedTuple):
    """A loader for each part, and the random generator that only these two use."""

    train: DataLoader[Point]
    val: DataLoader[Point] | None
    generator: torch.Generator


def make_loaders(
    train_data: Dataset[Point], val_data: Dataset[Point] | None, *, batch_size: int | None, shuffle: bool
) -> Loaders:
    """Make the loaders of the training part, shuffled or not, and of the validation part, never shuffled.

    batch_size: points in a mini-batch; None puts each part in one batch. The loaders' generator starts as a copy of the
    global one. So call this just after building the model, and the batches are the textbook's.
    """
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())

    def loader(data: Any, sampler: Sampler[int] | None) -> DataLoader[Point]:
        return DataLoader(data, batch_size=batch_size or max(1, len(data)), sampler=sampler, generator=generator)

    assert isinstance(train_data, Sized)
    train_loader = loader(train_data, ShuffleSampler(train_data, generator) if shuffle else None)
    val_loader = None if val_data is None else loader(val_data, None)
    return Loaders(train_loader, val_loader, generator)


def make_tensor_loaders(loaders: Loaders, device: torch.device) -> tuple[TensorLoader, TensorLoader | None]:
    """Make loaders from tensors with the same batches as those of `make_loaders`, for two `Subset`s of one dataset.

    The dataset is moved to the device once, if it fits."""
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
