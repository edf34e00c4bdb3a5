"""Loss functions: each takes yhat and y, both (N, n_targets), and returns their mean loss."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import PositiveFloat

from linreg.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

LOSSES = Registry("loss", arguments=(), returns="collections.abc.Callable")


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


@dataclass(frozen=True)
class Weighted:
    """The loss of yhat, y (N, n_targets) and weight (N, 1): the mean of each point's loss times its weight. by_point:
    the loss without reduction."""

    by_point: Any

    def __call__(self, yhat: "torch.Tensor", y: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
        """Return the loss of a batch."""
        loss: torch.Tensor = self.by_point(yhat, y)
        return (weight * loss).mean()


@dataclass(frozen=True)
class InTargetUnits:
    """A loss in the units of the targets, for yhat and y on the scale of the network. scale, mean: (n_targets,)."""

    loss_fn: Callable[..., "torch.Tensor"]
    scale: "torch.Tensor"
    mean: "torch.Tensor"

    def __call__(self, yhat: "torch.Tensor", y: "torch.Tensor", *weight: "torch.Tensor") -> "torch.Tensor":
        """Return the loss of a batch."""
        return self.loss_fn(self.restored(yhat), self.restored(y), *weight)

    def restored(self, values: "torch.Tensor") -> "torch.Tensor":
        """Return values (N, n_targets) in the units of the targets."""
        return values.to(self.scale.dtype) * self.scale + self.mean


@dataclass(frozen=True)
class InvertedTarget:
    """A loss in the units of transformed targets. in_units: the loss in the units of the transform; invert: its
    inverse."""

    in_units: InTargetUnits
    invert: Callable[["torch.Tensor"], "torch.Tensor"]

    def __call__(self, yhat: "torch.Tensor", y: "torch.Tensor", *weight: "torch.Tensor") -> "torch.Tensor":
        """Return the loss of a batch."""
        restored = (self.invert(self.in_units.restored(values)) for values in (yhat, y))
        return self.in_units.loss_fn(*restored, *weight)


def weighted(loss_fn: Any) -> Weighted:
    """Return a loss with weights of points. Raises ValueError unless the loss is a torch module with a `reduction`."""
    if not hasattr(loss_fn, "reduction"):
        raise ValueError("cannot weight points: it is not a module with a reduction; remove sample_weight")
    by_point = copy.copy(loss_fn)
    by_point.reduction = "none"
    return Weighted(by_point)
