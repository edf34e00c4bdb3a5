"""The loops of `compiled`, which numba compiles: many steps of a linear model in one call. `arrays` calls them.

All arithmetic is in float64, for any type of the arrays. Parameters and moments are rounded to their type once a step.
One thread takes the points in order, so the bits do not depend on how the steps are cut into calls. No function here
draws random numbers or has state.

Shapes in this module: x (N, n_features), y (N, n_targets), weight (N, 1) or (0, 1) for unweighted points; order: row
numbers, batch after batch; w (n_targets, n_features), b (n_targets,) or (0,) for no bias; scale (n_targets,): factors
of the errors in the reported loss. The optimizers take flat arrays: p and g (n,), moments (n_moments, n).
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

# The compiler may regroup sums, to fill vector registers, and fuse a product with a sum. NaN and infinity keep their
# meaning, without "nnan" and "ninf", because they show the caller that training diverged.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

# Rows in random order are seldom in the cache. Prefetching this many points ahead takes less than a third of the time
# for 1,000,000 x 20.
AHEAD = 32
CACHE_LINE = 64  # bytes


def kernel(function: F) -> F:
    """Compile a function at its first call, and cache the machine code beside this file or in the user's cache folder.

    If neither is writable, the code is compiled anew in each process."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
    try:
        compiled: F = njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        compiled = njit(**options)(function)
    return compiled


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Load the cache line of array[row, column] in advance, by LLVM's instruction of this name."""

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


prefetched: Any = prefetch  # the type of its calls in kernels, where numba adds the first argument


@kernel
def loss_of(loss: int, delta: float, error: float) -> float:
    """Return the loss of an error: its square, its absolute value, or Huber's, quadratic up to delta and then linear
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
    """Return the derivative of `loss_of` with respect to the error; for mae at 0 it is 0, as in torch."""
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
    """Return the mean loss of the points order[start:stop], and write the gradient of the unscaled loss to gw and gb.

    gw and gb are float64 and shaped as w and b, or empty for no gradient. One function does all of this: passing arrays
    for each point costs more than the arithmetic, because numba counts references.
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
                prefetched(x, coming, column)
            prefetched(y, coming, 0)
            if len(weight):
                prefetched(weight, coming, 0)
        row = order[place]
        if row < 0 or row >= len(x):
            raise IndexError("order has a row number out of range")
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
    """Take a step of stochastic gradient descent as torch.optim.SGD does.

    moments: the momentum buffer, which starts as the first gradient (I. Sutskever et al., On the importance of
    initialization and momentum in deep learning, 2013; as in torch, lr does not enter the buffer)."""
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
    """Take Adam's step number `step`, counted from 1, as torch.optim.Adam does.

    moments: of the gradient, of its square, and with amsgrad the largest of the latter (D. P. Kingma and J. Ba, Adam: a
    method for stochastic optimization, 2015; amsgrad: S. J. Reddi et al., On the convergence of Adam and beyond, 2018;
    decoupled weight decay, AdamW: I. Loshchilov and F. Hutter, Decoupled weight decay regularization, 2019)."""
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
    order: Order, x: Array, y: Array, weight: Array, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, w_moments: Array, b_moments: Array, steps_done: int, lr: Array, momentum: Array,
    dampening: float, weight_decay: float, nesterov: bool, losses: Array,
) -> None:  # fmt: skip
    """Take a step of SGD for each element of losses, and store the batch's loss before the step there."""
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
    order: Order, x: Array, y: Array, weight: Array, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, w_moments: Array, b_moments: Array, steps_done: int, lr: Array, beta1: Array,
    beta2: float, eps: float, weight_decay: float, decoupled: bool, amsgrad: bool, losses: Array,
) -> None:  # fmt: skip
    """Take a step of Adam for each element of losses, and store the batch's loss before the step there."""
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
    order: Order, x: Array, y: Array, weight: Array, batch_size: int, loss: int, delta: float, scale: Array,
    w: Array, b: Array, losses: Array,
) -> None:  # fmt: skip
    """Write the mean loss of each batch to losses."""
    no_gw, no_gb = np.empty((len(w), 0)), np.empty(0)
    for i in range(len(losses)):
        start, stop = i * batch_size, min((i + 1) * batch_size, len(order))
        losses[i] = batch(x, y, weight, order, start, stop, loss, delta, scale, w, b, no_gw, no_gb)
