"""Ridge, lasso and elastic-net paths from QR triangles, and their cross-validation, without a pass over rows.

The triangle of the rows [design | y] (see `Triangle`) determines the sum of squares of every coefficient, so it is a
small table with the same solutions. The triangle of several groups of rows is that of their triangles, stacked.

Slopes are on the scale of standardised columns: centred and divided by the standard deviation, or, without an
intercept, divided by the root mean square. Sources:
T. Hastie, R. Tibshirani and J. Friedman, The Elements of Statistical Learning, 2nd ed., sections 3.4 and 7.10.
H. Lee, A. Battle, R. Raina and A. Ng, Efficient sparse coding algorithms (2007): the search of signs.
Å. Björck, Numerical Methods for Least Squares Problems (1996), section 6.6.5: refinement with the triangle.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from linreg.exact.least_squares import CONSTANT, DEPENDENT, Triangle, mean_squared_errors

TOLERANCE = 1e-13  # of the derivatives at an optimum, relative to the size of the target
ROUNDING = 1e-16  # least eigenvalue to divide by, of a Gram matrix with ones on the diagonal
LASSO_RATIO = 1e-3  # of the smallest automatic strength to the largest
RIDGE_RATIO = 1e-9  # the same for ridge
RIDGE_LARGEST = 1e3  # times the largest eigenvalue of X'X: at least 99.9 % of each slope is shrunk away

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Least squares on standardised columns. columns (k, p) and targets (k, n_targets), k <= p, have the Gram matrix
    X'X and the products X'y of the rows, which add up to total_weight; means (p,) and target_means (n_targets,) were
    subtracted, 0 without an intercept; inverse_scales (p,), 0 for a constant column, were multiplied."""

    columns: Floats
    targets: Floats
    total_weight: float
    means: Floats
    target_means: Floats
    inverse_scales: Floats
    intercept: bool


def standardise(triangle: Triangle) -> Problem:
    """Return the problem of a triangle.

    The first row of a triangle with an intercept has the means times the root of the total weight; the others are the
    triangle of the centred rows. A column or target is constant if its variation may be rounding."""
    values, n_targets, total_weight = triangle.values, triangle.n_targets, triangle.total_weight
    if triangle.intercept:
        means, rows = values[0, 1:] / values[0, 0], values[1:, 1:]
        sizes = np.linalg.norm(values[:, 1:].astype(np.float64), axis=0)
    else:
        rows = values[:, :-1]  # without the ones
        means, sizes = np.zeros(rows.shape[1], dtype=rows.dtype), np.zeros(rows.shape[1])
    p = rows.shape[1] - n_targets
    norms = np.sqrt((rows**2).sum(axis=0))
    least = np.r_[np.full(p, DEPENDENT), np.full(n_targets, CONSTANT)] * sizes
    varies = norms.astype(np.float64) > least
    inverse_scales = np.where(varies, np.sqrt(total_weight) / np.where(varies, norms, 1.0), 0.0)[:p]
    return Problem(
        np.ascontiguousarray((rows[:p, :p] * inverse_scales).astype(np.float64)),
        np.where(varies[p:], rows[:p, p:], 0.0).astype(np.float64),
        total_weight,
        means[:p].astype(np.float64),
        means[p:].astype(np.float64),
        inverse_scales.astype(np.float64),
        triangle.intercept,
    )


def original_coefficients(problem: Problem, slopes: Floats) -> Floats:
    """Return the coefficients (n_strengths, p, n_targets) of the original columns, after the intercept if there is one,
    for slopes (n_strengths, p, n_targets) of the standardised columns."""
    coefficients = slopes * problem.inverse_scales[:, None]
    if not problem.intercept:
        return coefficients
    intercepts = problem.target_means - np.einsum("spt,p->st", coefficients, problem.means)
    return np.concatenate([intercepts[:, None], coefficients], axis=1)


def ridge_path(problem: Problem, strengths: Floats) -> Floats:
    """Return the slopes (n_strengths, p, n_targets) that minimise sum(w * (y - Xb)^2) + strength * sum(b^2).

    The slopes at strength 0, and those of linearly dependent columns, have minimal norm."""
    left, singular, right = np.linalg.svd(problem.columns, full_matrices=False)
    kept = singular > DEPENDENT * singular.max(initial=0.0)
    left, singular, right = left[:, kept], singular[kept], right[kept]
    shrunk = singular / (singular**2 + np.asarray(strengths, dtype=np.float64)[:, None])
    return np.asarray(right.T @ (shrunk[:, :, None] * (left.T @ problem.targets)))


def elastic_net_path(problem: Problem, strengths: Floats, *, l1_ratio: float) -> Floats:
    """Return the slopes (n_strengths, p, n_targets) that minimise sum(w * (y - Xb)^2) / (2 * total_weight) +
    strength * (l1_ratio * sum(|b|) + (1 - l1_ratio) / 2 * sum(b^2)), of each target by itself.

    The search goes from the largest strength to the smallest, each from the slopes of the one before."""
    strengths = np.asarray(strengths, dtype=np.float64)
    slopes = np.zeros((len(strengths), problem.columns.shape[1], problem.targets.shape[1]))
    smooth = strengths * l1_ratio == 0
    slopes[smooth] = ridge_path(problem, strengths[smooth] * problem.total_weight)
    gram = problem.columns.T @ problem.columns / problem.total_weight
    order = [i for i in np.argsort(-strengths, kind="stable") if not smooth[i]]
    for target, y in enumerate(problem.targets.T):
        optimum = np.zeros(len(gram))
        for i in order:
            l1, l2 = strengths[i] * l1_ratio, strengths[i] * (1 - l1_ratio)
            optimum = _optimum(problem, gram, y, optimum, l1=l1, l2=l2)
            slopes[i, :, target] = optimum
    return slopes


