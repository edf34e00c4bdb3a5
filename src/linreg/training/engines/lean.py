"""The textbook's steps with less overhead: the same operations on the same numbers, hence the same bits.

`auto` uses them wherever it needs autograd. The overhead of a step goes: modes are set once per call, losses are read
once per call, gradients are dropped instead of zeroed, and `updates` calls the optimizer's update without its wrappers.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from linreg.training.engines.training import Batch, RunFn, Training
from linreg.training.engines.updates import make_update_fn
from linreg.training.steps import LossFn, make_gradient_step_fn


def make_lean_train_fn(training: Training) -> RunFn:
    """Make the function that takes the textbook's training step for each mini-batch."""
    optimizer = training.optimizer
    update_parameters = make_update_fn(optimizer)

    def update() -> None:
        with torch.no_grad():
            update_parameters()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    take_step = make_gradient_step_fn(training.model, training.loss_fn, update, **training.step_options)

    def train(batches: Iterable[Batch]) -> list[float]:
        training.model.train()
        return _to_floats([take_step(*batch) for batch in batches])

    return train


def make_lean_val_fn(model: nn.Module, loss_fn: LossFn) -> RunFn:
    """Make the function that takes the textbook's validation step for each mini-batch."""

    def validate(batches: Iterable[Batch]) -> list[float]:
        model.eval()
        with torch.no_grad():
            return _to_floats([loss_fn(model(x), y, *weight) for x, y, *weight in batches])

    return validate


def _to_floats(losses: Sequence[torch.Tensor]) -> list[float]:
    """Read all losses at once: reading one waits for the GPU."""
    floats: list[float] = stack_losses(losses).tolist()
    return floats


def stack_losses(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack losses, tensors of one number each, to a tensor (n,), which is empty for no losses."""
    return torch.stack(list(losses)) if losses else torch.empty(0)
