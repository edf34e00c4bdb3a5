"""A stack of models: `Stack` trains and validates all of them, an epoch at a time."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.components.losses import InTargetUnits
from linreg.data.loaders import TensorLoader
from linreg.training.engines.direct import is_mean_square
from linreg.training.engines.layers import make_needs_autograd_fn, split_model
from linreg.training.engines.training import Training
from linreg.training.engines.updates import plain_group
from linreg.training.loops import SECONDS_A_CHUNK
from linreg.training.stacks.feeds import Feeds
from linreg.training.stacks.flat import Layout
from linreg.training.stacks.layers import Backward, Forward, make_passes
from linreg.training.stacks.losses import LossesFn, make_losses_fn
from linreg.training.stacks.updates import FLAGS, Updates, can_update, have_equal_bits, updates_alone

MOST_MODELS = 256
MOST_VALUES = 2**21  # of the parameters and a mini-batch's values of a stack, which should fit the caches


def signature(training: Training) -> Hashable | None:
    """Return what trainings must share to be trained as one stack; None for a training that does not fit in any.

    That is: layers, optimizer with its flags, loss, dtype, batch size, and numbers of rows. Learning rates and other
    numbers, seeds, rows and the order of rows are free."""
    split = split_model(training.model)
    group = plain_group(training.optimizer)
    reported = training.reported_loss_fn
    fits = (
        training.device.type == "cpu"
        and split is not None
        and not split.basis
        and is_mean_square(training.loss_fn)
        and training.clip_grad_norm is None
        and training.after_step is None
        and (reported is None or (isinstance(reported, InTargetUnits) and is_mean_square(reported.loss_fn)))
        and group is not None
        and not isinstance(group["lr"], torch.Tensor)
        and can_update(training.optimizer)
    )
    if not fits or split is None or group is None or make_needs_autograd_fn([training.model, *split.layers])():
        return None
    train, val, _ = training.loaders
    parameter = next(training.model.parameters())
    sizes = [None if loader is None else (loader.batch_size, len(loader.dataset)) for loader in (train, val)]  # type: ignore[arg-type]  # a Subset
    flags = tuple(bool(group.get(flag)) for flag in FLAGS)
    is_shuffled = type(train.sampler).__name__
    kinds = (type(training.optimizer), flags, reported is not None, parameter.dtype, is_shuffled)
    return (tuple(map(str, split.layers)), *kinds, *sizes)


def most_models(training: Training) -> int:
    """Return how many models like this one a stack should have at most."""
    split = split_model(training.model)
    assert split is not None
    widths = sum(layer.out_features + layer.in_features for layer in split.layers if isinstance(layer, nn.Linear))
    batch_size = min(training.loaders.train.batch_size or 1, len(training.loaders.train.dataset))  # type: ignore[arg-type]  # a Subset
    n_values = sum(parameter.numel() for parameter in training.model.parameters()) + batch_size * widths
    return max(1, min(MOST_MODELS, MOST_VALUES // n_values))


class Stack:
    """Models that are trained together. Their parameters and the states of their optimizers become views of the
    stack's memory. looped: the operations that run for one model after another."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        """trainings: with equal signatures. Raises Unequal if the bits of single models cannot be had."""
        self.trainings = list(trainings)
        splits = [split_model(training.model) for training in trainings]
        assert splits[0] is not None  # they have a signature
        self.layers = splits[0].layers
        parameters = [list(training.model.parameters()) for training in trainings]
        self.layout = Layout(parameters[0])
        self.looped: set[str] = set()
        optimizers = [training.optimizer for training in trainings]
        is_stacked = have_equal_bits(optimizers, self.layout)
        self.rows = torch.zeros((len(trainings), self.layout.width), dtype=parameters[0][0].dtype)
        self.grads = torch.zeros_like(self.rows)
        with torch.no_grad():
            for row, own in zip(self.rows, parameters, strict=True):
                for view, parameter in zip(self.layout.own_views(row), own, strict=True):
                    view.copy_(parameter)
                    parameter.data = view
        self.feeds = Feeds(trainings)
        with torch.no_grad():
            self._train_batches, self._val_batches = (
                {} if loader is None else {n: self._batch(n, loader) for n in _sizes(loader)}
                for loader in (self.feeds.first, self.feeds.first_val)
            )
        # last: without equal bits above, the optimizers keep their own states
        self.updates = Updates(optimizers, self.layout, self.rows) if is_stacked else None
        if self.updates is None:
            self.looped.add("update")
            self._update = updates_alone(optimizers, self.layout, self.grads)

    @property
    def has_val(self) -> bool:
        """Whether there is a validation part."""
        return self.feeds.first_val is not None

    def __len__(self) -> int:
        return len(self.trainings)

    def _batch(self, n: int, loader: TensorLoader) -> "_Batch":
        """Make what is computed for mini-batches of n rows."""
        forwards, backwards = make_passes(self.layers, self.layout, self.rows, self.grads, n, self.looped)
        n_targets = self.layout.shapes[-1][0]  # of the last bias or weight
        shape, is_short = (len(self), n, n_targets), n != min(loader.batch_size, loader.n_rows)
        losses_fn = make_losses_fn(self.trainings, shape, is_short=is_short, looped=self.looped)
        factor = self.rows.new_tensor(2 / (n * n_targets))  # as in `engines.direct`
        return _Batch(forwards, list(enumerate(backwards))[::-1], losses_fn, factor)

    def train_epoch(self, pause: Callable[[], None] = lambda: None) -> NDArray[np.float64]:
        """Train all models for an epoch. Return the losses of the mini-batches (n_models, n_batches).

        pause: called between steps, about every SECONDS_A_CHUNK.
        """
        if self.updates is not None:
            self.updates.read_settings()
        losses: list[torch.Tensor] = []
        due_at = time.perf_counter() + SECONDS_A_CHUNK
        with torch.inference_mode():
            for x, y in self.feeds.train_batches():
                losses.append(self._step(x, y, self._train_batches[x.shape[1]]))
                if time.perf_counter() >= due_at:
                    pause()
                    due_at = time.perf_counter() + SECONDS_A_CHUNK
        return _by_model(losses)

    def _step(self, x: torch.Tensor, y: torch.Tensor, batch: "_Batch") -> torch.Tensor:
        """Take a training step, as `engines.direct` does for one model. Return the losses (n_models,)."""
        values = [x]
        for forward in batch.forwards:
            values.append(forward(values[-1]))
        grad = (values[-1] - y).mul_(batch.factor)
        for number, backward in batch.backwards:
            grad = backward(grad, values[number], values[number + 1], number == 0)
        if self.updates is None:
            self._update()
        else:
            self.updates.step(self.grads)
        return batch.losses_fn(values[-1], y)

    def val_epoch(self, pause: Callable[[], None] = lambda: None) -> NDArray[np.float64]:
        """Return the losses of the validation part's mini-batches (n_models, n_batches)."""
        losses = []
        with torch.inference_mode():
            for x, y in self.feeds.val_batches():
                batch = self._val_batches[x.shape[1]]
                for forward in batch.forwards:
                    x = forward(x)  # noqa: PLW2901  # the input of the next layer
                losses.append(batch.losses_fn(x, y))
        pause()
        return _by_model(losses)

    def are_finite(self) -> NDArray[np.bool_]:
        """Return whether all parameters of each model are finite (n_models,)."""
        return np.asarray(torch.isfinite(self.rows).all(dim=1).numpy())

    def synchronize(self) -> None:
        """Bring the trainings up to date: the counts of their optimizers, and the states of their generators."""
        if self.updates is not None:
            self.updates.write_counts()
        self.feeds.synchronize()


@dataclass(frozen=True)
class _Batch:
    """What is computed for mini-batches of one size. backwards: with the numbers of the layers, the last one first."""

    forwards: list[Forward]
    backwards: list[tuple[int, Backward]]
    losses_fn: LossesFn
    factor: torch.Tensor


def _sizes(loader: TensorLoader) -> list[int]:
    """Return the numbers of rows of a loader's mini-batches."""
    n_whole, rest = divmod(loader.n_rows, loader.batch_size)
    return [loader.batch_size] * (n_whole > 0) + [rest] * (rest > 0)


def _by_model(losses: list[torch.Tensor]) -> NDArray[np.float64]:
    """Return losses, one tensor (n_models,) for each mini-batch, as rows of each model."""
    return np.ascontiguousarray(torch.stack(losses).double().numpy().T)
