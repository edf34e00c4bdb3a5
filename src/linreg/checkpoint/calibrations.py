"""The `intervals` of a checkpoint: what calibrates its prediction intervals, and their checks.

`split`: `scores` (n, n_targets), the absolute errors on the calibration part, ascending for each target, in the
targets' units, or in those of the transformed target. `cv_plus`: `folds`, each with the `model_state_dict` and the
`preprocessing` of the model without it, and its `scores`. `jackknife_plus`: `shifts` (n, p) and `errors`
(n, n_targets), see `experiment.intervals.leverages`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

_KEYS: dict[str, dict[str, type]] = {
    "split": {"scores": torch.Tensor},
    "cv_plus": {"folds": list},
    "jackknife_plus": {"shifts": torch.Tensor, "errors": torch.Tensor},
}
_OF_FOLD: dict[str, type] = {"model_state_dict": dict, "preprocessing": dict, "scores": torch.Tensor}


def n_calibration_rows(intervals: Mapping[str, Any]) -> int:
    """Return the number of rows that calibrate intervals."""
    if intervals["method"] == "cv_plus":
        return sum(len(fold["scores"]) for fold in intervals["folds"])
    return len(intervals["scores" if intervals["method"] == "split" else "errors"])


def described(intervals: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the method and the number of rows of intervals as plain values."""
    return None if intervals is None else {"method": intervals["method"], "n_rows": n_calibration_rows(intervals)}


def calibration_problems(
    intervals: Mapping[str, Any], *, n_targets: int, n_fitted: int | None, is_described: Callable[[Any], bool]
) -> list[str]:
    """Check the shapes that `open_intervals` relies on. n_fitted: the columns of an exact fit, or None without one;
    is_described: whether a preprocessing describes the features. The model of a fold is checked when it is built."""
    method = intervals.get("method")
    if type(method) is not str or method not in _KEYS:
        return ["intervals has an unknown method"]
    if not _has_types({key: value for key, value in intervals.items() if key != "method"}, _KEYS[method]):
        return [f"intervals of {method} has other parts"]
    if method == "split":
        is_valid = _are_scores(intervals["scores"], n_targets)
    elif method == "cv_plus":
        folds = intervals["folds"]
        is_valid = len(folds) >= 2 and all(_is_fold(fold, n_targets, is_described) for fold in folds)
    else:
        errors, shifts = intervals["errors"], intervals["shifts"]
        is_valid = n_fitted is not None and _is_table(errors, n_targets) and shifts.shape == (len(errors), n_fitted)
        is_valid = is_valid and shifts.dtype == torch.float64
    return [] if is_valid else ["intervals does not match the model"]


def _is_fold(fold: Any, n_targets: int, is_described: Callable[[Any], bool]) -> bool:
    if type(fold) is not dict or not _has_types(fold, _OF_FOLD) or not is_described(fold["preprocessing"]):
        return False
    state = fold["model_state_dict"]
    are_tensors = all(type(key) is str and type(value) is torch.Tensor for key, value in state.items())
    return are_tensors and _are_scores(fold["scores"], n_targets)


def _has_types(values: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    return set(values) == set(types) and all(type(values[key]) is types[key] for key in types)


def _is_table(values: torch.Tensor, n_targets: int) -> bool:
    return values.dim() == 2 and len(values) > 0 and values.shape[1] == n_targets and values.dtype == torch.float64


def _are_scores(scores: torch.Tensor, n_targets: int) -> bool:
    """Return whether scores are absolute errors in ascending order."""
    return _is_table(scores, n_targets) and bool((scores[0] >= 0).all()) and bool((scores.diff(dim=0) >= 0).all())
