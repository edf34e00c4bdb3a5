"""The engines that have the textbook's bits."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

import torch
from torch import nn

from linreg.components.losses import InTargetUnits
from linreg.data.loaders import TensorLoader, make_tensor_loaders
from linreg.training.engines.captured import CHUNK, capture_on, make_captured_train_fn
from linreg.training.engines.lean import (
    Batch,
    RunFn,
    is_mean_square,
    keeps_nothing,
    layers_of,
    make_direct_steps_fn,
    make_lean_train_fn,
    make_lean_val_fn,
    make_watched_fn,
)
from linreg.training.engines.training import Engine, Training
from linreg.training.loops import EpochFn, make_epoch_fn, mini_batch


def make_textbook_engine(training: Training) -> Engine:
    """Make the textbook's loop: DataLoader, autograd, the optimizer's step, and a look at the loss after each."""
    device, loaders = training.device, training.loaders
    val_epoch = None if loaders.val is None else partial(mini_batch, device, loaders.val, training.val_step_fn)
    return Engine("textbook", partial(mini_batch, device, loaders.train, training.train_step_fn), val_epoch)


def make_auto_engine(training: Training) -> Engine:
    """Make what has the textbook's bits at the least cost: `direct` for linear layers trained by mse, else `lean`.
    Which it is is looked at anew in each epoch, for a hook may have been registered meanwhile."""
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    lean = make_lean_train_fn(
        training.model,
        training.loss_fn,
        training.optimizer,
        clip_grad_norm=training.clip_grad_norm,
        after_step=training.after_step,
        reported_loss_fn=training.reported_loss_fn,
    )
    found = layers_of(training.model) if is_mean_square(training.loss_fn) and training.clip_grad_norm is None else None
    if found is not None:
        watched = make_watched_fn([training.model, *found[1]])
        direct = _make_direct_train_fn(training, train_loader, *found)

    def choose() -> RunFn:
        return lean if found is None or watched() else direct

    validate = make_lean_val_fn(training.model, training.val_loss_fn)
    return Engine(
        "lean" if choose() is lean else "direct",
        _epoch_fn(train_loader, choose),
        None if val_loader is None else _epoch_fn(val_loader, lambda: validate),
    )


def _make_direct_train_fn(
    training: Training, loader: TensorLoader, basis: Sequence[nn.Module], layers: Sequence[nn.Module]
) -> RunFn:
    """Make the function that trains without autograd. Where that is of use its steps are captured and replayed: those
    that are operations on tensors alone, of linreg's own."""
    after_step, reported = training.after_step, training.reported_loss_fn
    steps = make_direct_steps_fn(basis, layers, training.optimizer, after_step=after_step, reported_loss_fn=reported)
    capture = capture_on(training.device)
    if capture is None or basis or after_step is not None or not isinstance(reported, InTargetUnits | None):

        def train(batches: Iterable[Batch]) -> list[float]:
            with torch.inference_mode(not basis and keeps_nothing(training.optimizer)):  # a tenth less time
                losses: list[float] = steps(batches).tolist()
            return losses

        return train
    # the whole batches of an epoch in as few chunks as may be, all of a length
    n_whole = max(1, len(loader.indices) // loader.batch_size)
    n_chunks = math.ceil(n_whole / min(CHUNK, loader.rows_at_once // loader.batch_size))
    return make_captured_train_fn(steps, layers, training.optimizer, capture, n_steps=n_whole // n_chunks)


def _epoch_fn(loader: TensorLoader, choose: Callable[[], RunFn]) -> EpochFn:
    def begin(after: int) -> Callable[[int], list[float]]:
        run, batches = choose(), loader.batches(after=after)
        return lambda n_batches: run(islice(batches, n_batches))

    return make_epoch_fn(len(loader), begin)
