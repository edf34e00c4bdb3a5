"""Optimizers: each builder takes a model's parameters. Params have PyTorch's names and defaults; lr has none."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat

from linreg.registry import Registry

if TYPE_CHECKING:
    from torch import nn, optim

OPTIMIZERS = Registry("optimizer", arguments=("parameters",), returns="torch.optim.Optimizer")

Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]


def _construct(name: str, parameters: "Iterable[nn.Parameter]", **params: Any) -> "optim.Optimizer":
    """Construct the optimizer of torch with this name. torch wants tuples, a spec has lists."""
    from torch import optim

    params = {key: tuple(value) if isinstance(value, list) else value for key, value in params.items()}
    optimizer: optim.Optimizer = getattr(optim, name)(parameters, **params)
    return optimizer


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
    return _construct("SGD", **locals())


@OPTIMIZERS.register("adam")
def adam(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    betas: Betas = [0.9, 0.999],  # noqa: B006  # nothing changes it
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> "optim.Optimizer":
    """Adam: steps scaled by running moments of the gradient."""
    return _construct("Adam", **locals())


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: "Iterable[nn.Parameter]",
    *,
    lr: PositiveFloat,
    betas: Betas = [0.9, 0.999],  # noqa: B006  # nothing changes it
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 1e-2,
    amsgrad: bool = False,
) -> "optim.Optimizer":
    """Adam with decoupled weight decay."""
    return _construct("AdamW", **locals())


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
    return _construct("RMSprop", **locals())


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
    return _construct("Adagrad", **locals())
