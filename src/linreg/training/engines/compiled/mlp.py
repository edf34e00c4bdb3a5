"""A mini-batch of a multilayer perceptron in compiled code.

Arithmetic is in the type of the arrays, in pieces of a batch; losses, and sums over pieces, are in float64. One thread
takes the points in order.

Shapes: widths (n_layers + 1,): n_features, the hidden widths and n_targets; p (n,): all parameters, of each layer its
weight (n_out, n_in) and then its bias (n_out,); g (n,): the gradient, in float64. Within a piece the points are the
columns of the arrays z, a and d, whose rows are the units of all layers: values before and after the activation, and
the gradient with respect to z.
"""

import math
from typing import Any

import numpy as np

from linreg.training.engines.compiled.kernel import Array, Int, Order, kernel
from linreg.training.engines.compiled.losses import loss_of, slope_of

RELU, TANH, SIGMOID, GELU, SILU, ELU, LEAKY_RELU = range(7)

ONE = np.int64(1)  # not a literal, for which numba compiles functions once more
PIECE = 256  # points; their units fit the near caches
ROOT_HALF = math.sqrt(0.5)
ROOT_TWO_PI = math.sqrt(2 * math.pi)


@kernel
def activate(kind: int, slope: float, z: Array, a: Array, first: Int, last: Int, n: int) -> None:
    """Write the activation of the rows first to last of z to a, for n points. slope: alpha of elu, or the slope of
    leaky_relu below 0."""
    for row in range(first, last):
        for j in range(n):
            value = z[row, j]
            if kind == RELU:
                a[row, j] = value if value > 0 or np.isnan(value) else 0.0
            elif kind == TANH:
                a[row, j] = math.tanh(value)
            elif kind == SIGMOID:
                a[row, j] = 1.0 / (1.0 + math.exp(-value))
            elif kind == GELU:
                a[row, j] = value * 0.5 * (1.0 + math.erf(value * ROOT_HALF))
            elif kind == SILU:
                a[row, j] = value / (1.0 + math.exp(-value))
            elif kind == ELU:
                a[row, j] = value if value > 0 else slope * math.expm1(value)
            else:
                a[row, j] = value if value > 0 else slope * value


@kernel
def through_activation(kind: int, slope: float, z: Array, a: Array, d: Array, first: Int, last: Int, n: int) -> None:
    """Multiply rows of d by the derivative of the activation."""
    for row in range(first, last):
        for j in range(n):
            value, after = z[row, j], a[row, j]
            if kind == RELU:
                d[row, j] = d[row, j] if value > 0 else 0.0
            elif kind == TANH:
                d[row, j] *= 1.0 - after * after
            elif kind == SIGMOID:
                d[row, j] *= after * (1.0 - after)
            elif kind == GELU:
                density = math.exp(-0.5 * value * value) / ROOT_TWO_PI
                d[row, j] *= 0.5 * (1.0 + math.erf(value * ROOT_HALF)) + value * density
            elif kind == SILU:
                share = 1.0 / (1.0 + math.exp(-value))
                d[row, j] *= share * (1.0 + value * (1.0 - share))
            elif kind == ELU:
                d[row, j] *= 1.0 if value > 0 else after + slope
            else:
                d[row, j] *= 1.0 if value > 0 else slope


@kernel
def add_products(
    w: Array, v: Array, stride: Int, rows: Array, first: Int, sums: Array, row: Int, other: Int, n: int
) -> None:
    """Add to a row of sums the rows from `first` on, each times the next of the weights w[0], w[stride], ...; to the
    other row of sums the same rows times the weights v.

    Four rows at a time, because then a sum is loaded and stored a quarter as often; to two sums at a time, because then
    a row is loaded half as often. Layers of an odd width have a spare row for the second sum."""
    number = (len(w) + stride - 1) // stride
    for i in range(0, number - 3, 4):
        w0, w1, w2, w3 = w[i * stride], w[(i + 1) * stride], w[(i + 2) * stride], w[(i + 3) * stride]
        v0, v1, v2, v3 = v[i * stride], v[(i + 1) * stride], v[(i + 2) * stride], v[(i + 3) * stride]
        k = first + i
        for j in range(n):
            r0, r1, r2, r3 = rows[k, j], rows[k + 1, j], rows[k + 2, j], rows[k + 3, j]
            sums[row, j] += w0 * r0 + w1 * r1 + w2 * r2 + w3 * r3
            sums[other, j] += v0 * r0 + v1 * r1 + v2 * r2 + v3 * r3
    for i in range(number - number % 4, number):
        w0, v0 = w[i * stride], v[i * stride]
        for j in range(n):
            sums[row, j] += w0 * rows[first + i, j]
            sums[other, j] += v0 * rows[first + i, j]


