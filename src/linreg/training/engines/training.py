"""What an engine is made of, and what it is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn, optim

from linreg.data.loaders import Loaders
from linreg.training.loops import EpochFn
from linreg.training.steps import LossFn, StepFn, make_train_step_fn, make_val_step_fn


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
