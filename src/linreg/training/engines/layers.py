"""The layers that can train without autograd: their forward and backward passes. `direct` and `compiled` use them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module

Forward = Callable[[torch.Tensor], torch.Tensor]
# takes the gradient with respect to yhat, x, yhat, and whether this is the first layer; returns the gradient with
# respect to x, which nobody needs of the first layer
Backward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor]
Passes = tuple[Forward, Backward]


class Split(NamedTuple):
    """A sequential model in two parts: basis has no parameters, layers are linear layers with activations between."""

    basis: list[nn.Module]
    layers: list[nn.Module]


def split_model(model: nn.Module) -> Split | None:
    """Split a model into its basis and its layers. Return None if it is not made of these."""
    if type(model) is not nn.Sequential or not len(model) or type(model[-1]) is not nn.Linear:
        return None
    modules = list(model)
    n_basis = next(number for number, module in enumerate(modules) if next(module.parameters(), None) is not None)
    basis, layers = modules[:n_basis], modules[n_basis:]
    if type(layers[0]) is not nn.Linear or not all(type(layer) in _PASSES for layer in layers):
        return None
    return None if any(getattr(layer, "inplace", False) for layer in layers) else Split(basis, layers)


def make_needs_autograd_fn(modules: Sequence[nn.Module]) -> Callable[[], bool]:
    """Make the function that returns whether any of the modules now has a hook or a frozen parameter.

    Direct calls of the passes would ignore both."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [getattr(module, kind) for module in modules for kind in kinds]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    has_global_hook: Callable[[], bool] = torch_module._has_any_global_hook

    def needs_autograd() -> bool:
        by_parameters = any(
            p._backward_hooks or p._post_accumulate_grad_hooks or not p.requires_grad for p in parameters
        )
        return by_parameters or any(hooks) or has_global_hook()

    return needs_autograd


def passes_of(layer: nn.Module) -> Passes:
    """Return the forward and the backward pass of a layer of `split_model`."""
    return _PASSES[type(layer)](layer)


def _linear(layer: Any) -> Passes:
    """For yhat = x W' + b (N, m) and g, the gradient with respect to yhat, those with respect to W, b and x are g' x,
    the sum of g over the batch, and g W."""
    weight, bias, linear = layer.weight, layer.bias, nn.functional.linear

    def backward(grad: torch.Tensor, x: torch.Tensor, yhat: torch.Tensor, is_first: bool) -> torch.Tensor:
        weight.grad = grad.t().mm(x)
        if bias is not None:
            bias.grad = grad.sum(0)
        if is_first:
            return grad
        # for a single number autograd reads x as column-major, and multiplies the transposes
        return weight.t().mm(grad.t()).t() if x.numel() == 1 else grad.mm(weight)

    return lambda x: linear(x, weight, bias), backward


def _activation(derivative: Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
    """Make the function that returns the passes of an activation.

    derivative: takes the layer, the gradient with respect to yhat, x and yhat; returns the gradient with respect to x.
    """
    return lambda module: (module.forward, lambda grad, x, yhat, is_first: derivative(module, grad, x, yhat))


_aten = torch.ops.aten
# The operations are those of autograd, listed in torch's derivatives.yaml.
_PASSES: dict[type[nn.Module], Callable[[Any], Passes]] = {
    nn.Linear: _linear,
    nn.ReLU: _activation(lambda layer, grad, x, yhat: _aten.threshold_backward.default(grad, yhat, 0)),
    nn.Tanh: _activation(lambda layer, grad, x, yhat: _aten.tanh_backward.default(grad, yhat)),
    nn.Sigmoid: _activation(lambda layer, grad, x, yhat: _aten.sigmoid_backward.default(grad, yhat)),
    nn.GELU: _activation(
        lambda layer, grad, x, yhat: _aten.gelu_backward.default(grad, x, approximate=layer.approximate)
    ),
    nn.SiLU: _activation(lambda layer, grad, x, yhat: _aten.silu_backward.default(grad, x)),
    nn.ELU: _activation(lambda layer, grad, x, yhat: _aten.elu_backward.default(grad, layer.alpha, 1.0, 1.0, False, x)),
    nn.LeakyReLU: _activation(
        lambda layer, grad, x, yhat: _aten.leaky_relu_backward.default(grad, x, layer.negative_slope, False)
    ),
}
