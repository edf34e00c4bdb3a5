"""The textbook's steps without autograd, for linear layers with activations between, trained by mse.

`auto` uses them where it can, for they take less time than `lean`. They call the operations that autograd would call,
on the same numbers, hence the same bits.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from linreg.training.engines.layers import Split, passes_of
from linreg.training.engines.lean import stack_losses
from linreg.training.engines.training import Batch, RunFn, StepsFn, Training
from linreg.training.engines.updates import make_update_fn
from linreg.training.steps import LossFn

SPLIT_AT = 2**15  # elements; torch divides a sum over this many among its threads


def make_direct_steps_fn(training: Training, split: Split) -> StepsFn:
    """Make the function that trains layers(basis(x)) by the mean squared error, one step for each mini-batch.

    The gradient of the loss with respect to yhat (N, n_targets) is 2 (yhat - y) / (N n_targets). The backward passes
    in `layers` compute the other gradients from it.
    """
    basis, layers = split
    after_step, reported_loss_fn = training.after_step, training.reported_loss_fn
    forwards, backwards = zip(*map(passes_of, layers), strict=True)
    backwards_by_number = list(enumerate(backwards))[::-1]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    update = make_update_fn(training.optimizer)
    factors: dict[int, torch.Tensor] = {}  # 2 / (N n_targets) as tensors: torch converts a number at each step

    def steps(batches: Iterable[Batch]) -> torch.Tensor:
        for module in basis:
            module.train()
        errors, reported = [], []
        with torch.no_grad():
            for x, y in batches:
                for module in basis:
                    x = module(x)  # noqa: PLW2901  # the input of the layers
                # Step 1: predictions - forward pass
                values = [x]
                for forward in forwards:
                    values.append(forward(values[-1]))
                yhat = values[-1]
                # Step 2: the errors; their mean square, the loss, is computed for many batches at once
                error = yhat - y
                # Step 3: gradients of the loss with respect to every parameter
                n = error.numel()
                if n not in factors:
                    factors[n] = parameters[0].new_tensor(2 / n)
                grad = error * factors[n]
                for number, backward in backwards_by_number:
                    grad = backward(grad, values[number], values[number + 1], number == 0)
                # Step 4: new parameters, from the gradients and the learning rate
                update()
                if after_step is not None:
                    after_step()
                if reported_loss_fn is None:
                    errors.append(error)
                else:
                    reported.append(reported_loss_fn(yhat, y))
            for parameter in parameters:
                parameter.grad = None
            return mean_squares(errors) if reported_loss_fn is None else stack_losses(reported)

    return steps


def make_direct_val_fn(model: nn.Module, split: Split, loss_fn: LossFn) -> RunFn:
    """Make the function that validates mini-batches with the textbook's bits, by direct calls of the layers."""
    passes: list[Callable[[torch.Tensor], torch.Tensor]] = [
        *split.basis,
        *(passes_of(layer)[0] for layer in split.layers),
    ]

    def validate(batches: Iterable[Batch]) -> list[float]:
        if model.training:
            model.eval()
        for module in split.basis:
            module.eval()
        errors, losses = [], []
        # a basis may keep a tensor, which inference mode would spoil for training
        with torch.no_grad(), torch.inference_mode(not split.basis):
            for x, y in batches:
                for pass_forward in passes:
                    x = pass_forward(x)  # noqa: PLW2901  # the input of the next layer
                if is_mean_square(loss_fn):
                    errors.append(x - y)
                else:
                    losses.append(loss_fn(x, y))
            found: list[float] = (stack_losses(losses) if losses else mean_squares(errors)).tolist()
        return found

    return validate


def is_mean_square(loss_fn: Any) -> bool:
    """Return whether a loss function is the one that `make_direct_steps_fn` minimises."""
    return type(loss_fn) is nn.MSELoss and loss_fn.reduction == "mean"


def mean_squares(errors: list[torch.Tensor]) -> torch.Tensor:
    """Return the mean square of each batch's errors (N, n_targets), bit for bit as mse_loss computes it.

    N must be the same for all batches but the last."""
    if not errors or errors[0].numel() >= SPLIT_AT or errors[0].device.type != "cpu":
        # one by one: torch would sum many of these in another order
        return stack_losses([error.square().mean() for error in errors])
    n_alike = len(errors) - (len(errors[-1]) != len(errors[0]))
    squares = torch.stack(errors[:n_alike]).square_().flatten(1)
    losses = squares.sum(1).div_(squares.shape[1])  # equals mean, in half the time
    return losses if n_alike == len(errors) else torch.cat([losses, errors[-1].square().mean()[None]])
