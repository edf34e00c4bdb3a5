"""The losses of an error and their derivatives, in compiled code."""

import numpy as np

from linreg.training.engines.compiled.kernel import kernel

MSE, MAE, HUBER = range(3)


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
