"""The textbook's training and validation step, as functions that make the function called for each mini-batch.

All engines take these steps. `engine: textbook` calls them as they are, `engine: auto` with less overhead.
"""

from collections.abc import Callable

import torch
from torch import nn, optim

StepFn = Callable[..., float]  # of x (N, n_features), y (N, n_targets) and, with weighted points, weight (N, 1)
LossFn = Callable[..., torch.Tensor]  # of yhat and y (N, n_targets) and, with weighted points, weight (N, 1)


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

    clip_grad_norm: scale a longer gradient down to this 2-norm, taken over all parameters. after_step: called at the
    end of each step, such as a scheduler's step. reported_loss_fn: computes the returned loss, if that differs from the
    minimised one.
    """

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    take_step = make_gradient_step_fn(
        model, loss_fn, update, clip_grad_norm=clip_grad_norm, after_step=after_step, reported_loss_fn=reported_loss_fn
    )

    def perform_train_step_fn(x: torch.Tensor, y: torch.Tensor, *weight: torch.Tensor) -> float:
        model.train()
        return take_step(x, y, *weight).item()

    return perform_train_step_fn


def make_gradient_step_fn(
    model: nn.Module,
    loss_fn: LossFn,
    update: Callable[[], None],
    *,
    clip_grad_norm: float | None,
    after_step: Callable[[], None] | None,
    reported_loss_fn: LossFn | None,
) -> Callable[..., torch.Tensor]:
    """Make the function that takes one step of gradient descent and returns its loss as a tensor without a graph.

    update: changes the parameters by their gradients and clears these. The rest is as in `make_train_step_fn`. On a GPU
    the returned tensor may still be in computation.
    """

    parameters = list(model.parameters())  # once: walking the modules at each step takes a tenth of its time

    def take_step(x: torch.Tensor, y: torch.Tensor, *weight: torch.Tensor) -> torch.Tensor:
        # Step 1: predictions - forward pass
        yhat = model(x)
        # Step 2: the loss
        loss = loss_fn(yhat, y, *weight)
        # Step 3: gradients of the loss with respect to every parameter
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
        # Step 4: new parameters, from the gradients and the learning rate
        update()
        if after_step is not None:
            after_step()
        return loss.detach() if reported_loss_fn is None else reported_loss_fn(yhat.detach(), y, *weight)

    return take_step


def make_val_step_fn(model: nn.Module, loss_fn: LossFn) -> StepFn:
    """Make the function that returns the loss of x (N, n_features), y (N, n_targets) in evaluation mode."""

    def perform_val_step_fn(x: torch.Tensor, y: torch.Tensor, *weight: torch.Tensor) -> float:
        model.eval()

        yhat = model(x)
        loss = loss_fn(yhat, y, *weight)
        # no gradients, no new parameters: validation changes nothing
        return loss.item()

    return perform_val_step_fn
