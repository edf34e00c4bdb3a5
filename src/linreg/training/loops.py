"""The loops: `mini_batch` runs one epoch over a loader, `fit` runs epochs, `fit_in_groups` many short ones at once.
`experiment.session` runs them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from linreg.training.steps import StepFn

SECONDS_A_CHUNK = 0.05  # time between two pauses, in `make_epoch_fn` and `fit_in_groups`

Batches = Iterable[tuple[torch.Tensor, ...]]
EpochFn = Callable[..., float]  # takes mini_batch_losses and pause as `mini_batch` does, returns the mean loss


@dataclass(frozen=True)
class EpochLosses:
    """The mean training and validation loss of an epoch, which is counted from 0."""

    epoch: int
    loss: float
    val_loss: float | None

    @property
    def monitored(self) -> float:
        """The loss that decides about the best epoch: the validation loss, or the training loss without one."""
        return self.loss if self.val_loss is None else self.val_loss


@dataclass(frozen=True)
class Group:
    """Epochs that were run in one call. best: the epoch with the lowest monitored loss of all so far, if it is among
    these; at_best: makes a context with the state after that epoch; mini_batch_losses: those of the last epoch, if
    nobody else keeps them."""

    epochs: Sequence[EpochLosses]
    best: int | None
    mini_batch_losses: Sequence[float] | None = None
    at_best: Callable[[], AbstractContextManager[None]] = nullcontext


# Runs epochs in one call: takes the number of the first one, how many at most, and the lowest monitored loss so far.
GroupFn = Callable[[int, int, float], Group]


def mini_batch(
    device: torch.device | str,
    data_loader: Batches,
    step_fn: StepFn,
    *,
    mini_batch_losses: list[float] | None = None,
    pause: Callable[[], None] = lambda: None,
) -> float:
    """Run one epoch: every mini-batch through step_fn. Return the mean of the mini-batches' losses.

    mini_batch_losses: the losses of the batches that are already done, if the epoch resumes midway. These batches are
    skipped, and each new loss is appended: the length of the list is the current position in the epoch.
    pause: called before each mini-batch.
    """
    if mini_batch_losses is None:
        mini_batch_losses = []
    for x_batch, y_batch, *weight_batch in islice(data_loader, len(mini_batch_losses), None):
        pause()
        x_batch = x_batch.to(device)  # noqa: PLW2901  # as the textbook has it
        y_batch = y_batch.to(device)  # noqa: PLW2901  # same
        weight_batch = [weight.to(device) for weight in weight_batch]  # noqa: PLW2901  # empty without weights

        mini_batch_loss = step_fn(x_batch, y_batch, *weight_batch)
        mini_batch_losses.append(mini_batch_loss)

    return float(np.mean(mini_batch_losses))


def mean_of(losses: Sequence[float]) -> float:
    """Return the mean of losses, bit for bit that of np.mean, with less overhead."""
    return float(np.add.reduce(losses)) / len(losses)


def make_epoch_fn(
    n_batches: int,
    begin: Callable[[int], Callable[[int], list[float]]],
    mean: Callable[[list[float]], float] = mean_of,
) -> EpochFn:
    """Make the function that runs an epoch of n_batches as `mini_batch` does, but in chunks with a pause before each.

    begin: takes the number of batches to skip and starts a pass over the data. It returns a function that takes n, runs
    the next n batches and returns their losses. The chunk size follows the clock and does not change any result.
    mean: computes the mean of the mini-batches' losses.
    """
    n_steps = 1

    def run_epoch(*, mini_batch_losses: list[float] | None = None, pause: Callable[[], None] = lambda: None) -> float:
        nonlocal n_steps
        if mini_batch_losses is None:
            mini_batch_losses = []
        run_chunk = begin(len(mini_batch_losses))
        while (n_left := n_batches - len(mini_batch_losses)) > 0:
            pause()
            start, n_before = time.perf_counter(), len(mini_batch_losses)
            mini_batch_losses += run_chunk(min(n_steps, n_left))
            seconds_a_step = (time.perf_counter() - start) / (len(mini_batch_losses) - n_before)
            n_steps = max(1, min(10 * n_steps, int(SECONDS_A_CHUNK / max(seconds_a_step, 1e-9))))
        return mean(mini_batch_losses)

    return run_epoch


def fit(
    train_epoch: Callable[[], float], val_epoch: Callable[[], float] | None, epochs: Iterable[int]
) -> Iterator[EpochLosses]:
    """Train and validate for the given epochs, and yield the losses of each.

    The next epoch starts when the caller asks for it, so the caller's loop does whatever happens between epochs."""
    for epoch in epochs:
        loss = train_epoch()
        val_loss = None
        if val_epoch is not None:
            # no gradients in validation!
            with torch.no_grad():
                val_loss = val_epoch()
        yield EpochLosses(epoch, loss, val_loss)


def fit_in_groups(
    train_epoch: Callable[[], float],
    val_epoch: Callable[[], float] | None,
    group: GroupFn | None,
    epochs: range,
    *,
    lowest: Callable[[], float],
    most: Callable[[], int],
) -> Iterator[Group]:
    """Train and validate for the given epochs as `fit` does, but yield groups of epochs.

    group: runs many epochs in one call, if that is possible. The groups follow the clock, which does not change any
    result: as many epochs as take SECONDS_A_CHUNK together with what the caller does between. lowest: returns the
    lowest monitored loss so far; most: returns how many epochs the caller wants at most."""
    start = epochs.start
    n_epochs = 0  # of the next group; 0 for long epochs, which are not run in one call
    while start < epochs.stop:
        begin = time.perf_counter()
        if group is None or n_epochs == 0:
            (losses,) = fit(train_epoch, val_epoch, [start])
            done = Group([losses], start if losses.monitored < lowest() else None)
        else:
            done = group(start, min(n_epochs, most(), epochs.stop - start), lowest())
        yield done
        start += len(done.epochs)
        seconds = (time.perf_counter() - begin) / len(done.epochs)
        n_epochs = min(10 * n_epochs + 1, int(SECONDS_A_CHUNK / max(seconds, 1e-9)))


class Patience:
    """Counts the epochs without improvement. left: the epochs until patience may run out."""

    def __init__(self, patience: int, min_delta: float) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best, self.left = float("inf"), patience

    def runs_out(self, loss: float) -> bool:
        """Take the next loss, and return whether it is the last of `patience` in a row that are not below the best by
        more than min_delta. Then the count restarts."""
        if loss < self.best - self.min_delta:
            self.best, self.left = loss, self.patience
            return False
        self.left = self.left - 1 or self.patience
        return self.left == self.patience
