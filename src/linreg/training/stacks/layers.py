"""The forward and backward passes of the layers of a stack, for mini-batches of one size.

Whether one product for all models has the bits of each model alone depends on the shape and on the library of the
products, so a probe decides for each of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from linreg.training.engines.layers import passes_of
from linreg.training.stacks import products
from linreg.training.stacks.flat import Layout
from linreg.training.stacks.probes import choose
from linreg.training.stacks.products import each

VECTORS = 128  # bytes that a loop over elements takes at once; it may compute the rest by another function
SPLIT_AT = 2**15  # elements; torch divides more of them among its threads
ONE_BY_ONE = ("strided", "loop", "copies", "number")  # ways that compute one model after another

Forward = Callable[[torch.Tensor], torch.Tensor]
Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor]  # as in `engines.layers`
Alone = Callable[..., torch.Tensor]
Draw = Callable[[], tuple[torch.Tensor, ...]]


def make_passes(
    layers: Sequence[nn.Module], layout: Layout, rows: torch.Tensor, grads: torch.Tensor, n: int, looped: set[str]
) -> tuple[list[Forward], list[Backward]]:
    """Make the passes for mini-batches of n rows, from the layers of one of the models.

    rows, grads: the parameters and their gradients (n_models, layout.width), which the passes read and write. looped:
    receives the names of the operations that are computed for one model after another. Raises Unequal.
    """
    forwards: list[Forward] = []
    backwards: list[Backward] = []
    position = width = 0
    for number, layer in enumerate(layers):
        names: set[str] = set()
        if isinstance(layer, nn.Linear):
            places = slice(position, position := position + len(list(layer.parameters())))
            product = _Product(layer, layout, places, rows, grads, n, names)
            forward, backward = product.forward(), product.backward(is_first=number == 0)
            width = layer.out_features
        else:
            forward, backward = _activation(layer, rows.new_empty((len(rows), n, width)), names)
        looped |= {f"{type(layer).__name__} {number}, batches of {n}: {name}" for name in names}
        forwards.append(forward)
        backwards.append(backward)
    return forwards, backwards


class _Product:
    """A linear layer. It draws operands with the memory layout of the stack, and chooses a way for each product."""

    def __init__(
        self,
        layer: nn.Linear,
        layout: Layout,
        places: slice,
        rows: torch.Tensor,
        grads: torch.Tensor,
        n: int,
        looped: set[str],
    ) -> None:
        self.layout, self.places, self.rows, self.looped = layout, places, rows, looped
        self.x_shape, self.grad_shape = ((len(rows), n, size) for size in (layer.in_features, layer.out_features))
        self.parameters, self.grads = self._views(rows), self._views(grads)
        self.generator = torch.Generator().manual_seed(0)

    def _views(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return self.layout.views(rows)[self.places]

    def _random(self, shape: Sequence[int]) -> torch.Tensor:
        return torch.randn(shape, dtype=self.rows.dtype, generator=self.generator)

    def _scratch(self) -> list[torch.Tensor]:
        """Return random parameters in memory like that of the stack."""
        return self._views(self._random(self.rows.shape))

    def _choose(self, what: str, ways: Mapping[str, Callable[..., torch.Tensor]], alone: Alone, draw: Draw) -> str:
        name, _ = choose(ways, alone, draw)
        if name in ONE_BY_ONE:
            self.looped.add(what)
        return name

    def forward(self) -> Forward:
        """Return the forward pass."""
        table = products.FORWARD
        ways = {name: lambda x, *own, make=make: make(*own)(x) for name, make in table.items()}
        draw = lambda: (self._random(self.x_shape), *self._scratch())  # noqa: E731  # short
        return table[self._choose("forward", ways, products.forward_alone, draw)](*self.parameters)

    def backward(self, *, is_first: bool) -> Backward:
        """Return the backward pass."""
        weight_grad, bias_grad = self._weight_grad(), self._bias_grad()
        input_grad = None if is_first else self._input_grad()

        def backward(grad: torch.Tensor, x: torch.Tensor, yhat: torch.Tensor, is_first: bool) -> torch.Tensor:
            weight_grad(grad, x)
            if bias_grad is not None:
                bias_grad(grad)
            return grad if input_grad is None else input_grad(grad)

        return backward

    def _weight_grad(self) -> products.Product2:
        table, scratch = products.WEIGHT_GRAD, self._scratch()[0]
        ways = {name: make(scratch) for name, make in table.items()}
        draw = lambda: (self._random(self.grad_shape), self._random(self.x_shape))  # noqa: E731  # short
        return table[self._choose("gradient of the weights", ways, products.weight_grad_alone, draw)](self.grads[0])

    def _bias_grad(self) -> products.Product | None:
        if len(self.grads) == 1:
            return None
        table, scratch = products.BIAS_GRAD, self._scratch()[1]
        ways = {name: make(scratch) for name, make in table.items()}
        draw = lambda: (self._random(self.grad_shape),)  # noqa: E731  # short
        return table[self._choose("gradient of the bias", ways, products.bias_grad_alone, draw)](self.grads[1])

    def _input_grad(self) -> products.Product:
        is_number = self.x_shape[1] * self.x_shape[2] == 1
        alone = products.number_grad_alone if is_number else products.input_grad_alone
        table = products.INPUT_GRAD
        ways = {name: lambda grad, weight, make=make: make(weight)(grad) for name, make in table.items()}
        draw = lambda: (self._random(self.grad_shape), self._scratch()[0])  # noqa: E731  # short
        return table[self._choose("gradient of the input", ways, alone, draw)](self.parameters[0])


def _activation(layer: nn.Module, like: torch.Tensor, looped: set[str]) -> tuple[Forward, Backward]:
    """Return the passes of an activation. like: a tensor of its values (n_models, N, columns)."""
    forward, backward = passes_of(layer)
    n_bytes, is_linear = like[0].numel() * like.element_size(), isinstance(layer, nn.ReLU | nn.LeakyReLU)
    is_whole = n_bytes % VECTORS == 0 and (torch.get_num_threads() == 1 or like.numel() < SPLIT_AT)
    generator = torch.Generator().manual_seed(0)

    def backward_alone(grad: torch.Tensor, x: torch.Tensor, yhat: torch.Tensor) -> torch.Tensor:
        return backward(grad, x, yhat, False)

    def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, grad = (torch.randn(like.shape, dtype=like.dtype, generator=generator) for _ in range(2))
        return grad, x, each(forward)(x)

    chosen: list[Any] = []
    for what, alone, operands in (
        ("forward", forward, lambda: draw()[1:2]),
        ("backward", backward_alone, draw),
    ):
        ways = {"stacked": alone} if is_whole or is_linear else {}
        name, way = choose({**ways, "copies": each(alone)}, alone, operands)
        if name in ONE_BY_ONE:
            looped.add(what)
        chosen.append(way)
    stacked_forward, stacked_backward = chosen
    return stacked_forward, lambda grad, x, yhat, is_first: stacked_backward(grad, x, yhat)