@kernel
def add_dots(sums: Array, rows: Array, first: Int, factors: Array, row: Int, n: int) -> None:
    """Add to each of the sums the dot product of a row of factors and the next of the rows from `first` on."""
    number = len(sums)
    for i in range(0, number - 3, 4):
        k = first + i
        t0 = t1 = t2 = t3 = factors.dtype.type(0)
        for j in range(n):
            factor = factors[row, j]
            t0 += factor * rows[k, j]
            t1 += factor * rows[k + 1, j]
            t2 += factor * rows[k + 2, j]
            t3 += factor * rows[k + 3, j]
        sums[i] += t0
        sums[i + 1] += t1
        sums[i + 2] += t2
        sums[i + 3] += t3
    for i in range(number - number % 4, number):
        t0 = factors.dtype.type(0)
        for j in range(n):
            t0 += factors[row, j] * rows[first + i, j]
        sums[i] += t0


@kernel
def forward(widths: Order, p: Array, z: Array, a: Array, kind: int, slope: float, n: int) -> None:
    """Compute z and a of all layers for n points, whose inputs are the first rows of a."""
    at, below, spare = np.int64(0), np.int64(0), np.int64(len(z) - 1)
    for layer in range(len(widths) - 1):
        n_in, n_out = widths[layer], widths[layer + 1]
        above = below + n_in
        for o in range(n_out):
            bias = p[at + n_out * n_in + o]
            for j in range(n):
                z[above + o, j] = bias
        for o in range(0, n_out, 2):
            w, v = at + o * n_in, at + min(o + 1, n_out - 1) * n_in
            other = above + o + 1 if o + 1 < n_out else spare
            add_products(p[w : w + n_in], p[v : v + n_in], ONE, a, below, z, above + o, other, n)
        if layer < len(widths) - 2:
            activate(kind, slope, z, a, above, above + n_out, n)
        at += n_out * (n_in + 1)
        below = above


@kernel
def backward(widths: Order, p: Array, g: Array, z: Array, a: Array, d: Array, kind: int, slope: float, n: int) -> None:
    """Add the gradient of all parameters to g. The rows of d for the outputs have the gradient with respect to them."""
    at, above, spare = len(p), np.int64(0), np.int64(len(d) - 1)
    for layer in range(len(widths) - 1):
        above += widths[layer]
    for layer in range(len(widths) - 2, -1, -1):
        n_in, n_out = widths[layer], widths[layer + 1]
        at -= n_out * (n_in + 1)
        below, length = above - n_in, (n_out - 1) * n_in + 1
        for o in range(n_out):
            total = p.dtype.type(0)
            for j in range(n):
                total += d[above + o, j]
            g[at + n_out * n_in + o] += total
            add_dots(g[at + o * n_in : at + (o + 1) * n_in], a, below, d, above + o, n)
        if layer > 0:
            for i in range(n_in):
                for j in range(n):
                    d[below + i, j] = 0
            for i in range(0, n_in, 2):
                w, v = at + i, at + min(i + 1, n_in - 1)
                other = below + i + 1 if i + 1 < n_in else spare
                add_products(p[w : w + length], p[v : v + length], n_in, d, above, d, below + i, other, n)
            through_activation(kind, slope, z, a, d, below, above, n)
        above = below


@kernel
def work_arrays(widths: Order, batch_size: int, p: Array) -> Array:
    """Return z, a and d, uninitialized, for the pieces of a batch (3, n_units + 1, n_points). The last row is spare."""
    return np.empty((3, widths.sum() + 1, min(batch_size, PIECE)), p.dtype)


@kernel
def mlp_batch(
    x: Array, y: Array, weight: Array, order: Order, number: int, batch_size: int, loss: Any, scale: Array,
    widths: Order, activation: Any, p: Array, g: Array, work: Array,
) -> float:  # fmt: skip
    """Return the mean loss of a batch, by its number in order; write the gradient of the unscaled loss to g unless it
    is empty. work: from `work_arrays`."""
    kind, slope = activation.kind, activation.slope
    start, stop = number * batch_size, min((number + 1) * batch_size, len(order))
    z, a, d = work[0], work[1], work[2]
    n_features, n_targets = widths[0], widths[-1]
    outputs = len(z) - 1 - n_targets
    share = 1.0 / ((stop - start) * n_targets)
    g[:] = 0.0
    total = 0.0
    for first in range(start, stop, PIECE):
        n = min(PIECE, stop - first)
        for j in range(n):
            row = order[first + j]
            if row < 0 or row >= len(x):
                raise IndexError("order has a row number out of range")
            for i in range(n_features):
                a[i, j] = x[row, i]
        forward(widths, p, z, a, kind, slope, n)
        for j in range(n):
            row = order[first + j]
            point_weight = np.float64(weight[row, 0]) if len(weight) else 1.0
            for target in range(n_targets):
                error = np.float64(z[outputs + target, j]) - y[row, target]
                total += point_weight * loss_of(loss.kind, loss.delta, scale[target] * error)
                d[outputs + target, j] = point_weight * slope_of(loss.kind, loss.delta, error) * share
        if len(g):
            backward(widths, p, g, z, a, d, kind, slope, n)
    mean: float = total * share
    return mean
