"""Epochs in compiled code: the one function that `arrays` calls.

One thread takes the points in order, so the bits do not depend on how a run is cut into calls. The random numbers of
the order are those of the generator that is passed in; no other state exists.
"""

from typing import Any

import numpy as np

from linreg.training.engines.compiled.kernel import Array, Order, Words, entry, exact_kernel, kernel
from linreg.training.engines.compiled.linear import linear_batch
from linreg.training.engines.compiled.mlp import mlp_batch, work_arrays
from linreg.training.engines.compiled.order import N_WORDS, draw_seed, load_words, permute, store_words
from linreg.training.engines.compiled.updates import take_step


@kernel
def batch_loss(
    x: Array, y: Array, weight: Array, order: Order, number: int, batch_size: int, loss: Any, scale: Array,
    linear: Any, widths: Any, activation: Any, p: Array, g: Array, work: Array,
) -> float:  # fmt: skip
    """Return the mean loss of a batch as it is reported, and write the gradient to g, unless it is empty."""
    mean = 0.0
    if linear is not None:  # numba leaves out what belongs to an argument that is None
        mean = linear_batch(x, y, weight, order, number, batch_size, loss, scale, linear, p, g)
    if widths is not None:
        mean = mlp_batch(x, y, weight, order, number, batch_size, loss, scale, widths, activation, p, g, work)
    return np.float64(x.dtype.type(mean)) if loss.rounds else mean


@kernel
def room(widths: Any, batch_size: int, p: Array) -> Array:
    """Return the work arrays of a batch; a linear model needs none."""
    return np.empty((0, 0, 0), p.dtype) if widths is None else work_arrays(widths, batch_size, p)


@exact_kernel
def mean_of(losses: Array) -> float:
    """Return the mean of losses (n,), added one by one."""
    total = 0.0
    for loss in losses:
        total += loss
    return total / len(losses)


@kernel
def is_finite(p: Array) -> bool:
    """Return whether all of p (n,) are finite."""
    n_finite = 0
    for value in p:
        n_finite += np.isfinite(value)
    return n_finite == len(p)


@kernel
def copy_values(p: Array, moments: Array, to_p: Array, to_moments: Array) -> None:
    """Copy parameters and moments; by loops, for slices would take a second to compile."""
    for i in range(len(p)):
        to_p[i] = p[i]
        for number in range(len(moments)):
            to_moments[number, i] = moments[number, i]


@kernel
def begin_epoch(rows: Order, order: Order, shuffles: bool, words: Words, place: int, work: Words) -> int:
    """Draw what the training loader draws at its start, and write the rows of the epoch to order. Return the new place
    among the generator's words."""
    _, place = draw_seed(words, place)  # a DataLoader draws one for workers
    if shuffles:
        seed, place = draw_seed(words, place)
        permute(order, seed, work)
        for i in range(len(order)):
            order[i] = rows[order[i]]
    return place


@entry
def run_epochs(
    x: Array, y: Array, weight: Array, loss: Any, scale: Array, linear: Any, widths: Any, activation: Any, update: Any,
    p: Array, moments: Array, generator: Array, steps_done: int, rates: Array,
    train_rows: Order, order: Order, batch_size: int, shuffles: bool, val_order: Order, val_batch_size: int,
    best_p: Array, best_moments: Array, best_generator: Array, lowest: float,
    losses: Array, val_losses: Array, means: Array,
) -> tuple[int, int]:  # fmt: skip
    """Run an epoch for each row of losses (n_epochs, n_batches): take a step for each batch of the training part, then
    compute the loss of each batch of the validation part; write the losses, and the means of both to means (n, 2).

    The arguments are the fields of the tuples in `arrays`: a Problem; a State, which changes; of the training part,
    whose order is used as it is if the generator is empty, and of the validation part; and another State, which gets a
    copy of the state at the end of the epoch with the lowest mean, of the validation part if there is one, below
    `lowest`. steps_done: the number of earlier steps. rates (2, 1 or n): the learning rate and the momentum, of all
    steps or of each.
    Returns the number of epochs that were run, which end with one that is not finite, and the number of the best one,
    or -1."""
    n_epochs, n_steps = losses.shape
    n_val = val_losses.shape[1]
    g, no_g = np.empty(len(p)), np.empty(0)
    work = room(widths, max(batch_size, val_batch_size), p)
    words, words_of_order = np.empty(N_WORDS, np.uint32), np.empty(N_WORDS, np.uint32)
    draws = len(generator) > 0
    place = load_words(generator, words) if draws else 0
    step, n_done, best_epoch = steps_done, 0, -1
    while n_done < n_epochs:
        epoch = n_done
        n_done += 1
        if draws:
            place = begin_epoch(train_rows, order, shuffles, words, place, words_of_order)
        for i in range(n_steps):
            losses[epoch, i] = batch_loss(
                x, y, weight, order, i, batch_size, loss, scale, linear, widths, activation, p, g, work
            )
            at = step - steps_done if rates.shape[1] > 1 else 0
            take_step(update, p, g, moments, step, rates[0, at], rates[1, at])
            step += 1
        if draws and n_val:
            _, place = draw_seed(words, place)
        for i in range(n_val):
            val_losses[epoch, i] = batch_loss(
                x, y, weight, val_order, i, val_batch_size, loss, scale, linear, widths, activation, p, no_g, work
            )
        means[epoch, 0] = mean_of(losses[epoch])
        means[epoch, 1] = mean_of(val_losses[epoch])
        monitored = means[epoch, 1] if n_val else means[epoch, 0]
        if not (np.isfinite(means[epoch, 0]) and np.isfinite(monitored) and is_finite(p)):
            break
        if monitored < lowest:
            lowest, best_epoch = monitored, epoch
            copy_values(p, moments, best_p, best_moments)
            store_words(best_generator, words, place)
    if draws:
        store_words(generator, words, place)
    return n_done, best_epoch
