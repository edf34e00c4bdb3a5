"""The textbook's step functions: functions that make the function called for each mini-batch.

`engine: auto` takes the same steps with less around them; `engines.lean` has them.
"""

from collections.abc import Callable

import torch
from torch import nn, optim

StepFn = Callable[..., float]  # of x (N, n_features), y (N, n_targets) and, where points are weighted, weight (N, 1)
LossFn = Callable[..., torch.Tensor]  # of yhat and y (N, n_targets) and, where points are weighted, weight (N, 1)


def make_train_step_fn(
    model: nn.Module,
    loss_fn: LossFn,
    optimizer: optim.Optimizer,
    *,
    clip_grad_norm: float | None = None,
    after_step: Callable[[], None] | None = None,
    reported_loss_fn: LossFn | None = None,
) -> StepFn:
    """Make the function that takes one training step on x (N, n_features), y (N, n_targets) and returns its loss.

    clip_grad_norm: the largest 2-norm of the whole gradient, longer ones are scaled down to it; after_step: called
    last, as a scheduler that moves at every step has to be; reported_loss_fn: gives the loss that is returned, where
    that is not the one that is minimised.
    """

    def perform_train_step_fn(x: torch.Tensor, y: torch.Tensor, *weight: torch.Tensor) -> float:
        model.train()

        # Step 1: predictions - forward pass
        yhat = model(x)
        # Step 2: the loss
        loss = loss_fn(yhat, y, *weight)
        # Step 3: gradients of the loss with respect to every parameter
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
        # Step 4: new parameters, from the gradients and the learning rate
        optimizer.step()
        optimizer.zero_grad()
        if after_step is not None:
            after_step()

        if reported_loss_fn is not None:
            loss = reported_loss_fn(yhat.detach(), y, *weight)
        return loss.item()

    return perform_train_step_fn


def make_val_step_fn(model: nn.Module, loss_fn: LossFn) -> StepFn:
    """Make the function that returns the loss of x (N, n_features), y (N, n_targets) in evaluation mode."""

    def perform_val_step_fn(x: torch.Tensor, y: torch.Tensor, *weight: torch.Tensor) -> float:
        model.eval()

        yhat = model(x)
        loss = loss_fn(yhat, y, *weight)
        # no gradients, no new parameters: validation only looks
        return loss.item()

    return perform_val_step_fn
