"""Standard errors, tests and intervals of the coefficients of a fit, in the units of the table. `inspect` shows them.

All of it follows from `fit`, a part of a checkpoint (see `closed_form`): no row is read. A robust covariance needs a
pass over the rows (see `robust`). Sources:
N. R. Draper and H. Smith, Applied Regression Analysis, 3rd ed. (1998), sections 1.4, 5.2 and 6.1: t, F, adjusted R2;
D. A. Belsley, E. Kuh and R. E. Welsch, Regression Diagnostics (1980), chapter 3: condition number and VIF;
H. Akaike, A new look at the statistical model identification (1974); G. Schwarz, Estimating the dimension of a model
(1978): AIC and BIC.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NONROBUST = "nonrobust"
FEW_GROUPS = 20  # Cameron and Miller (2015), section VI: between 20 and 50 groups are few
FAR = 1.0  # standard errors between a trained model and its optimum

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Covariance:
    """A covariance of the coefficients on the scale of the network. roots (n_targets, p, r): of target t it is
    roots[t] @ roots[t].T; degrees_of_freedom: of t and F; column, n_groups: those of a clustered one."""

    name: str
    roots: Floats
    degrees_of_freedom: int
    column: str | None = None
    n_groups: int | None = None

    def described(self) -> dict[str, Any]:
        """Return it as plain values, without the matrices."""
        names = ("name", "column", "n_groups", "degrees_of_freedom")
        return {name: getattr(self, name) for name in names}


def no_covariance(fit: Mapping[str, Any]) -> str | None:
    """Return why a fit has no covariance of its coefficients; None if it has one."""
    if is_penalised(fit):
        return "a penalty biases the coefficients, so there are no standard errors"
    if fit["residual_variance"] is None:
        n, k = n_observations(fit), _rank(fit)
        return f"{k} coefficients for {n} rows leave no degrees of freedom, so there are no standard errors"
    return None


def n_observations(fit: Mapping[str, Any]) -> int:
    """Return the number of rows with a weight > 0."""
    n_used = _rank(fit) if fit["penalty"] is None else fit["penalty"]["n_slopes"] + _intercept(fit)
    return int(fit["degrees_of_freedom"]) + n_used


def infer(
    fit: Mapping[str, Any], equation: Mapping[str, Any], *, level: float = 0.95, robust: Covariance | None = None
) -> dict[str, Any]:
    """Return an equation (see `equation`) with its inference.

    Each coefficient also has `p`, of two-sided t, the bounds `low` and `high` of its interval of this level, and `vif`,
    its variance inflation factor. `adjusted_r2`, `log_likelihood`, `aic`, `bic` (with the number of coefficients, not
    counting the variance) and the `f` test of all slopes, or without an intercept of all coefficients, are lists for
    several targets. f: `value`, `p` and both `degrees_of_freedom`. condition_number: of the standardized columns.
    covariance: its name, groups and degrees of freedom. references: the reference categories, which are also in
    `left_out`. notes: sentences about all that does not exist or needs care. A value that does not exist is None.

    A trained model has its own estimates; all else is that of the optimum. robust: replaces the usual covariance.
    """
    inflation, condition_number = _collinearity(fit)
    by_target = [
        _of_target(fit, equation, number, level=level, covariance=robust or _usual_covariance(fit), inflation=inflation)
        for number in range(len(fit["r2"]))
    ]
    single = len(by_target) == 1
    keys = ("adjusted_r2", "f", "log_likelihood", "aic", "bic")
    return {
        **equation,
        "coefficients": [row for one in by_target for row in one["coefficients"]],
        **{key: by_target[0][key] if single else [one[key] for one in by_target] for key in keys},
        "condition_number": condition_number,
        "level": level,
        "covariance": (robust or Covariance(NONROBUST, np.zeros(0), fit["degrees_of_freedom"])).described(),
        "n_rows": fit["n_rows"],
        "n_observations": n_observations(fit),
        "references": [name for name in _first_of_groups(fit) if name in fit["left_out"]],
        "notes": _notes(fit, equation, by_target, robust),
    }


def _of_target(
    fit: Mapping[str, Any],
    equation: Mapping[str, Any],
    target: int,
    *,
    level: float,
    covariance: Covariance | None,
    inflation: Floats,
) -> dict[str, Any]:
    """Return the coefficients and statistics of one target."""
    n_names = len(fit["names"])
    rows = [dict(row) for row in equation["coefficients"][target * n_names : (target + 1) * n_names]]
    log_likelihood = f = None
    if covariance is None or float(fit["residual_variance"][target]) == 0:  # a perfect fit
        rows = [{**row, "t": None, "p": None, "low": None, "high": None} for row in rows]
    else:
        root = fit["transform"].numpy() @ covariance.roots[target] * float(fit["y_scale"][target])
        _add_errors(rows, np.linalg.norm(root, axis=1), covariance, level=level)
        log_likelihood, f = _log_likelihood(fit, target), _f_test(fit, covariance, target)
    offset = n_names - len(fit["columns"])  # names may have an intercept that is no column
    for position, row in enumerate(rows):
        row["vif"] = _finite(inflation[position - offset]) if position >= offset else None
    rank, n, dof = _rank(fit), n_observations(fit), fit["degrees_of_freedom"]
    r2 = fit["r2"][target] if fit["r2_uncentred"] is None else fit["r2_uncentred"][target]
    has_adjusted = r2 is not None and no_covariance(fit) is None
    return {
        "coefficients": rows,
        "adjusted_r2": 1 - (1 - r2) * (n - _intercept(fit)) / dof if has_adjusted else None,
        "f": f,
        "log_likelihood": log_likelihood,
        "aic": None if log_likelihood is None else 2 * rank - 2 * log_likelihood,
        "bic": None if log_likelihood is None else rank * math.log(n) - 2 * log_likelihood,
    }


def _add_errors(rows: list[dict[str, Any]], errors: Floats, covariance: Covariance, *, level: float) -> None:
    """Add t, p and bounds to coefficients, from their standard errors (q,)."""
    from scipy.special import stdtr, stdtrit

    dof = covariance.degrees_of_freedom
    quantile = float(stdtrit(dof, (1 + level) / 2))
    for row, value in zip(rows, errors, strict=True):
        error, estimate = float(value), row["estimate"]
        if row["std_error"] is None or not error > 0:  # of a column that was left out
            row |= {"std_error": None, "t": None, "p": None, "low": None, "high": None}
            continue
        row |= {"std_error": error, "t": estimate / error, "p": float(2 * stdtr(dof, -abs(estimate / error)))}
        row |= {"low": estimate - quantile * error, "high": estimate + quantile * error}


def _usual_covariance(fit: Mapping[str, Any]) -> Covariance | None:
    """Return the covariance for residuals of equal variance, s2 (X'X)^-1; None if there is none."""
    if no_covariance(fit) is not None:
        return None
    deviations = np.sqrt(fit["residual_variance"].numpy())
    return Covariance(NONROBUST, deviations[:, None, None] * fit["inverse"].numpy(), fit["degrees_of_freedom"])


def _f_test(fit: Mapping[str, Any], covariance: Covariance, target: int) -> dict[str, Any] | None:
    """Return the Wald test, in its F form, that all slopes of the optimum are 0; None if it does not exist.

    With a root C of the covariance of the slopes b, b' (C C')^-1 b is the squared length of the shortest solution z of
    C z = b."""
    slopes = np.flatnonzero(fit["inverse"].numpy().any(axis=1))
    slopes = slopes[slopes >= _intercept(fit)]
    root, b = covariance.roots[target][slopes], fit["coefficients"].numpy()[slopes, target]
    sizes = np.linalg.norm(root, axis=1)
    if not len(slopes) or not sizes.all():
        return None
    z, _, rank, _ = np.linalg.lstsq(root / sizes[:, None], b / sizes, rcond=None)
    if rank < len(slopes) or covariance.degrees_of_freedom < 1:
        return None
    from scipy.special import fdtrc

    value, degrees = float(z @ z) / len(slopes), (len(slopes), covariance.degrees_of_freedom)
    return {"value": value, "degrees_of_freedom": list(degrees), "p": float(fdtrc(*degrees, value))}


def _log_likelihood(fit: Mapping[str, Any], target: int) -> float | None:
    """Return the largest log-likelihood of normal residuals with the variance sigma^2 / weight; None for a weighted fit
    that does not have the sum of the logarithms of its weights.

    With n rows and S the weighted sum of squared residuals it is (sum(log w) - n (log(2 pi S / n) + 1)) / 2."""
    n = n_observations(fit)
    squares = float(fit["residual_variance"][target]) * fit["degrees_of_freedom"] * float(fit["y_scale"][target]) ** 2
    if fit["log_weights"] is None or not squares > 0:
        return None
    return float(fit["log_weights"] - n * (math.log(2 * math.pi * squares / n) + 1)) / 2


def _collinearity(fit: Mapping[str, Any]) -> tuple[Floats, float | None]:
    """Return the variance inflation factors (p,), NaN where there is none, and the condition number of the columns.

    With an intercept, columns are centred. Each is divided by its length. The factor of a column is the square of its
    length times that of its row in the inverse of the triangle R of the columns."""
    factors = np.full(len(fit["columns"]), np.nan)
    if is_penalised(fit):  # `inverse` is not that of X'X alone
        return factors, None
    inverse = fit["inverse"].numpy()
    used = np.flatnonzero(inverse.any(axis=1))
    order = used[np.argsort((inverse[used] != 0).argmax(axis=1), kind="stable")]
    first = _intercept(fit)
    upper, slopes = inverse[order, : len(order)][first:, first:], order[first:]
    if not len(slopes) or upper.shape != (len(slopes), len(slopes)) or not np.diag(upper).all():
        return factors, None
    lengths = np.linalg.norm(np.linalg.inv(upper), axis=0)
    scaled = lengths[:, None] * upper
    factors[slopes] = (scaled**2).sum(axis=1)
    return factors, _finite(np.linalg.cond(scaled))


def _notes(
    fit: Mapping[str, Any],
    equation: Mapping[str, Any],
    by_target: list[dict[str, Any]],
    robust: Covariance | None,
) -> list[str]:
    """Return sentences about all that does not exist or needs care."""
    reason, notes = no_covariance(fit), []
    if not fit["exact"]:
        notes.append("the estimates are the trained model's, all other numbers are those of the exact optimum")
        notes += _distance(fit, by_target)
    if reason is not None:
        notes.append(reason)
    if equation["perfect_fit"]:
        notes.append(
            f"perfect fit of {', '.join(equation['perfect_fit'])}: residuals are zero up to rounding, so "
            "standard errors and tests are not meaningful"
        )
    elif reason is None:
        notes += _notes_of_tests(fit, by_target, robust)
    if fit["targets"] is not None:
        notes.append(f"all numbers describe {', '.join(fit['targets'])}, not the target itself")
    return notes


def _notes_of_tests(fit: Mapping[str, Any], by_target: list[dict[str, Any]], robust: Covariance | None) -> list[str]:
    """Return the sentences about a fit with standard errors."""
    notes, n_slopes = [], _rank(fit) - _intercept(fit)
    if n_slopes and any(one["f"] is None for one in by_target):
        notes.append("no F test: the covariance of the slopes is singular")
    if robust is not None and robust.n_groups is not None and robust.n_groups < FEW_GROUPS:
        notes.append(f"{robust.n_groups} groups are few: clustered standard errors are then often too small")
    if fit["log_weights"] is None:
        notes.append("no log-likelihood: the checkpoint of an earlier version lacks a sum; train again")
    return notes


def _distance(fit: Mapping[str, Any], by_target: list[dict[str, Any]]) -> list[str]:
    """Describe how far a trained model is from its optimum, in standard errors."""
    rows = [row for one in by_target for row in one["coefficients"] if row["t"] is not None]
    if not rows:
        return []
    if set(fit["left_out"]) - set(_first_of_groups(fit)):
        return ["it divides the effect among linearly dependent columns, so p values and intervals do not hold"]
    distance, name = max((abs(row["estimate"] - row["exact"]) / row["std_error"], row["name"]) for row in rows)
    text = f"largest distance from the optimum: {distance:.2g} standard errors ({name})"
    return [text + ("; p values and intervals do not hold, train longer" if distance > FAR else "")]


def _first_of_groups(fit: Mapping[str, Any]) -> list[str]:
    return [fit["names"][group[0]] for group in fit["groups"]]


def _rank(fit: Mapping[str, Any]) -> int:
    """Return the number of coefficients without those of columns that were left out."""
    return len(fit["columns"]) - len(fit["left_out"])


def _intercept(fit: Mapping[str, Any]) -> int:
    """Return 1 for a fit with an intercept, else 0."""
    return int(fit["r2_uncentred"] is None and fit["columns"][:1] == ["intercept"])


def is_penalised(fit: Mapping[str, Any]) -> bool:
    """Return whether a penalty was added to the squared errors of a fit."""
    return fit["penalty"] is not None or fit["ridge"] > 0


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
