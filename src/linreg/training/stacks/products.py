"""Ways to compute the matrix products of a stack. `layers` takes the first one of each that has the bits of one model.

Each table below has makers: from the parameters of all models, or the place of their gradients, they make the function
that is called for each mini-batch. x is (n_models, N, n_inputs), weight (n_models, n_outputs, n_inputs), bias
(n_models, n_outputs), and a gradient with respect to yhat (n_models, N, n_outputs).

torch computes batched products of fewer than NAIVE multiplications in another order than one product alone; zeros
beside the operands avoid that, and change no sum. For one output, one product alone is computed as weight x'.
"""

from collections.abc import Callable

import torch
from torch import nn

POINTS_AT_ONCE = 8  # in kernels for one output; fewer at the end may be added up in another order
NAIVE = 400  # multiplications of a product, in torch's source: aten/src/ATen/native/LinearAlgebra.cpp

Product = Callable[[torch.Tensor], torch.Tensor]
Product2 = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def forward_alone(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return yhat (N, n_outputs) of one model, as nn.Linear computes it."""
    return nn.functional.linear(x, weight, bias)


def weight_grad_alone(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the weights of one model, as `engines.layers` computes it."""
    return grad.t().mm(x)


def bias_grad_alone(grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the bias of one model."""
    return grad.sum(0)


def input_grad_alone(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the inputs of one model, a point or more with several numbers in all."""
    return grad.mm(weight)


def number_grad_alone(grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a single number as the input of one model."""
    return weight.t().mm(grad.t()).t()


def each(alone: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the function that calls another one for each model, with copies of its operands, which are aligned in
    memory as new tensors are."""
    return lambda *operands: torch.stack(
        [alone(*(operand.clone() for operand in of_model)) for of_model in zip(*operands, strict=True)]
    )


def _forward_stacked(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    transposed = weight.transpose(1, 2)
    if bias is None:
        return lambda x: torch.bmm(x, transposed)
    row = bias.unsqueeze(1)
    return lambda x: torch.baddbmm(row, x, transposed)


def _forward_transposed(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    if bias is None:
        return lambda x: torch.bmm(weight, x.transpose(1, 2)).transpose(1, 2).contiguous()
    column = bias.unsqueeze(2)
    return lambda x: torch.baddbmm(column, weight, x.transpose(1, 2)).transpose(1, 2).contiguous()


def _forward_padded(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    n_models, n_outputs, n_inputs = weight.shape
    padded: dict[int, tuple[torch.Tensor, torch.Tensor, Product]] = {}

    def forward(x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        if n not in padded:
            width = max(n_inputs, -(-NAIVE // (n * n_outputs)))
            wide_x, wide_weight = x.new_zeros((n_models, n, width)), x.new_zeros((n_models, n_outputs, width))
            padded[n] = wide_x, wide_weight, _forward_transposed(wide_weight, bias)
        wide_x, wide_weight, product = padded[n]
        wide_x[:, :, :n_inputs].copy_(x)
        wide_weight[:, :, :n_inputs].copy_(weight)
        return product(wide_x)

    return forward


def _forward_taller(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    """Add points of zeros: on some processors more columns would change the order, and other numbers of points too."""
    n_models, n_outputs, n_inputs = weight.shape
    product, taller = _forward_transposed(weight, bias), dict[int, torch.Tensor]()

    def forward(x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        if n not in taller:
            least = max(n, -(-NAIVE // (n_inputs * n_outputs)))
            taller[n] = x.new_zeros((n_models, -(-least // POINTS_AT_ONCE) * POINTS_AT_ONCE, n_inputs))
        taller[n][:, :n].copy_(x)
        return product(taller[n])[:, :n].contiguous()

    return forward


def _forward_strided(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    """Write to a tensor with gaps, for which torch calls the products of single models, in C++."""
    transposed, n_outputs = weight.transpose(1, 2), weight.shape[1]

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty((len(x), x.shape[1], n_outputs + 1))[:, :, :n_outputs]
        if bias is None:
            return torch.bmm(x, transposed, out=out).contiguous()
        return torch.baddbmm(bias.unsqueeze(1), x, transposed, out=out).contiguous()

    return forward


def _forward_loop(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    weights, biases = list(weight.transpose(1, 2)), None if bias is None else list(bias)

    def forward(x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty((len(x), x.shape[1], weight.shape[1]))
        if biases is None:
            for one, x_of_one, transposed in zip(out, x, weights, strict=True):
                torch.mm(x_of_one, transposed, out=one)
        else:
            for one, x_of_one, transposed, row in zip(out, x, weights, biases, strict=True):
                torch.addmm(row, x_of_one, transposed, out=one)
        return out

    return forward


def _forward_copied(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    parameters = (weight,) if bias is None else (weight, bias)
    return lambda x: each(forward_alone)(x, *parameters)


FORWARD = {
    "stacked": _forward_stacked,
    "transposed": _forward_transposed,
    "padded": _forward_padded,
    "taller": _forward_taller,
    "strided": _forward_strided,
    "loop": _forward_loop,
    "copies": _forward_copied,
}


def _weight_stacked(out: torch.Tensor) -> Product2:
    return lambda grad, x: out.copy_(torch.bmm(grad.transpose(1, 2), x))


def _weight_padded(out: torch.Tensor) -> Product2:
    n_models, n_outputs, n_inputs = out.shape
    padded: dict[int, torch.Tensor] = {}

    def weight_grad(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        if n not in padded:
            padded[n] = x.new_zeros((n_models, n, max(n_outputs, -(-NAIVE // (n * n_inputs)))))
        padded[n][:, :, :n_outputs].copy_(grad)
        return out.copy_(torch.bmm(padded[n].transpose(1, 2), x)[:, :n_outputs])

    return weight_grad


def _weight_strided(out: torch.Tensor) -> Product2:
    """Write to a tensor with gaps, as in `_forward_strided`."""
    wider = out.new_empty((len(out), out.shape[1], out.shape[2] + 1))[:, :, : out.shape[2]]
    return lambda grad, x: out.copy_(torch.bmm(grad.transpose(1, 2), x, out=wider))


def _weight_loop(out: torch.Tensor) -> Product2:
    outs = list(out)

    def weight_grad(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        for one, grad_of_one, x_of_one in zip(outs, grad.transpose(1, 2), x, strict=True):
            torch.mm(grad_of_one, x_of_one, out=one)
        return out

    return weight_grad


def _weight_copied(out: torch.Tensor) -> Product2:
    return lambda grad, x: out.copy_(each(weight_grad_alone)(grad, x))


WEIGHT_GRAD = {
    "stacked": _weight_stacked,
    "padded": _weight_padded,
    "strided": _weight_strided,
    "loop": _weight_loop,
    "copies": _weight_copied,
}


def _bias_stacked(out: torch.Tensor) -> Product:
    return lambda grad: out.copy_(grad.sum(1))


def _bias_copied(out: torch.Tensor) -> Product:
    return lambda grad: out.copy_(each(bias_grad_alone)(grad))


BIAS_GRAD = {"stacked": _bias_stacked, "copies": _bias_copied}


def _input_stacked(weight: torch.Tensor) -> Product:
    return lambda grad: torch.bmm(grad, weight)


def _input_padded(weight: torch.Tensor) -> Product:
    n_models, n_outputs, n_inputs = weight.shape
    padded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def input_grad(grad: torch.Tensor) -> torch.Tensor:
        n = grad.shape[1]
        if n not in padded:
            depth = max(n_outputs, -(-NAIVE // (n * n_inputs)))
            padded[n] = grad.new_zeros((n_models, n, depth)), grad.new_zeros((n_models, depth, n_inputs))
        wide_grad, deep_weight = padded[n]
        wide_grad[:, :, :n_outputs].copy_(grad)
        deep_weight[:, :n_outputs].copy_(weight)
        return torch.bmm(wide_grad, deep_weight)

    return input_grad


def _input_copied(weight: torch.Tensor) -> Product:
    return lambda grad: each(input_grad_alone)(grad, weight)


def _input_of_number(weight: torch.Tensor) -> Product:
    return lambda grad: each(number_grad_alone)(grad, weight)


INPUT_GRAD = {
    "stacked": _input_stacked,
    "padded": _input_padded,
    "copies": _input_copied,
    "number": _input_of_number,
}
