"""Probes: choose the fastest way to compute an operation for all models with the bits of one model alone."""

from collections.abc import Callable, Mapping

import torch

ELEMENTS = 2**12  # to compare; a wrong way differs in one of twenty or more
MOST_DRAWS = 100

Ways = Mapping[str, Callable[..., torch.Tensor]]


class Unequal(Exception):  # noqa: N818  # not an error: the models are then trained one after another
    """No way to compute an operation for all models has the bits of one model alone."""


def choose(
    ways: Ways,
    alone: Callable[..., torch.Tensor],
    draw: Callable[[], tuple[torch.Tensor, ...]],
) -> tuple[str, Callable[..., torch.Tensor]]:
    """Return the first way, with its name, that has the bits of `alone` for every model, on random operands.

    ways: functions of operands whose first dimension is the models (n_models, ...). alone: the same for one model,
    called with copies of its operands, which are aligned in memory as those of a single run. draw: draws operands with
    the memory layout of the training. Raises Unequal if every way differs.
    """
    n_compared = n_draws = 0
    left = list(ways.items())
    while left and n_compared < ELEMENTS and n_draws < MOST_DRAWS:
        operands = draw()
        expected = torch.stack(
            [alone(*(operand.clone() for operand in of_model)) for of_model in zip(*operands, strict=True)]
        )
        while left and not torch.equal(left[0][1](*operands), expected):
            del left[0]
            n_compared = n_draws = 0
        n_compared, n_draws = n_compared + expected.numel(), n_draws + 1
    if not left:
        raise Unequal
    return left[0]
