"""The mini-batches of a stack: each model has its own order of its own rows; models with the same ones share a feed."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from linreg.data.loaders import ALIGNMENT, TensorLoader, make_tensor_loaders
from linreg.training.engines.training import Training

INDICES_AT_ONCE = 2**20  # of the rows of all feeds
VALUES_AT_ONCE = 2**20  # gathered for all feeds
MOST_KEPT = 2**23  # values of the validation part of all models

Pair = tuple[torch.Tensor, torch.Tensor]  # x (n_models, N, n_features) and y (n_models, N, n_targets)


class Feeds:
    """The feeds of a stack: distinct combinations of rows and of the state of the loaders' generator."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        self.loaders: list[tuple[TensorLoader, TensorLoader | None]] = []
        self.leaders: list[Training] = []  # the first training of each feed
        numbers: dict[tuple[int, int, bytes], int] = {}
        self.feed_of: list[int] = []  # by model
        for training in trainings:
            train, val, generator = training.loaders
            key = (id(train.dataset), id(val and val.dataset), generator.get_state().numpy().tobytes())
            if key not in numbers:
                numbers[key] = len(numbers)
                self.loaders.append(make_tensor_loaders(training.loaders, training.device))
                self.leaders.append(training)
            self.feed_of.append(numbers[key])
        self.first, self.first_val = self.loaders[0]
        datasets = [id(train_part.dataset) for train_part in (_part(training) for training in self.leaders)]
        self._groups = {dataset: [i for i, one in enumerate(datasets) if one == dataset] for dataset in datasets}
        self._is_own = self.feed_of == list(range(len(self.loaders)))
        self._feeds = torch.tensor(self.feed_of)
        self._kept: list[Pair] | None = None

    def train_batches(self) -> Iterator[Pair]:
        """Begin a pass over the training part, and yield its mini-batches."""
        begun = [train.begin() for train, _ in self.loaders]
        size, n_rows = self.first.batch_size, self.first.n_rows
        n_whole, n_listed = n_rows - n_rows % size, max(1, INDICES_AT_ONCE // (len(begun) * size)) * size
        for first in range(0, n_whole, n_listed):
            numbers = torch.stack([rows(first, min(first + n_listed, n_whole)) for rows in begun])
            yield from self._batches(numbers, size)
        if n_whole < n_rows:
            yield from self._batches(torch.stack([rows(n_whole, n_rows) for rows in begun]), n_rows - n_whole)

    def _batches(self, rows: torch.Tensor, size: int) -> Iterator[Pair]:
        """Gather rows (n_feeds, n), in batches of one size."""
        n_at_once = max(1, VALUES_AT_ONCE // (len(rows) * self.first.dataset.n_values * size)) * size
        for some in torch.split(rows, n_at_once, dim=1):
            yield from self._gathered(some, size)

    def _gathered(self, rows: torch.Tensor, size: int) -> Iterator[Pair]:
        n_batches = rows.shape[1] // size
        parts: list[torch.Tensor] | None = None
        for feeds in self._groups.values():
            numbers = rows[feeds].view(len(feeds), n_batches, size).transpose(0, 1)
            gathered = self.loaders[feeds[0]][0].dataset.rows(numbers.reshape(-1))
            found = [values.view(n_batches, len(feeds), size, -1) for values in gathered]
            if len(self._groups) == 1:
                parts = found
                break
            parts = parts or [one.new_empty((n_batches, len(rows), size, one.shape[3])) for one in found]
            for part, of_feeds in zip(parts, found, strict=True):
                part[:, feeds] = of_feeds
        assert parts is not None
        is_aligned = parts[0][0].numel() * parts[0].element_size() % ALIGNMENT == 0
        for x, y in zip(*parts, strict=True):
            if not self._is_own:
                yield x.index_select(0, self._feeds), y.index_select(0, self._feeds)
            else:  # a product may round differently for memory that is not aligned as in a single run
                yield x if is_aligned else x.clone(), y

    def val_batches(self) -> Iterator[Pair]:
        """Begin a pass over the validation part, and yield its mini-batches."""
        loaders = [val for _, val in self.loaders if val is not None]
        begun = [val.begin() for val in loaders]
        if self._kept is not None:
            yield from self._kept
            return
        first = loaders[0]
        parts = [id(_part(training, "val")) for training in self.leaders]
        own = {part: parts.index(part) for part in parts}  # the first feed with each part, which is not shuffled
        numbers = list(own)
        part_of = torch.tensor([numbers.index(parts[feed]) for feed in self.feed_of])
        keeps = first.n_rows * first.dataset.n_values * len(self.feed_of) <= MOST_KEPT
        kept = []
        for start in range(0, first.n_rows, first.batch_size):
            end = min(start + first.batch_size, first.n_rows)
            points = [loaders[feed].dataset.rows(begun[feed](start, end)) for feed in own.values()]
            x, y = (torch.stack([point[i] for point in points]).index_select(0, part_of) for i in range(2))
            if keeps:
                kept.append((x, y))
            yield x, y
        if keeps:
            self._kept = kept

    def synchronize(self) -> None:
        """Give each training's generator the state of its feed's."""
        states = [leader.loaders.generator.get_state() for leader in self.leaders]
        for training, feed in zip(self.trainings, self.feed_of, strict=True):
            if training is not self.leaders[feed]:
                training.loaders.generator.set_state(states[feed])


def _part(training: Training, name: str = "train") -> Any:
    """Return the Subset of a part."""
    loader: Any = getattr(training.loaders, name)
    return loader.dataset
