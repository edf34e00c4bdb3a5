"""Optimizers: each is built for a model's parameters. Params have PyTorch's names and defaults; lr has none."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from linreg.registry import Registry

if TYPE_CHECKING:
    from torch import nn, optim

OPTIMIZERS = Registry("optimizer", hands_over=("parameters",), makes="torch.optim.Optimizer")

Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    momentum: NonNegativeFloat = 0.0,
    dampening: NonNegativeFloat = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    nesterov: bool = False,
) -> "optim.Optimizer":
    """Stochastic gradient descent."""
    from torch import optim

    return optim.SGD(
        parameters,
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        nesterov=nesterov,
    )


@OPTIMIZERS.register("adam")
def adam(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    betas: Betas = [0.9, 0.999],  # noqa: B006  # never written to
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> "optim.Optimizer":
    """Adam: steps scaled by running moments of the gradient."""
    from torch import optim

    return optim.Adam(
        parameters, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
    )


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    betas: Betas = [0.9, 0.999],  # noqa: B006  # never written to
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 1e-2,
    amsgrad: bool = False,
) -> "optim.Optimizer":
    """Adam with decoupled weight decay."""
    from torch import optim

    return optim.AdamW(
        parameters, lr=lr, betas=(betas[0], betas[1]), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad
    )


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    momentum: NonNegativeFloat = 0.0,
    centered: bool = False,
) -> "optim.Optimizer":
    """RMSprop: steps scaled by a running mean of squared gradients."""
    from torch import optim

    return optim.RMSprop(
        parameters,
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        centered=centered,
    )


@OPTIMIZERS.register("adagrad")
def adagrad(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    lr_decay: NonNegativeFloat = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0,
    eps: PositiveFloat = 1e-10,
) -> "optim.Optimizer":
    """Adagrad: steps scaled by the sum of squared gradients."""
    from torch import optim

    return optim.Adagrad(
        parameters,
        lr=lr,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
