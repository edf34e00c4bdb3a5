"""Least squares by QR, in one pass over blocks of rows. Memory depends on the number of columns only.

The triangle R of the QR factorisation of [X y] determines the coefficients, the residuals, the standard errors, and the
spectrum of X'X. A block is added by factorising R stacked on its rows. Source:
G. H. Golub and C. F. Van Loan, Matrix Computations, 4th ed., sections 5.2, 5.3 and 6.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

ROWS = 2**14  # gathered before they are factorised
PIECE = 2**13  # values factorised at once: they fit the near caches, and OpenBLAS uses one thread
WIDE_ROWS = 2**12  # factorised at once if a piece of that size would be wider than high
SMALL = 2e6  # n_rows * n_columns^2 up to which extended precision takes no noticeable time
PERFECT = 1e-15  # relative size of residuals that are rounding; as in the summary of R's lm
CONSTANT = 1e-13  # relative size of the variation of a constant column
DEPENDENT = 1e-11  # relative size of the rest of a column that is linearly dependent on others

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Triangle:
    """R of rows [design | y], each times the square root of its weight. A design without an intercept has a column of
    ones after y, for the mean of y. values: a square, in extended precision if there are few rows; n_observations: the
    number of rows with a weight > 0; total_weight, log_weights: the sums of their weights and of the logarithms."""

    values: Array
    n_columns: int
    n_targets: int
    intercept: bool
    n_rows: int
    n_observations: int
    total_weight: float
    log_weights: float

    def __post_init__(self) -> None:
        """Raise an OverflowError if the triangle is not finite."""
        if not np.isfinite(self.values.astype(np.float64)).all():
            raise OverflowError("the sums of squares are too large for float64; give large columns another unit")


def stack(triangles: Sequence[Triangle]) -> Triangle:
    """Return the triangle of the rows of several triangles."""
    if len(triangles) == 1:
        return triangles[0]
    return replace(
        triangles[0],
        values=_householder(np.vstack([one.values for one in triangles])),
        n_rows=sum(one.n_rows for one in triangles),
        n_observations=sum(one.n_observations for one in triangles),
        total_weight=sum(one.total_weight for one in triangles),
        log_weights=sum(one.log_weights for one in triangles),
    )


class Factor:
    """The triangle of a growing number of rows.

    The triangle and the sums of the weights do not depend on how the rows are cut into blocks, to the last bit."""

    def __init__(self, n_columns: int, n_targets: int, *, intercept: bool = True) -> None:
        self.n_columns, self.n_targets, self.intercept = n_columns, n_targets, intercept
        self.n_rows = self.n_observations = 0  # an observation has a weight > 0
        width = n_columns + n_targets + (not intercept)
        self._rows = np.empty((width + ROWS, width))  # the triangle so far, then the rows to add to it
        self._rows[:width] = 0
        self._n_filled = width
        self._weights = np.empty(ROWS)  # of the rows to add
        self._total_before = self._logs_before = 0.0  # of all rows before

    @property
    def total_weight(self) -> float:
        """The sum of the weights of all rows."""
        return self._total_before + float(self._waiting.sum())

    @property
    def log_weights(self) -> float:
        """The sum of the logarithms of the weights > 0."""
        return self._logs_before + float(np.log(self._waiting[self._waiting > 0]).sum())

    @property
    def _waiting(self) -> NDArray[np.float64]:
        return self._weights[: self._n_filled - self._rows.shape[1]]

    def add(self, design: Array, y: Array, weight: Array | None = None) -> None:
        """Add rows: design (n, n_columns), y (n, n_targets), weight (n,) or None."""
        root = None if weight is None else np.sqrt(weight.astype(np.float64))[:, None]
        self.n_rows += len(design)
        self.n_observations += len(design) if weight is None else int(np.count_nonzero(weight))
        first, width = 0, self._rows.shape[1]
        while first < len(design):
            room = self._rows[self._n_filled : self._n_filled + len(design) - first]
            last = first + len(room)
            end = self.n_columns + self.n_targets
            room[:, : self.n_columns], room[:, self.n_columns : end] = design[first:last], y[first:last]
            room[:, end:] = 1.0
            if root is not None:
                room *= root[first:last]
            self._weights[self._n_filled - width :][: len(room)] = 1.0 if weight is None else weight[first:last]
            first, self._n_filled = last, self._n_filled + len(room)
            if self._n_filled == len(self._rows):
                self._total_before, self._logs_before = self.total_weight, self.log_weights
                self._rows[:width] = _householder(self._rows)
                self._n_filled = width

    def triangle(self) -> Triangle:
        """Return the triangle of the rows so far. Raises OverflowError."""
        rows, width = self._rows[: self._n_filled], self._rows.shape[1]
        is_small = self.n_rows == len(rows) - width and self.n_rows * width**2 <= SMALL
        values = _householder(rows.astype(np.longdouble) if is_small else rows)
        sizes = (self.n_rows, self.n_observations, self.total_weight, self.log_weights)
        return Triangle(values, self.n_columns, self.n_targets, self.intercept, *sizes)


@dataclass(frozen=True)
class LeftOut:
    """A linearly dependent column: the sum of other columns times the factors in `combination`."""

    column: int
    combination: dict[int, float]


@dataclass(frozen=True)
class Solution:
    """The optimum. coefficients (n_columns, n_targets), 0 for a column left out; inverse (n_columns, n_columns), whose
    product with its transpose is the inverse of X'X, with a penalty of X'X and the penalty; residual_variance
    (n_targets,), the sum of squared residuals over
    the degrees of freedom, 0 for a perfect fit, or None without any; r2 by target, None where the target does not vary;
    r2_uncentred: the same relative to 0 instead of the mean, for a design without an intercept; losses (n_targets,):
    the weighted mean squared errors; largest_eigenvalue: of X'X over the total weight."""

    coefficients: NDArray[np.float64]
    inverse: NDArray[np.float64]
    residual_variance: NDArray[np.float64] | None
    degrees_of_freedom: int
    r2: list[float | None]
    r2_uncentred: list[float | None] | None
    losses: NDArray[np.float64]
    largest_eigenvalue: float
    left_out: list[LeftOut] = field(default_factory=list)


