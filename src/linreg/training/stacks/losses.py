"""The losses of a stack: the loss of each model on a mini-batch, with the bits of a single run."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from linreg.components.losses import InTargetUnits
from linreg.training.engines.direct import mean_squares
from linreg.training.engines.training import Training
from linreg.training.stacks.probes import choose
from linreg.training.stacks.products import each

LossesFn = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of yhat and y (n_models, N, n_targets): (n_models,)


def make_losses_fn(
    trainings: Sequence[Training], shape: tuple[int, ...], *, is_short: bool, looped: set[str]
) -> LossesFn:
    """Make the function that returns the reported loss of each model on a mini-batch.

    shape: of yhat (n_models, N, n_targets); is_short: whether the batch is the last one, of fewer rows. looped: as in
    `layers.make_passes`. Raises Unequal.
    """
    dtype = next(trainings[0].model.parameters()).dtype
    reported = [training.reported_loss_fn for training in trainings]
    units = [loss_fn for loss_fn in reported if isinstance(loss_fn, InTargetUnits)]
    alone = _alone_in_units if units else _alone_of_short_batch if is_short else _alone
    own = tuple(
        torch.stack(values).unsqueeze(1) for values in zip(*((one.scale, one.mean) for one in units), strict=True)
    )
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[torch.Tensor, ...]:
        yhat, y = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(2))
        return yhat, y, *own

    name, way = choose({"sum": _by_sum, "mean": _by_mean, "copies": each(alone)}, alone, draw)
    if name == "copies":
        looped.add(f"loss, batches of {shape[1]}")
    return lambda yhat, y: way(yhat, y, *own)


def _alone(yhat: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return mean_squares([yhat - y])[0]


def _alone_of_short_batch(yhat: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (yhat - y).square().mean()  # as in `mean_squares`


def _alone_in_units(yhat: torch.Tensor, y: torch.Tensor, scale: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return InTargetUnits(nn.MSELoss(), scale, mean)(yhat, y)


def _squares(yhat: torch.Tensor, y: torch.Tensor, *units: torch.Tensor) -> torch.Tensor:
    """Return the squared errors (n_models, N * n_targets). units: scale and mean, both (n_models, 1, n_targets)."""
    if units:
        scale, mean = units
        yhat, y = (values.to(scale.dtype) * scale + mean for values in (yhat, y))
    return (yhat - y).square_().flatten(1)


def _by_sum(*operands: torch.Tensor) -> torch.Tensor:
    squares = _squares(*operands)
    return squares.sum(1).div_(squares.shape[1])


def _by_mean(*operands: torch.Tensor) -> torch.Tensor:
    return _squares(*operands).mean(1)
