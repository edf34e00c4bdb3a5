"""The loops: `mini_batch` runs one epoch over a loader, `fit` runs epochs. `experiment.session` runs `fit`."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from linreg.training.steps import StepFn

SECONDS_A_CHUNK = 0.05  # time between two calls of `pause` in `make_epoch_fn`

Batches = Iterable[tuple[torch.Tensor, ...]]
EpochFn = Callable[..., float]  # takes mini_batch_losses and pause as `mini_batch` does, returns the mean loss


@dataclass(frozen=True)
class EpochLosses:
    """The mean training and validation loss of an epoch, which is counted from 0."""

    epoch: int
    loss: float
    val_loss: float | None


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


def make_epoch_fn(n_batches: int, begin: Callable[[int], Callable[[int], list[float]]]) -> EpochFn:
    """Make the function that runs an epoch of n_batches as `mini_batch` does, but in chunks with a pause before each.

    begin: takes the number of batches to skip and starts a pass over the data. It returns a function that takes n, runs
    the next n batches and returns their losses. The chunk size follows the clock and does not change any result.
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
        return float(np.add.reduce(mini_batch_losses)) / n_batches  # equals np.mean, with less overhead

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


def make_improved_fn(min_delta: float = 0.0) -> Callable[[float], bool]:
    """Make the function that takes the losses one by one and returns whether each is the lowest so far by more than
    min_delta."""
    best = float("inf")

    def improved(loss: float) -> bool:
        nonlocal best
        if loss < best - min_delta:
            best = loss
            return True
        return False

    return improved


def make_out_of_patience_fn(patience: int, min_delta: float) -> Callable[[float], bool]:
    """Make the function that takes the losses one by one and returns whether patience has run out.

    It runs out after `patience` losses in a row that are not below the best by more than min_delta. Then the count
    restarts at 0."""
    improved = make_improved_fn(min_delta)
    n_waited = 0

    def out_of_patience(loss: float) -> bool:
        nonlocal n_waited
        n_waited = 0 if improved(loss) else n_waited + 1
        if n_waited >= patience:
            n_waited = 0
            return True
        return False

    return out_of_patience
