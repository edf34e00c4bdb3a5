"""Covariances of the coefficients that hold without equal variances of the residuals, from a pass over the rows.

Sources: J. G. MacKinnon and H. White, Some heteroskedasticity-consistent covariance matrix estimators with improved
finite sample properties (1985): HC0 to HC3; A. C. Cameron and D. L. Miller, A practitioner's guide to cluster-robust
inference (2015), section II: clusters. Rows with weights are multiplied by the square roots of them, as in least
squares.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.exact.inference import Covariance, n_observations

HC = ("HC0", "HC1", "HC2", "HC3")
CLUSTER = "cluster"
LEAST_REST = 1e-10  # of 1 - leverage: below it the residual of a row is rounding
ROUNDING = 1e-13  # least eigenvalue of M, relative to the largest

Floats = NDArray[np.float64]


class LeverageError(ValueError):
    """A row determines a coefficient by itself, so its residual says nothing. row: its position among the added."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row} has the leverage 1")
        self.row = row


class Sandwich:
    """The covariance (X'X)^-1 M (X'X)^-1 of a fit, gathered from blocks of rows.

    The scores of a row are x times its residual; M is the sum of their squares, or with groups that of the squares of
    their sums by group. Columns are orthonormal on the way, so that large and small ones keep their digits."""

    def __init__(self, fit: Mapping[str, Any], name: str, *, n_groups: int | None = None) -> None:
        """name: one of HC, or CLUSTER with the number of groups."""
        self.fit, self.name, self.n_groups = fit, name, n_groups
        self.inverse, self.coefficients = fit["inverse"].numpy(), fit["coefficients"].numpy()
        rank, n_targets = self.inverse.shape[1], self.coefficients.shape[1]
        self._sums = np.zeros((n_targets, n_groups or rank, rank))

    def add(
        self, design: Floats, y: Floats, weight: NDArray[Any] | None = None, groups: NDArray[Any] | None = None
    ) -> None:
        """Add rows: design (n, p), y (n, n_targets), weight (n,), groups (n,) numbers < n_groups. Raises
        LeverageError."""
        root = np.ones(len(design)) if weight is None else np.sqrt(weight)
        residuals = root[:, None] * (y - design @ self.coefficients)
        columns = root[:, None] * (design @ self.inverse)
        if self.name in ("HC2", "HC3"):
            rest = 1 - (columns**2).sum(axis=1)
            if (rest < LEAST_REST).any():
                raise LeverageError(int(np.argmax(rest < LEAST_REST)))
            residuals /= (np.sqrt(rest) if self.name == "HC2" else rest)[:, None]
        for target, residual in enumerate(residuals.T):
            scores = columns * residual[:, None]
            if groups is None:
                self._sums[target] += scores.T @ scores
            else:
                np.add.at(self._sums[target], groups, scores)

    def covariance(self, column: str | None = None) -> Covariance:
        """Return the covariance of the rows so far. column: the name of the groups."""
        n, dof = n_observations(self.fit), int(self.fit["degrees_of_freedom"])
        factor = n / dof if self.name == "HC1" else 1.0
        squares = self._sums
        if self.n_groups is not None:
            factor = self.n_groups / (self.n_groups - 1) * (n - 1) / dof
            squares, dof = self._sums.transpose(0, 2, 1) @ self._sums, self.n_groups - 1
        values, vectors = np.linalg.eigh(squares * factor)
        values[values < ROUNDING * values.max(axis=1, keepdims=True)] = 0.0
        roots = self.inverse @ (vectors * np.sqrt(values)[:, None, :])
        return Covariance(self.name, roots, dof, column, self.n_groups)