def solve(
    triangle: Triangle,
    *,
    penalty: Array | None = None,
    last: Sequence[int] = (),
    dependent: float = DEPENDENT,
    rounding: float = 0.0,
    offset: Array | None = None,
) -> Solution:
    """Solve for the coefficients that minimise the weighted sum of squares of the rows of a triangle.

    penalty (n_columns,): added to the diagonal of X'X, as in ridge regression; last: the first columns to leave out
    among linearly dependent ones; dependent: the relative size of the rest of a dependent column; rounding: the
    relative rounding of y; offset (n_targets,): a constant that was subtracted from y. Columns that depend on those
    before them are left out, with coefficient 0.
    """
    p, t = triangle.n_columns, triangle.n_targets
    order = [column for column in range(p) if column not in set(last)] + list(last)
    original = _retriangulated(triangle.values, [*order, *range(p, len(triangle.values))])
    upper = original
    if penalty is not None:
        rows = np.zeros((p, upper.shape[1]), dtype=upper.dtype)
        rows[np.arange(p), np.arange(p)] = np.sqrt(np.asarray(penalty, dtype=upper.dtype)[order])
        upper = _householder(np.vstack([upper, rows]))
    kept, left_out = list(order), []
    while (position := _dependent(upper, len(kept), dependent)) is not None:
        combination = _back(upper[:position, :position], upper[:position, position : position + 1])[:, 0]
        sizes = np.abs(combination) * np.linalg.norm(upper[:position, :position].astype(float), axis=0)
        big = sizes > 1e-8 * float(np.linalg.norm(upper[:, position].astype(float)))
        left_out.append(LeftOut(kept[position], {kept[int(i)]: float(combination[i]) for i in np.nonzero(big)[0]}))
        del kept[position]
        upper = _retriangulated(upper, [i for i in range(upper.shape[1]) if i != position])
    rank = len(kept)
    solved = _back(upper[:rank, :rank], upper[:rank, rank : rank + t])
    coefficients, inverse = np.zeros((p, t)), np.zeros((p, p))
    coefficients[kept] = solved.astype(np.float64)
    inverse[np.ix_(kept, range(rank))] = _back(upper[:rank, :rank], np.eye(rank, dtype=upper.dtype)).astype(np.float64)

    if penalty is not None:
        return replace(given(triangle, coefficients, n_used=rank), inverse=inverse, left_out=left_out)
    rest = upper[rank:, rank : rank + t]
    solution = _with_residuals(triangle, coefficients, rest, rank)
    weight = max(triangle.total_weight, np.finfo(float).tiny)
    residual, squares = (rest**2).sum(axis=0), (original[:, p : p + t].astype(np.longdouble) ** 2).sum(axis=0)
    unshifted = squares if offset is None else squares + weight * np.asarray(offset, np.longdouble) ** 2
    is_perfect = residual <= PERFECT**2 * unshifted + rounding**2 * squares
    dof = solution.degrees_of_freedom
    variance = np.where(is_perfect, 0.0, residual / max(dof, 1)).astype(np.float64)
    return replace(solution, inverse=inverse, residual_variance=variance if dof > 0 else None, left_out=left_out)


def given(triangle: Triangle, coefficients: NDArray[np.float64], *, n_used: int) -> Solution:
    """Return the solution with given coefficients (n_columns, n_targets), as a penalty shrinks them. It has neither an
    inverse nor a residual variance. n_used: the number of columns with a coefficient."""
    p, end = triangle.n_columns, triangle.n_columns + triangle.n_targets
    values = triangle.values
    return _with_residuals(triangle, coefficients, values[:, p:end] - values[:, :p] @ coefficients, n_used)