def slopes_path(problem: Problem, strengths: Floats, *, l1_ratio: float | None) -> Floats:
    """Return the slopes (n_strengths, p, n_targets) of `ridge_path` if l1_ratio is None, else of
    `elastic_net_path`."""
    if l1_ratio is None:
        return ridge_path(problem, strengths)
    return elastic_net_path(problem, strengths, l1_ratio=l1_ratio)


def automatic_strengths(
    problem: Problem, *, l1_ratio: float | None, n_strengths: int = 100, ratio: float | None = None
) -> Floats:
    """Return strengths (n_strengths,) for `slopes_path`, evenly spaced on a log scale, the largest first.

    The largest is the smallest one at which all slopes are 0. Ridge (None) and an l1_ratio of 0 have none; their
    largest is RIDGE_LARGEST times the largest eigenvalue of X'X. The smallest is `ratio` times the largest. Without a
    column that varies, and for targets that no column explains, the largest is 1."""
    if l1_ratio:
        products = problem.columns.T @ problem.targets
        largest = float(np.abs(products).max(initial=0.0)) / (problem.total_weight * l1_ratio)
    else:
        singular = np.linalg.svd(problem.columns, compute_uv=False)
        largest = RIDGE_LARGEST * float(singular.max(initial=0.0)) ** 2
        largest /= 1.0 if l1_ratio is None else problem.total_weight
    ratio = ratio or (LASSO_RATIO if l1_ratio else RIDGE_RATIO)
    return (largest or 1.0) * np.geomspace(1.0, ratio, n_strengths)


def cross_validate(
    folds: Iterable[tuple[Triangle, Triangle]],
    strengths: Floats,
    *,
    l1_ratio: float | None,
    scale: Floats | float = 1.0,
) -> Floats:
    """Return the weighted mean squared errors (n_folds, n_strengths), means over targets, on the validation rows of
    each fold, for the coefficients of its training rows.

    folds: the triangles of both, of a total weight > 0; scale (n_targets,): to multiply errors with. The columns are
    standardised anew for each fold."""
    errors = []
    for train, val in folds:
        problem = standardise(train)
        coefficients = original_coefficients(problem, slopes_path(problem, strengths, l1_ratio=l1_ratio))
        errors.append((mean_squared_errors(val, coefficients) * scale**2).mean(axis=1))
    return np.stack(errors)


def choose(errors: Floats, rule: Literal["best", "one_se"]) -> int:
    """Return the index of a strength by its errors (n_folds, n_strengths), the largest strength first.

    best: the least mean error; one_se: the largest strength whose mean error is at most one standard error above it."""
    means = errors.mean(axis=0)
    best = int(np.argmin(means))
    if rule == "best":
        return best
    return int(np.argmax(means <= means[best] + standard_error(errors)[best]))


def standard_error(errors: Floats) -> Floats:
    """Return the standard error (n_strengths,) of the mean of errors (n_folds, n_strengths)."""
    return np.asarray(errors.std(axis=0, ddof=1) / np.sqrt(len(errors)))


def _optimum(problem: Problem, gram: Floats, y: Floats, start: Floats, *, l1: float, l2: float) -> Floats:
    """Return the slopes (p,) of one elastic net with l1 > 0, by a search of the signs of the slopes.

    For given signs the penalty is smooth, and a Newton step leads to the optimum. A slope that would change its sign
    stops the step and becomes 0. At the optimum of the signs, the slope with the largest derivative becomes active. The
    loss decreases in every step, so the search ends; the tolerance grows, so it ends in spite of rounding."""
    x, weight = problem.columns, problem.total_weight
    slopes, signs = start.copy(), np.sign(start)  # a slope with the sign 0 is 0, and not active
    tolerance = TOLERANCE * float(np.sqrt(y @ y / weight))
    while True:
        downhill = (y - x @ slopes) @ x / weight - l2 * slopes
        excess = np.where(signs != 0, np.abs(downhill - l1 * signs), np.abs(downhill) - l1)
        worst = int(np.argmax(excess)) if len(excess) else 0
        if not len(excess) or excess[worst] <= tolerance:
            return slopes
        signs[worst] = signs[worst] or np.sign(downhill[worst])
        while len(active := np.flatnonzero(signs)):
            solve = _make_solve_fn(gram[np.ix_(active, active)] + l2 * np.eye(len(active)))
            before, sides = slopes[active], signs[active]
            step = solve(downhill[active] - l1 * sides)
            crossing = (before + step) * sides < 0
            if not crossing.any():
                slopes[active] = before + step
                break
            lengths = np.where(crossing, np.abs(before), np.inf) / np.where(crossing, np.abs(step), 1.0)
            first = int(np.argmin(lengths))
            slopes[active] = before + lengths[first] * step
            slopes[active[first]] = signs[active[first]] = 0.0
            downhill = (y - x @ slopes) @ x / weight - l2 * slopes
        tolerance *= 1 + 1 / len(slopes)


def _make_solve_fn(matrix: Floats) -> Callable[[Floats], Floats]:
    """Return a function that solves matrix @ step = right, for a positive semi-definite matrix.

    If the matrix is singular, a component of `right` in its null space leads to a very long step. It ends where a slope
    becomes 0, which makes one of the linearly dependent columns inactive."""
    from scipy.linalg import lapack  # its Cholesky solver needs no checks, which take longer than a small solve

    factor, info = lapack.dpotrf(matrix, lower=1)
    if info == 0:
        return lambda right: np.asarray(lapack.dpotrs(factor, right, lower=1)[0])
    values, vectors = np.linalg.eigh(matrix)
    return lambda right: np.asarray(vectors @ (right @ vectors / np.maximum(values, ROUNDING)))
