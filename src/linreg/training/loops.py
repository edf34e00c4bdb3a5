"""The loops: `mini_batch` runs one epoch over a loader, `fit` runs epochs."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from linreg.training.steps import StepFn

SECONDS_A_CHUNK = 0.05  # between two pauses, where nobody asks for one at each step

Batches = Iterable[tuple[torch.Tensor, ...]]
EpochFn = Callable[..., float]  # of mini_batch_losses and pause, as `mini_batch` takes them


@dataclass(frozen=True)
class EpochLosses:
    """What an epoch (counted from 0) came to: the mean of its mini-batches' losses, in training and validation."""

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
    """Run one epoch: every mini-batch through step_fn. Returns the mean of the mini-batches' losses.

    mini_batch_losses: the losses of the batches that are done already, where an epoch is gone on with midway; so
    many batches are passed over. It grows as the epoch goes on, and thus is the position in it at any moment. pause:
    called before each mini-batch.
    """
    if mini_batch_losses is None:
        mini_batch_losses = []
    for x_batch, y_batch, *weight_batch in islice(data_loader, len(mini_batch_losses), None):
        pause()
        x_batch = x_batch.to(device)  # noqa: PLW2901  # as the textbook has it
        y_batch = y_batch.to(device)  # noqa: PLW2901  # likewise
        weight_batch = [weight.to(device) for weight in weight_batch]  # noqa: PLW2901  # where points are weighted

        mini_batch_loss = step_fn(x_batch, y_batch, *weight_batch)
        mini_batch_losses.append(mini_batch_loss)

    return float(np.mean(mini_batch_losses))


def make_epoch_fn(n_batches: int, begin: Callable[[int], Callable[[int], list[float]]]) -> EpochFn:
    """Make the function that runs an epoch of n_batches, as `mini_batch` does, in chunks of them, pausing before each.

    begin: begins a pass over the data, without the batches that are done, as many as it is told, and gives the function
    that runs the next few and returns their losses. How many a chunk has follows the clock, and moves no number.
    """
    n_steps = 1

    def run_epoch(*, mini_batch_losses: list[float] | None = None, pause: Callable[[], None] = lambda: None) -> float:
        nonlocal n_steps
        if mini_batch_losses is None:
            mini_batch_losses = []
        run = begin(len(mini_batch_losses))
        while (left := n_batches - len(mini_batch_losses)) > 0:
            pause()
            since, before = time.perf_counter(), len(mini_batch_losses)
            mini_batch_losses += run(min(n_steps, left))
            seconds_a_step = (time.perf_counter() - since) / (len(mini_batch_losses) - before)
            n_steps = max(1, min(10 * n_steps, int(SECONDS_A_CHUNK / max(seconds_a_step, 1e-9))))
        return float(np.add.reduce(mini_batch_losses)) / n_batches  # as np.mean has it, with less around it

    return run_epoch


def fit(
    train_epoch: Callable[[], float], val_epoch: Callable[[], float] | None, epochs: Iterable[int]
) -> Iterator[EpochLosses]:
    """Train for the given epochs, one each time the caller asks for the next; validate after each, without
    gradients. What else happens between epochs is the caller's loop."""
    for epoch in epochs:
        loss = train_epoch()
        val_loss = None
        if val_epoch is not None:
            # no gradients in validation!
            with torch.no_grad():
                val_loss = val_epoch()
        yield EpochLosses(epoch, loss, val_loss)


def make_improved_fn(min_delta: float = 0.0) -> Callable[[float], bool]:
    """Make the function that is told one loss after the other and says whether it is the lowest so far, by more
    than min_delta."""
    best = float("inf")

    def improved(loss: float) -> bool:
        nonlocal best
        if loss < best - min_delta:
            best = loss
            return True
        return False

    return improved


def make_out_of_patience_fn(patience: int, min_delta: float) -> Callable[[float], bool]:
    """Make the function that is told one loss after the other and says whether `patience` of them in a row have
    not improved on the best by more than min_delta. Having said so, it starts to count anew."""
    improved = make_improved_fn(min_delta)
    waited = 0

    def out_of_patience(loss: float) -> bool:
        nonlocal waited
        waited = 0 if improved(loss) else waited + 1
        if waited >= patience:
            waited = 0
            return True
        return False

    return out_of_patience
