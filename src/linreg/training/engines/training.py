"""The input and output types of all engines: `Training` goes in, an `Engine` comes out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn, optim

from linreg.data.loaders import Loaders
from linreg.training.loops import EpochFn, GroupFn
from linreg.training.steps import LossFn, StepFn, make_train_step_fn, make_val_step_fn

Batch = tuple[torch.Tensor, ...]
RunFn = Callable[[Iterable[Batch]], list[float]]  # runs mini-batches, returns their losses
StepsFn = Callable[[Iterable[Batch]], torch.Tensor]  # the same as a tensor (n,), which may still be in computation


@dataclass(frozen=True)
class Training:
    """A model with its data, loss function and optimizer. The other fields are as in `make_train_step_fn`;
    reported_loss_fn applies to validation too."""

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
        """The loss function of the validation part."""
        return self.loss_fn if self.reported_loss_fn is None else self.reported_loss_fn

    @property
    def step_options(self) -> dict[str, Any]:
        """The keyword arguments of `make_train_step_fn`."""
        return {name: getattr(self, name) for name in ("clip_grad_norm", "after_step", "reported_loss_fn")}

    @cached_property
    def train_step_fn(self) -> StepFn:
        """The textbook's training step."""
        return make_train_step_fn(self.model, self.loss_fn, self.optimizer, **self.step_options)

    @cached_property
    def val_step_fn(self) -> StepFn:
        """The textbook's validation step."""
        return make_val_step_fn(self.model, self.val_loss_fn)


@dataclass(frozen=True)
class Engine:
    """An engine that is ready to run: its name, and functions that run a training and a validation epoch. group: the
    function that runs many short epochs in one call, if the engine has one."""

    name: str
    train_epoch: EpochFn
    val_epoch: EpochFn | None
    group: GroupFn | None = None
