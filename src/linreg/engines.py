"""Engines: how an epoch is run. `textbook` is the text's loop; `auto` gives the same bits in a fraction of the time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

import torch
from torch import nn, optim

from linreg.lean import RunFn, linear_layer, make_direct_train_fn, make_lean_train_fn, make_lean_val_fn
from linreg.loaders import Loaders, TensorLoader, make_tensor_loaders
from linreg.loops import EpochFn, make_epoch_fn, mini_batch
from linreg.steps import LossFn, StepFn, make_train_step_fn, make_val_step_fn


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how; as the arguments of `make_train_step_fn` have it. reported_loss_fn: gives the
    loss that is told, in training and validation."""

    device: torch.device
    loaders: Loaders
    model: nn.Module
    loss_fn: LossFn
    optimizer: optim.Optimizer
    clip_grad_norm: float | None = None
    after_step: Callable[[], None] | None = None
    reported_loss_fn: LossFn | None = None

    @property
    def val_loss_fn(self) -> LossFn:
        """The loss of the validation part."""
        return self.loss_fn if self.reported_loss_fn is None else self.reported_loss_fn

    @cached_property
    def train_step_fn(self) -> StepFn:
        """The textbook's training step."""
        return make_train_step_fn(
            self.model,
            self.loss_fn,
            self.optimizer,
            clip_grad_norm=self.clip_grad_norm,
            after_step=self.after_step,
            reported_loss_fn=self.reported_loss_fn,
        )

    @cached_property
    def val_step_fn(self) -> StepFn:
        """The textbook's validation step."""
        return make_val_step_fn(self.model, self.val_loss_fn)


@dataclass(frozen=True)
class Engine:
    """An engine, ready to run: its name, and what runs an epoch over the training and the validation part."""

    name: str
    train_epoch: EpochFn
    val_epoch: EpochFn | None


def textbook(training: Training) -> Engine:
    """The textbook's loop: DataLoader, autograd, the optimizer's step, and a look at the loss after each."""
    device, loaders = training.device, training.loaders
    val_epoch = None if loaders.val is None else partial(mini_batch, device, loaders.val, training.val_step_fn)
    return Engine("textbook", partial(mini_batch, device, loaders.train, training.train_step_fn), val_epoch)


def auto(training: Training) -> Engine:
    """The textbook's bits at the least cost: `direct` for one linear layer trained by mse, else `lean`."""
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    found = linear_layer(training.model, training.loss_fn) if training.clip_grad_norm is None else None
    if found is not None:
        name = "direct"
        train = make_direct_train_fn(
            *found,
            training.optimizer,
            after_step=training.after_step,
            reported_loss_fn=training.reported_loss_fn,
        )
    else:
        name = "lean"
        train = make_lean_train_fn(
            training.model,
            training.loss_fn,
            training.optimizer,
            clip_grad_norm=training.clip_grad_norm,
            after_step=training.after_step,
            reported_loss_fn=training.reported_loss_fn,
        )
    validate = make_lean_val_fn(training.model, training.val_loss_fn)
    return Engine(name, _epoch_fn(train_loader, train), None if val_loader is None else _epoch_fn(val_loader, validate))


def _epoch_fn(loader: TensorLoader, run: RunFn) -> EpochFn:
    def begin(after: int) -> Callable[[int], list[float]]:
        batches = loader.batches(loader.order(after=after))
        return lambda n_batches: run(islice(batches, n_batches))

    return make_epoch_fn(len(loader), begin)


# By the name that a spec gives it.
ENGINES: dict[str, Callable[[Training], Engine]] = {"auto": auto, "textbook": textbook}
