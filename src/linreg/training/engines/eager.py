"""The engines `textbook` and `auto`, which compute the same bits."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

import torch

from linreg.components.losses import InTargetUnits
from linreg.data.loaders import TensorLoader, make_tensor_loaders
from linreg.training.engines.captured import CHUNK, capture_on, make_captured_train_fn
from linreg.training.engines.direct import is_mean_square, make_direct_steps_fn, make_direct_val_fn
from linreg.training.engines.layers import Split, make_needs_autograd_fn, split_model
from linreg.training.engines.lean import make_lean_train_fn, make_lean_val_fn
from linreg.training.engines.training import Batch, Engine, RunFn, Training
from linreg.training.engines.updates import plain_sgd_group
from linreg.training.loops import EpochFn, make_epoch_fn, mini_batch


def make_textbook_engine(training: Training) -> Engine:
    """Make the textbook's loop: DataLoader, autograd, the optimizer's step, and the loss read after each step."""
    device, loaders = training.device, training.loaders
    val_epoch = None if loaders.val is None else partial(mini_batch, device, loaders.val, training.val_step_fn)
    return Engine("textbook", partial(mini_batch, device, loaders.train, training.train_step_fn), val_epoch)


def make_auto_engine(training: Training) -> Engine:
    """Make the fastest engine with the textbook's bits: `direct` for linear layers trained by mse, else `lean`.

    Each epoch chooses anew, because a hook may have been registered in between."""
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    lean = make_lean_train_fn(training)
    is_direct_loss = is_mean_square(training.loss_fn) and training.clip_grad_norm is None
    split = split_model(training.model) if is_direct_loss else None
    if split is not None:
        needs_autograd = make_needs_autograd_fn([training.model, *split.layers])
        direct = _make_direct_train_fn(training, train_loader, split)

    def choose() -> RunFn:
        return lean if split is None or needs_autograd() else direct

    lean_val = make_lean_val_fn(training.model, training.val_loss_fn)
    if split is not None:
        direct_val = make_direct_val_fn(training.model, split, training.val_loss_fn)
        if val_loader is not None and training.device.type == "cpu" and not split.basis:
            val_loader.keep_batches()

    def choose_val() -> RunFn:
        is_direct = split is not None and training.device.type == "cpu" and not needs_autograd()
        return direct_val if is_direct else lean_val

    return Engine(
        "lean" if choose() is lean else "direct",
        _epoch_fn(train_loader, choose),
        None if val_loader is None else _epoch_fn(val_loader, choose_val),
    )


def _make_direct_train_fn(training: Training, loader: TensorLoader, split: Split) -> RunFn:
    """Make the function that trains without autograd.

    On a device with captures it captures and replays the steps, if they consist of linreg's own tensor operations."""
    steps, capture = make_direct_steps_fn(training, split), capture_on(training.device)
    is_own = not split.basis and training.after_step is None
    if capture is None or not is_own or not isinstance(training.reported_loss_fn, InTargetUnits | None):

        def train(batches: Iterable[Batch]) -> list[float]:
            # takes a tenth less time, but no tensor of such a step may outlive it; `_sgd` makes its buffers otherwise
            with torch.inference_mode(not split.basis and plain_sgd_group(training.optimizer) is not None):
                losses: list[float] = steps(batches).tolist()
            return losses

        return train
    # the fewest chunks of equal length that hold all whole batches of an epoch
    n_whole = max(1, len(loader.indices) // loader.batch_size)
    n_chunks = math.ceil(n_whole / min(CHUNK, loader.rows_at_once // loader.batch_size))
    return make_captured_train_fn(steps, split.layers, training.optimizer, capture, n_steps=n_whole // n_chunks)


def _epoch_fn(loader: TensorLoader, choose: Callable[[], RunFn]) -> EpochFn:
    """Make the function that runs an epoch over a loader by the function that `choose` returns at its start."""

    def begin(n_done: int) -> Callable[[int], list[float]]:
        run, batches = choose(), loader.batches(after=n_done)
        return lambda n_batches: run(islice(batches, n_batches))

    return make_epoch_fn(len(loader), begin)
