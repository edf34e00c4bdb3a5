"""Loss functions: each takes yhat and y, both (N, n_targets), and gives their mean loss."""

from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from linreg.registry import Registry

if TYPE_CHECKING:
    from torch import nn

LOSSES = Registry("loss", hands_over=(), makes="collections.abc.Callable")


@LOSSES.register("mse")
def mse() -> "nn.Module":
    """Mean squared error."""
    from torch import nn

    return nn.MSELoss(reduction="mean")


@LOSSES.register("mae")
def mae() -> "nn.Module":
    """Mean absolute error."""
    from torch import nn

    return nn.L1Loss(reduction="mean")


@LOSSES.register("huber")
def huber(*, delta: PositiveFloat = 1.0) -> "nn.Module":
    """Huber's loss: squared up to an error of delta, beyond it linear."""
    from torch import nn

    return nn.HuberLoss(reduction="mean", delta=delta)
