"""The fitted equation of a model that is linear in its parameters, in the units of the table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 10  # terms in the text of an equation


def equation(fit: Mapping[str, Any], state: Mapping[str, Any], target_names: Sequence[str]) -> dict[str, Any]:
    """Return the equation of a model in the table's units, from a checkpoint's `fit` (see `closed_form`).

    coefficients: by target and column, the intercept first: `name`, `estimate` (of the model), `std_error` and `t`
    (None with ridge, and for a column that was left out; t also for a perfect fit), `exact` (of the optimum); `target`
    if there are several. r2, and r2_uncentred without an intercept: of the optimum on the training part, a list for
    several targets. residual_std_error, degrees_of_freedom: of the optimum. perfect_fit: the targets whose residuals
    are zero up to rounding. targets: the transformed targets that all of this describes, if there is a transform.
    """
    target_names = fit.get("targets") or target_names
    transform, scale = fit["transform"].numpy(), fit["y_scale"].numpy()
    trained = _own_coefficients(fit, state)
    estimates, optimum = (in_units(fit, values) for values in (trained, fit["coefficients"].numpy()))
    spread = np.linalg.norm(transform @ fit["inverse"].numpy(), axis=1)
    variance = None if fit["residual_variance"] is None else fit["residual_variance"].numpy()
    left_out = set(fit["left_out"])
    coefficients, texts = [], []
    for column, target in enumerate(target_names):
        deviation = float(np.sqrt(variance[column])) * float(scale[column]) if variance is not None else None
        for row, name in enumerate(fit["names"]):
            error = None if deviation is None or name in left_out else float(spread[row]) * deviation
            estimate = float(estimates[row, column])
            coefficients.append(
                {
                    **({"target": target} if len(target_names) > 1 else {}),
                    "name": name,
                    "estimate": estimate,
                    "std_error": error,
                    "t": estimate / error if error else None,
                    "exact": float(optimum[row, column]),
                }
            )
        texts.append(_text(target, fit["names"], estimates[:, column]))
    deviations = None if variance is None else [float(v**0.5 * s) for v, s in zip(variance, scale, strict=True)]
    is_transformed = fit.get("targets") is not None
    single, uncentred = len(target_names) == 1, fit.get("r2_uncentred")
    return {
        "equation": texts[0] if single else texts,
        "coefficients": coefficients,
        **({"targets": list(target_names)} if is_transformed else {}),
        "r2": fit["r2"][0] if single else fit["r2"],
        **({} if fit.get("penalty") is None else {"penalty": dict(fit["penalty"])}),
        **({} if uncentred is None else {"r2_uncentred": uncentred[0] if single else uncentred}),
        "residual_std_error": deviations[0] if deviations and single else deviations,
        "degrees_of_freedom": fit["degrees_of_freedom"],
        "left_out": list(fit["left_out"]),
        "perfect_fit": [] if variance is None else [t for t, v in zip(target_names, variance, strict=True) if v == 0],
    }


def _own_coefficients(fit: Mapping[str, Any], state: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the coefficients (p, n_targets) of the model itself."""
    if fit["exact"]:
        exact: NDArray[np.float64] = fit["coefficients"].numpy()  # in float64, whatever the model has
        return exact
    weight = state[f"{fit['layer']}.weight"].double().numpy().T
    bias = state.get(f"{fit['layer']}.bias")
    return weight if bias is None else np.vstack([bias.double().numpy(), weight])


def in_units(fit: Mapping[str, Any], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients (q, n_targets) of the table's columns, in the order of `names`, for those of the network
    (p, n_targets)."""
    in_units: NDArray[np.float64] = (fit["transform"].numpy() @ coefficients) * fit["y_scale"].numpy()
    if fit["names"] and fit["names"][0] == "intercept":
        in_units[0] += fit["y_mean"].numpy()
        for first, *others in fit["groups"]:
            if fit["names"][first] in fit["left_out"]:  # categories are relative to the first, as in the optimum
                in_units[0] += in_units[first]
                in_units[others] -= in_units[first]
                in_units[first] = 0
    return in_units


def _text(target: str, names: Sequence[str], estimates: NDArray[np.float64]) -> str:
    terms: list[str] = []
    for name, estimate in zip(names, estimates, strict=True):
        size = f"{abs(estimate):.6g}" + ("" if name == "intercept" else f" {name}")
        sign = "-" if estimate < 0 else "+" if terms else ""
        terms.append(f"{sign} {size}".strip() if terms else f"{sign}{size}")
    more = [f"+ ... ({len(terms) - MOST} more)"] if len(terms) > MOST else []
    return f"{target} = {' '.join([*terms[:MOST], *more])}"
