"""The closed form: least squares by QR, in one pass over blocks of rows, with memory for columns alone.

The triangle R of the QR factorisation of [X y] holds all that is asked: the coefficients, what is left unexplained,
the standard errors, and the spectrum of X'X. Blocks are added by factorising R stacked on the next rows. Source:
G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., sections 5.2, 5.3 and 6.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ROWS = 2**14  # factorised at once
SMALL = 2e7  # n_rows * n_columns^2 up to which extended precision costs nothing that one would notice
DEPENDENT = 1e-11  # what is left of a column, relative to it, where the others explain it

Array = NDArray[np.floating]


class Factor:
    """The triangle of a growing number of rows [design | y], each multiplied by the root of its weight."""

    def __init__(self, n_columns: int, n_targets: int) -> None:
        self.n_columns, self.n_targets = n_columns, n_targets
        self.n_rows, self.total_weight = 0, 0.0
        self._triangle: Array | None = None
        self._waiting: list[Array] = []
        self._n_waiting = 0

    def add(self, design: Array, y: Array, weight: Array | None = None) -> None:
        """Add rows: design (n, n_columns), y (n, n_targets), weight (n,) or None."""
        rows = np.hstack([design, y]).astype(np.float64, copy=False)
        self.total_weight += float(len(rows) if weight is None else weight.sum())
        self.n_rows += len(rows)
        if weight is not None:
            rows = rows * np.sqrt(weight.astype(np.float64))[:, None]
        for first in range(0, len(rows), ROWS):
            part = rows[first : first + ROWS]
            self._waiting.append(part)
            self._n_waiting += len(part)
            if self._n_waiting >= ROWS:
                self._factorise()

    def triangle(self) -> Array:
        """Give R (n_columns + n_targets, the same), in extended precision where the rows are few."""
        width = self.n_columns + self.n_targets
        if self._triangle is None and self.n_rows * width**2 <= SMALL:
            rows = np.vstack([np.zeros((width, width)), *self._waiting]).astype(np.longdouble)
            return _householder(rows)[:width]
        self._factorise()
        assert self._triangle is not None
        return self._triangle

    def _factorise(self) -> None:
        width = self.n_columns + self.n_targets
        before = np.zeros((width, width)) if self._triangle is None else self._triangle
        self._triangle = _householder(np.vstack([before, *self._waiting]))
        self._waiting, self._n_waiting = [], 0


@dataclass(frozen=True)
class LeftOut:
    """A column that others explain: `column` is the sum of `factor` times each of `combination`."""

    column: int
    combination: dict[int, float]


@dataclass(frozen=True)
class Solution:
    """The optimum. coefficients (n_columns, n_targets), 0 for a column left out; inverse (n_columns, n_columns), whose
    product with its transpose is the inverse of X'X; residual_variance (n_targets,), the sum of squared residuals over
    the degrees of freedom, or None without any; r2 by target, None where the target does not vary; losses (n_targets,):
    the weighted mean squared errors; largest_eigenvalue: of X'X over the total weight."""

    coefficients: NDArray[np.float64]
    inverse: NDArray[np.float64]
    residual_variance: NDArray[np.float64] | None
    degrees_of_freedom: int
    r2: list[float | None]
    losses: NDArray[np.float64]
    largest_eigenvalue: float
    left_out: list[LeftOut] = field(default_factory=list)


