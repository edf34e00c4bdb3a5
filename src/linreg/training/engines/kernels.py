"""The loops of `compiled`, as numba makes machine code of them: many steps of a linear model in one call.

All arithmetic is in float64, whatever the arrays hold; what is stored (parameters, moments) is rounded to their type
once a step. One thread, in the order of the points: the same arrays give the same bits, however the steps are cut into
calls. No function here draws random numbers or keeps anything.

Shapes, throughout: x (N, n_features), y (N, n_targets), weight (N, 1) or (0, 1) for unweighted points; order: row
numbers, batch after batch; w (n_targets, n_features), b (n_targets,) or (0,) for no bias; scale (n_targets,): what
turns an error into the units that its loss is told in. Parameters are seen flat by the optimizers: p and g (n,),
moments (n_moments, n).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.floating]
Order = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

MSE, MAE, HUBER = range(3)

# Sums may be regrouped, so that they fill vector registers, and a product fused with a sum; NaN and infinity keep their
# meaning ("nnan" and "ninf" are not among these), for they tell the caller that training diverged.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

# Rows of a random order are seldom in the cache. Asked for this many points ahead they are there when their turn comes:
# less than a third of the time for 1,000,000 x 20.
AHEAD = 32
CACHE_LINE = 64  # bytes


def kernel(function: F) -> F:
    """Compile a function at its first call, and keep the machine code: beside this file, or else in the user's cache
    folder, or else, where neither can be written, in this process alone."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        compiled: F = njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        compiled = njit(**options)(function)
    return compiled


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line of array[row, column], by LLVM's instruction of this name; nothing is read."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, arguments[0])
        element = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
            context, builder, signature.args[0], struct, arguments[1:]
        )
        address = builder.bitcast(element, cgutils.voidptr_t)
        number = ir.IntType(32)
        instruction = builder.module.declare_intrinsic(
            "llvm.prefetch", [address.type], ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        )
        read, keep, data = number(0), number(3), number(1)
        builder.call(instruction, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


ask_for: Any = prefetch  # as the kernels call it: without the first argument, which is numba's


@kernel
def loss_of(loss: int, delta: float, error: float) -> float:
    """Give the loss of an error: its square; its size; or Huber's, squared up to delta, beyond it linear
    (P. J. Huber, Robust estimation of a location parameter, 1964)."""
    if loss == MSE:
        return error * error
    if loss == MAE:
        return abs(error)
    if abs(error) < delta:
        return 0.5 * error * error
    return delta * (abs(error) - 0.5 * delta)


@kernel
def slope_of(loss: int, delta: float, error: float) -> float:
    """Give the derivative of `loss_of` by the error; at the corner of mae it is 0, as torch has it."""
    if loss == MSE:
        return 2.0 * error
    if loss == MAE:
        return float(np.sign(error))
    if error < -delta:
        return -delta
    if error > delta:
        return delta
    return error


@kernel
def batch(
    x: Array, y: Array, weight: Array, order: Order, start: int, stop: int,
    loss: int, delta: float, scale: Array, w: Array, b: Array, gw: Array, gb: Array,
) -> float:  # fmt: skip
    """Give the mean loss of the points order[start:stop], and put the gradient of the mean, of the unscaled errors,
    into gw and gb, float64, shaped as w and b. Where these are empty there is no gradient.

    One function, for arrays that are handed on for each point cost more than its arithmetic (they are counted).
    """
    n_targets, n_features = w.shape
    in_line = CACHE_LINE // x.itemsize
    gw[:] = 0.0
    gb[:] = 0.0
    total = 0.0
    for place in range(start, stop):
        if place + AHEAD < len(order):
            coming = order[place + AHEAD]
            for column in range(0, n_features, in_line):
                ask_for(x, coming, column)
            ask_for(y, coming, 0)
            if len(weight):
                ask_for(weight, coming, 0)
        row = order[place]
        if row < 0 or row >= len(x):
            raise IndexError("order names a row that is not there")
        point_weight = np.float64(weight[row, 0]) if len(weight) else 1.0
        for target in range(n_targets):
            yhat = np.float64(b[target]) if len(b) else 0.0
            for column in range(n_features):
                yhat += np.float64(w[target, column]) * np.float64(x[row, column])
            error = yhat - y[row, target]
            total += point_weight * loss_of(loss, delta, scale[target] * error)
            slope = point_weight * slope_of(loss, delta, error)
            for column in range(gw.shape[1]):
                gw[target, column] += slope * x[row, column]
            if len(gb):
                gb[target] += slope
    share = 1.0 / ((stop - start) * n_targets)
    gw *= share
    gb *= share
    mean: float = total * share
    return mean


@kernel
def sgd_step(
    p: Array, g: Array, moments: Array, first: bool,
    lr: float, momentum: float, dampening: float, weight_decay: float, nesterov: bool,
) -> None:  # fmt: skip
    """Take a step of stochastic gradient descent as torch.optim.SGD does; moments: the momentum buffer, which begins
    as the first gradient (I. Sutskever et al., On the importance of initialization and momentum in deep learning, 2013,
    with torch's placing of lr)."""
    for i in range(len(p)):
        step = g[i] + weight_decay * p[i]
        if momentum != 0.0:
            buffer = step if first else momentum * moments[0, i] + (1.0 - dampening) * step
            moments[0, i] = buffer
            step = step + momentum * buffer if nesterov else buffer
        p[i] -= lr * step


@kernel
def adam_step(
    p: Array, g: Array, moments: Array, step: int,
    lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, amsgrad: bool,
) -> None:  # fmt: skip
    """Take Adam's step number `step`, counted from 1, as torch.optim.Adam does; moments: of the gradient, of its
    square, and with amsgrad the largest of the latter (D. P. Kingma and J. Ba, Adam: a method for stochastic
    optimization, 2015; amsgrad: S. J. Reddi et al., On the convergence of Adam and beyond, 2018; decoupled weight
    decay, AdamW: I. Loshchilov and F. Hutter, Decoupled weight decay regularization, 2019)."""
    correction1 = 1.0 - beta1**step
    correction2 = np.sqrt(1.0 - beta2**step)
    for i in range(len(p)):
        value, slope = np.float64(p[i]), g[i]
        if decoupled:
            value *= 1.0 - lr * weight_decay
        else:
            slope += weight_decay * value
        mean = beta1 * moments[0, i] + (1.0 - beta1) * slope
        square = beta2 * moments[1, i] + (1.0 - beta2) * slope * slope
        moments[0, i] = mean
        moments[1, i] = square
        if amsgrad:
            square = np.maximum(np.float64(moments[2, i]), square)
            moments[2, i] = square
        p[i] = value - lr / correction1 * mean / (np.sqrt(square) / correction2 + eps)


@kernel
def sgd_chunk(
    x: Array, y: Array, weight: Array, order: Order, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, w_moments: Array, b_moments: Array, steps_done: int, lr: Array, momentum: Array,
    dampening: float, weight_decay: float, nesterov: bool, losses: Array,
) -> None:  # fmt: skip
    """Take a step of SGD for each element of losses, and put the batch's loss before it there."""
    gw, gb = np.empty(w.shape), np.empty(b.shape)
    flat_w, flat_gw = w.ravel(), gw.ravel()
    for i in range(len(losses)):
        start, stop = i * batch_size, min((i + 1) * batch_size, len(order))
        losses[i] = batch(x, y, weight, order, start, stop, loss, delta, scale, w, b, gw, gb)
        first = steps_done + i == 0
        sgd_step(flat_w, flat_gw, w_moments, first, lr[i], momentum[i], dampening, weight_decay, nesterov)
        sgd_step(b, gb, b_moments, first, lr[i], momentum[i], dampening, weight_decay, nesterov)


@kernel
def adam_chunk(
    x: Array, y: Array, weight: Array, order: Order, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, w_moments: Array, b_moments: Array, steps_done: int, lr: Array, beta1: Array,
    beta2: float, eps: float, weight_decay: float, decoupled: bool, amsgrad: bool, losses: Array,
) -> None:  # fmt: skip
    """Take a step of Adam for each element of losses, and put the batch's loss before it there."""
    gw, gb = np.empty(w.shape), np.empty(b.shape)
    flat_w, flat_gw = w.ravel(), gw.ravel()
    for i in range(len(losses)):
        start, stop = i * batch_size, min((i + 1) * batch_size, len(order))
        losses[i] = batch(x, y, weight, order, start, stop, loss, delta, scale, w, b, gw, gb)
        step = steps_done + i + 1
        adam_step(flat_w, flat_gw, w_moments, step, lr[i], beta1[i], beta2, eps, weight_decay, decoupled, amsgrad)
        adam_step(b, gb, b_moments, step, lr[i], beta1[i], beta2, eps, weight_decay, decoupled, amsgrad)


@kernel
def val_chunk(
    x: Array, y: Array, weight: Array, order: Order, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, losses: Array,
) -> None:  # fmt: skip
    """Put the mean loss of batch after batch into losses."""
    no_gw, no_gb = np.empty((len(w), 0)), np.empty(0)
    for i in range(len(losses)):
        start, stop = i * batch_size, min((i + 1) * batch_size, len(order))
        losses[i] = batch(x, y, weight, order, start, stop, loss, delta, scale, w, b, no_gw, no_gb)
