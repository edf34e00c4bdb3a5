"""The optimum with a penalty: the path over its strengths, and the choice of one by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from linreg.exact import paths
from linreg.exact.least_squares import Triangle


@dataclass(frozen=True)
class Penalty:
    """strengths: None for automatic ones; l1_ratio: None for ridge, 1 for the lasso; select: how one of several
    strengths is chosen."""

    name: str
    strengths: Sequence[float] | None
    l1_ratio: float | None
    select: Literal["best", "one_se"]

    @property
    def is_chosen(self) -> bool:
        """Whether cross-validation chooses the strength."""
        return self.strengths is None or len(self.strengths) > 1


@dataclass(frozen=True)
class Path:
    """The optima of all strengths. strengths (n_strengths,), the largest first; slopes (n_strengths, p, n_targets) of
    standardised columns; coefficients (n_strengths, n_columns, n_targets) of the columns themselves; errors (n_folds,
    n_strengths): mean squared errors, None if there was no choice; chosen: the position of the strength of the
    result; constant: the columns without variation, whose coefficients are 0."""

    strengths: NDArray[np.float64]
    slopes: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    chosen: int
    constant: list[int]

    @property
    def strength(self) -> float:
        """The strength of the result."""
        return float(self.strengths[self.chosen])

    @property
    def means(self) -> NDArray[np.float64] | None:
        """The mean error (n_strengths,) over the folds."""
        return None if self.errors is None else self.errors.mean(axis=0)

    @property
    def standard_errors(self) -> NDArray[np.float64] | None:
        """The standard errors (n_strengths,) of these means."""
        return None if self.errors is None else paths.standard_error(self.errors)

    @property
    def n_slopes(self) -> int:
        """The number of columns with a slope of the result."""
        return int((self.slopes[self.chosen] != 0).any(axis=1).sum())

    def described(self, penalty: Penalty) -> dict[str, Any]:
        """Return the choice as plain values, for a checkpoint and for people."""
        return {
            "name": penalty.name,
            "strength": self.strength,
            "l1_ratio": penalty.l1_ratio,
            "n_slopes": self.n_slopes,
            "n_columns": self.slopes.shape[1],
            "n_strengths": len(self.strengths),
            "n_folds": None if self.errors is None else len(self.errors),
            "select": None if self.errors is None else penalty.select,
            "error": None if self.means is None else float(self.means[self.chosen]),
            "standard_error": None if self.standard_errors is None else float(self.standard_errors[self.chosen]),
        }


def solve_path(
    train: Triangle,
    folds: Sequence[tuple[Triangle, Triangle]],
    penalty: Penalty,
    *,
    scale: NDArray[np.float64],
) -> Path:
    """Solve for the optimum of each strength on the training rows, and choose one.

    folds: the triangles of the training and the validation rows of each fold, for the choice; scale (n_targets,): of
    the targets, with which errors are in their units."""
    problem = paths.standardise(train)
    if penalty.strengths is None:
        strengths = paths.automatic_strengths(problem, l1_ratio=penalty.l1_ratio)
    else:
        strengths = np.array(sorted(set(penalty.strengths), reverse=True), dtype=np.float64)
    errors, chosen = None, 0
    if penalty.is_chosen:
        errors = paths.cross_validate(folds, strengths, l1_ratio=penalty.l1_ratio, scale=scale)
        chosen = paths.choose(errors, penalty.select)
    slopes = paths.slopes_path(problem, strengths, l1_ratio=penalty.l1_ratio)
    constant = np.flatnonzero(problem.inverse_scales == 0) + train.intercept
    coefficients = paths.original_coefficients(problem, slopes)
    return Path(strengths, slopes, coefficients, errors, chosen, constant.tolist())