def _with_residuals(triangle: Triangle, coefficients: NDArray[np.float64], rest: Array, n_used: int) -> Solution:
    """rest (n, n_targets): rows with the sums of squares and products of the residuals."""
    p, t, values = triangle.n_columns, triangle.n_targets, triangle.values
    residual = (rest**2).sum(axis=0)
    squares = (values[:, p : p + t].astype(np.longdouble) ** 2).sum(axis=0)
    weight = max(triangle.total_weight, np.finfo(float).tiny)
    singular = np.linalg.svd(values[:p, :p].astype(np.float64), compute_uv=False)
    return Solution(
        coefficients,
        np.zeros((p, p)),
        None,
        triangle.n_observations - n_used,
        _r2(residual, _squares_around_mean(values[:, p:], triangle.intercept)),
        None if triangle.intercept else _r2(residual, squares),
        (residual / weight).astype(np.float64),
        float(singular[0] ** 2 / weight) if p else 0.0,
    )


def _r2(residual: Array, total: Array) -> list[float | None]:
    return [float(1 - r / s) if s > 0 else None for r, s in zip(residual, total, strict=True)]


def _squares_around_mean(targets: Array, intercept: bool) -> Array:
    """Return the sum of squares of each target around its mean, 0 for a constant one. targets: the last columns of the
    triangle."""
    if not intercept:  # the ones first, then y
        n = targets.shape[1]
        targets = _householder(targets[:, [n - 1, *range(n - 1)]])[:, 1:]
    squares = targets.astype(np.longdouble) ** 2
    around_mean: Array = squares[1:].sum(axis=0)
    return np.where(around_mean <= CONSTANT**2 * squares.sum(axis=0), 0.0, around_mean)


def mean_squared_errors(triangle: Triangle, coefficients: Array) -> NDArray[np.float64]:
    """Return the weighted mean squared errors (..., n_targets) of coefficients (..., n_columns, n_targets) on the rows
    of a triangle."""
    p, end = triangle.n_columns, triangle.n_columns + triangle.n_targets
    residuals = triangle.values[:, p:end] - triangle.values[:, :p] @ coefficients
    return np.asarray((residuals**2).sum(axis=-2) / triangle.total_weight, dtype=np.float64)


def _dependent(upper: Array, n_columns: int, least: float) -> int | None:
    """Return the first column that depends linearly on those before it, or None."""
    for position in range(n_columns):
        norm = float(np.linalg.norm(upper[: position + 1, position].astype(np.float64)))
        if abs(float(upper[position, position])) <= least * norm:
            return position
    return None


def _retriangulated(upper: Array, columns: Sequence[int]) -> Array:
    chosen = upper[:, columns]
    return chosen if list(columns) == list(range(upper.shape[1])) else _householder(chosen)


def _householder(rows: Array) -> Array:
    """Return the triangle of rows, in their precision. It has at most as many rows as columns."""
    return _by_tree(rows) if rows.dtype == np.float64 else _in_extended_precision(rows)


def _by_tree(rows: Array) -> Array:
    """Factorise pieces of the rows, then their triangles stacked, until one piece is left. Source: J. Demmel,
    L. Grigori, M. Hoemmen and J. Langou, Communication-optimal parallel and sequential QR and LU factorizations (2012),
    section 4."""
    width = rows.shape[1]
    height, triangles_of = PIECE // width, _by_numpy
    if height < 2 * width:  # the triangles would be almost as high as the pieces
        height, triangles_of = max(WIDE_ROWS, 4 * width), _by_torch
    while len(rows) > height:
        n_pieces, rest = divmod(len(rows), height)
        pieces = rows[: len(rows) - rest].reshape(n_pieces, height, width)
        rows = np.vstack([triangles_of(pieces).reshape(-1, width), rows[len(rows) - rest :]])
    return triangles_of(rows)


def _by_numpy(pieces: Array) -> Array:
    """Return the triangles (..., width, width) of pieces (..., height, width)."""
    return np.asarray(np.linalg.qr(pieces, mode="r"))


def _by_torch(pieces: Array) -> Array:
    """Return the same as `_by_numpy`, on one thread, which torch can set and NumPy cannot.

    Several threads would wait for each other at every column, and their number would change the last bits."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        packed, _ = torch.geqrf(torch.from_numpy(pieces))
    finally:
        torch.set_num_threads(n_threads)
    triangles: Array = packed[..., : pieces.shape[-1], :].triu().numpy()
    return triangles


def _in_extended_precision(rows: Array) -> Array:
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
    """Solve upper @ z = right by back substitution, in their precision."""
    solved = np.array(right, dtype=upper.dtype)
    for i in reversed(range(len(upper))):
        solved[i] = (solved[i] - upper[i, i + 1 :] @ solved[i + 1 :]) / upper[i, i]
    return solved
