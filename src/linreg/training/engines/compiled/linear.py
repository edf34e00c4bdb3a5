"""A mini-batch of a linear model in compiled code.

All arithmetic is in float64, for any type of the arrays. One thread takes the points in order.
"""

from typing import Any

import numpy as np

from linreg.training.engines.compiled.kernel import Array, Order, kernel, prefetched
from linreg.training.engines.compiled.losses import loss_of, slope_of

# Rows in random order are seldom in the cache. Prefetching this many points ahead takes less than a third of the time
# for 1,000,000 x 20.
AHEAD = 32
CACHE_LINE = 64  # bytes


@kernel
def linear_batch(
    x: Array, y: Array, weight: Array, order: Order, number: int, batch_size: int, loss: Any, scale: Array,
    linear: Any, p: Array, g: Array,
) -> float:  # fmt: skip
    """Return the mean loss of a batch, by its number in order; write the gradient of the unscaled loss to g, unless it
    is empty. p (n,): the weight (n_targets, n_features) and then the bias (n_targets,), if there is one.

    One function does all of this: passing arrays for each point costs more than the arithmetic, because numba counts
    references.
    """
    start, stop = number * batch_size, min((number + 1) * batch_size, len(order))
    n_features, n_targets = x.shape[1], y.shape[1]
    n_weights = n_targets * n_features
    has_bias = linear.has_bias
    in_line = CACHE_LINE // x.itemsize
    g[:] = 0.0
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
            first = target * n_features
            yhat = np.float64(p[n_weights + target]) if has_bias else 0.0
            for column in range(n_features):
                yhat += np.float64(p[first + column]) * np.float64(x[row, column])
            error = yhat - y[row, target]
            total += point_weight * loss_of(loss.kind, loss.delta, scale[target] * error)
            if len(g):
                slope = point_weight * slope_of(loss.kind, loss.delta, error)
                for column in range(n_features):
                    g[first + column] += slope * x[row, column]
                if has_bias:
                    g[n_weights + target] += slope
    share = 1.0 / ((stop - start) * n_targets)
    g *= share
    mean: float = total * share
    return mean
