"""Models: each builder takes the numbers of features and targets. A model maps x (N, n_features) to yhat (N,
n_targets)."""

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from linreg.registry import Registry
from linreg.system.memory import refuse_beyond_memory

if TYPE_CHECKING:
    from torch import nn

MODELS = Registry("model", arguments=("n_features", "n_targets"), returns="torch.nn.Module")

BYTES_PER_PARAMETER = 8  # a float32, and its gradient


def _trainable(widths: list[int]) -> list[int]:
    """Raise a ValueError for layers that do not fit in memory with their gradients."""
    refuse_beyond_memory(BYTES_PER_PARAMETER * sum(width * (before + 1) for before, width in pairwise(widths)))
    return widths


Width = Annotated[int, Field(gt=0, le=10**6)]


@MODELS.register("linear")
def linear(n_features: int, n_targets: int, *, bias: bool = True) -> "nn.Module":
    """A straight line, or plane: yhat = x W' + b."""
    from torch import nn

    _trainable([n_features, n_targets])
    return nn.Sequential(nn.Linear(n_features, n_targets, bias=bias))


@MODELS.register("mlp")
def mlp(
    n_features: int,
    n_targets: int,
    *,
    hidden: Annotated[list[Width], Field(min_length=1, max_length=1000), AfterValidator(_trainable)],
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"] = "relu",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> "nn.Module":
    """A multilayer perceptron: hidden layers of the given widths, an activation and dropout after each."""
    from torch import nn

    activations: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "elu": nn.ELU,
        "leaky_relu": nn.LeakyReLU,
    }
    _trainable([n_features, *hidden, n_targets])
    layers: list[nn.Module] = []
    width = n_features
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), activations[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = next_width
    return nn.Sequential(*layers, nn.Linear(width, n_targets))


@MODELS.register("polynomial")
def polynomial(
    n_features: int, n_targets: int, *, degree: Annotated[int, Field(gt=0, le=1000)], bias: bool = True
) -> "nn.Module":
    """A polynomial in each feature: linear in x, x^2, ..., x^degree. For products, see the transform interaction."""
    import torch
    from torch import nn

    class Powers(nn.Module):
        """Maps x (N, n_features) to its powers (N, n_features * degree), the first powers first."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x**power for power in range(1, degree + 1)], dim=1)

        def column_names(self, names: list[str]) -> list[str]:
            """Return the names of the powers of columns."""
            return [f"{name}^{power}" if power > 1 else name for power in range(1, degree + 1) for name in names]

    _trainable([n_features * degree, n_targets])
    return nn.Sequential(Powers(), nn.Linear(n_features * degree, n_targets, bias=bias))
