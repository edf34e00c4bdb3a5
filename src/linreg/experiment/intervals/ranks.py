"""The finite-sample quantiles of conformal prediction. Pure arithmetic on arrays.

Sources: J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani and L. Wasserman, Distribution-Free Predictive Inference for
Regression (2018), algorithm 2; R. F. Barber, E. J. Candes, A. Ramdas and R. J. Tibshirani, Predictive Inference with
the Jackknife+ (2021), eq. 1.2.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def rank(n: int, level: float) -> int:
    """Return ceil((n + 1) level), counted from 1: of n exchangeable scores, the one that a new score does not exceed
    with probability `level`. It is n + 1 if n is too small for the level. The level counts as the decimal number that
    it prints as."""
    return math.ceil((n + 1) * Fraction(repr(level)))


def fewest(level: float) -> int:
    """Return the smallest n with a rank for a level."""
    exact = Fraction(repr(level))
    return math.ceil(exact / (1 - exact))


def highest_level(n: int) -> float:
    """Return the highest level of n scores, rounded down to four digits."""
    return math.floor(10_000 * Fraction(n, n + 1)) / 10_000


def bounds(lower: NDArray[np.floating], upper: NDArray[np.floating], level: float) -> tuple[NDArray[np.floating], ...]:
    """Return the interval of each row (N, n_targets) from those of n left-out points, whose ends lower and upper are
    (N, n, n_targets): the upper one is the upper end of rank k, the lower one the lower end of the same rank from
    above."""
    n = lower.shape[1]
    k = rank(n, level)
    return np.partition(lower, n - k, axis=1)[:, n - k], np.partition(upper, k - 1, axis=1)[:, k - 1]