def solve(
    factor: Factor,
    *,
    intercept: bool,
    penalty: Array | None = None,
    last: Sequence[int] = (),
    dependent: float = DEPENDENT,
) -> Solution:
    """Solve for the coefficients that minimise the weighted sum of squares.

    intercept: whether the first column is constant, so that r2 compares with the mean; penalty (n_columns,): what is
    added to the diagonal of X'X, as ridge regression does; last: columns to leave out first where some depend on
    others; dependent: what may be left of a column, relative to it, that others explain. Columns that depend on those
    before them are left out, with coefficient 0. Raises OverflowError.
    """
    p = factor.n_columns
    triangle = factor.triangle()
    if not np.isfinite(triangle.astype(np.float64)).all():
        raise OverflowError("the sums of squares are too large for float64; give large columns another unit")
    order = [column for column in range(p) if column not in set(last)] + list(last)
    original = _retriangulated(triangle, [*order, *range(p, p + factor.n_targets)])
    upper = original
    if penalty is not None:
        rows = np.zeros((p, upper.shape[1]), dtype=upper.dtype)
        rows[np.arange(p), np.arange(p)] = np.sqrt(np.asarray(penalty, dtype=upper.dtype)[order])
        upper = _householder(np.vstack([upper, rows]))[: upper.shape[0]]
    kept, left_out = list(order), []
    while (position := _dependent(upper, len(kept), dependent)) is not None:
        combination = _back(upper[:position, :position], upper[:position, position : position + 1])[:, 0]
        sizes = np.abs(combination) * np.linalg.norm(upper[:position, :position].astype(float), axis=0)
        big = sizes > 1e-8 * float(np.linalg.norm(upper[:, position].astype(float)))
        left_out.append(LeftOut(kept[position], {kept[int(i)]: float(combination[i]) for i in np.nonzero(big)[0]}))
        del kept[position]
        upper = _retriangulated(upper, [i for i in range(upper.shape[1]) if i != position])
    rank = len(kept)
    solved = _back(upper[:rank, :rank], upper[:rank, rank:])
    unit = _back(upper[:rank, :rank], np.eye(rank, dtype=upper.dtype))
    coefficients, inverse = np.zeros((p, factor.n_targets)), np.zeros((p, p))
    coefficients[kept] = solved.astype(np.float64)
    inverse[np.ix_(kept, range(rank))] = unit.astype(np.float64)

    residual = _unexplained(original, order, coefficients if penalty is not None else None, upper, rank)
    targets = original[:, p:]
    total = (targets[1:] if intercept else targets).astype(np.longdouble)
    squares = (total**2).sum(axis=0)
    dof = factor.n_rows - rank
    singular = np.linalg.svd(triangle[:p, :p].astype(np.float64), compute_uv=False)
    weight = max(factor.total_weight, np.finfo(float).tiny)
    return Solution(
        coefficients,
        inverse,
        (residual / dof).astype(np.float64) if dof > 0 and penalty is None else None,
        dof,
        [float(1 - r / s) if s > 0 else None for r, s in zip(residual, squares, strict=True)],
        (residual / weight).astype(np.float64),
        float(singular[0] ** 2 / weight) if p else 0.0,
        left_out,
    )


def mean_squared_errors(factor: Factor, coefficients: Array) -> NDArray[np.float64]:
    """Give the weighted mean squared errors (n_targets,) of coefficients (n_columns, n_targets) on a factor's rows."""
    both = np.vstack([-coefficients, np.eye(factor.n_targets)])
    squares = ((factor.triangle() @ both) ** 2).sum(axis=0)
    return np.asarray(squares / factor.total_weight, dtype=np.float64)


def _unexplained(original: Array, order: Sequence[int], penalised: Array | None, upper: Array, rank: int) -> Array:
    """The sum of squared residuals by target."""
    if penalised is None:
        rest: Array = upper[rank:, rank:]
    else:
        p = len(order)
        rest = original[:, p:] - original[:, :p] @ penalised[list(order)].astype(original.dtype)
    squares: Array = (rest**2).sum(axis=0)
    return squares


def _dependent(upper: Array, n_columns: int, least: float) -> int | None:
    """The first of the columns of which no more than that is left beside those before it."""
    for position in range(n_columns):
        norm = float(np.linalg.norm(upper[: position + 1, position].astype(np.float64)))
        if abs(float(upper[position, position])) <= least * norm:
            return position
    return None


def _retriangulated(upper: Array, columns: Sequence[int]) -> Array:
    chosen = upper[:, columns]
    return chosen if list(columns) == list(range(upper.shape[1])) else _householder(chosen)


def _householder(rows: Array) -> Array:
    """Give the triangle (as many rows as columns, or fewer) of rows, in the precision that they have."""
    if rows.dtype == np.float64:
        return np.asarray(np.linalg.qr(rows, mode="r"))
    rows = rows.copy()
    for j in range(min(rows.shape)):
        column = rows[j:, j]
        scale = np.abs(column).max()
        if not scale:
            continue
        norm = np.copysign(scale * np.sqrt(((column / scale) ** 2).sum()), column[0])
        v = column.copy()
        v[0] += norm
        rows[j:, j:] -= np.outer(v, (v @ rows[j:, j:]) / (norm * v[0]))
        rows[j + 1 :, j] = 0
    return np.triu(rows[: rows.shape[1]])


def _back(upper: Array, right: Array) -> Array:
    """Solve upper @ z = right by back substitution, in the precision that they have."""
    solved = np.array(right, dtype=upper.dtype)
    for i in reversed(range(len(upper))):
        solved[i] = (solved[i] - upper[i, i + 1 :] @ solved[i + 1 :]) / upper[i, i]
    return solved
