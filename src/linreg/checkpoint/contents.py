"""The content of a checkpoint, and the checks of values from a file. `files` and `serializing` use this module."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
import torch

from linreg.checkpoint.calibrations import calibration_problems
from linreg.system import generators

FORMAT = "linreg"
VERSION = 4  # 2: preprocessing, fit; 3: NumPy's and Python's generators; 4: checksums of the tensors
SMALL = 2**16  # elements; NumPy checks fewer of them faster than torch


@dataclass
class Checkpoint:
    """Everything needed to resume a run as if it was never interrupted, or to use its model elsewhere.

    epoch: the number of finished epochs. loss, val_loss, lr: one value for each of them. planned_epochs: the number of
    epochs that the scheduler was made for. position: the losses of the finished batches of the next epoch.
    loader_state: the state of the loaders' generator at the start of that epoch. rng_state, cuda_rng_state,
    numpy_rng_state, python_rng_state: the states of the global generators (see `generators`). preprocessing: the
    features with ranges and categories. best: the best epoch with its losses, its spec and the states at its end, or
    None. fit: the optimum by the closed form (see `exact`), or None. intervals: what calibrates the prediction
    intervals (see `calibrations`), or None. resumed_at: the epochs at which the run was
    resumed. outcome: `running`, `interrupted`, `finished` or `early_stopped`. run: the name and id of its run.
    """

    epoch: int
    model_state_dict: dict[str, Any]
    optimizer_state_dict: dict[str, Any]
    scheduler_state_dict: dict[str, Any] | None
    loss: list[float]
    val_loss: list[float | None]
    lr: list[float]
    spec: dict[str, Any]
    planned_epochs: int
    preprocessing: dict[str, Any]
    n_features: int
    n_targets: int
    feature_names: list[str]
    target_names: list[str]
    position: list[float]
    loader_state: torch.Tensor
    rng_state: torch.Tensor
    cuda_rng_state: torch.Tensor | None
    numpy_rng_state: dict[str, Any]
    python_rng_state: dict[str, Any]
    best: dict[str, Any] | None
    fit: dict[str, Any] | None
    intervals: dict[str, Any] | None
    resumed_at: list[int]
    outcome: str
    run: dict[str, str]
    data_fingerprint: str
    environment: dict[str, Any]
    path: Path = field(default=Path(), compare=False)  # the file it was loaded from; not saved

    @property
    def best_epoch(self) -> int | None:
        """The epoch, counted from 0, with the lowest validation loss, or training loss without validation."""
        return self.best["epoch"] if self.best else None


def _types(annotation: Any) -> tuple[type, ...]:
    """Return the types of an annotation: `list[float] | None` is (list, NoneType)."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return tuple(get_origin(option) or option for option in options)


_TYPES = {f.name: _types(f.type) for f in fields(Checkpoint) if f.compare}
KEYS = frozenset(_TYPES)
LATER: dict[str, Any] = {"intervals": None}  # parts that a checkpoint of an earlier version lacks
_ENVELOPE: dict[str, tuple[type, ...]] = {"format": (str,), "version": (int,), "checksums": (list,)}
_STATES = {key: types for key, types in _TYPES.items() if key.endswith(("_state", "_state_dict"))}
_BEST = {"epoch": (int,), "loss": (float,), "val_loss": (float, type(None)), "spec": (dict,), "states": (dict,)}
_FIT = {
    "columns": (list,), "coefficients": (torch.Tensor,), "inverse": (torch.Tensor,),
    "residual_variance": (torch.Tensor, type(None)), "degrees_of_freedom": (int,), "n_rows": (int,), "r2": (list,),
    "left_out": (list,), "names": (list,), "transform": (torch.Tensor,), "groups": (list,), "y_mean": (torch.Tensor,),
    "y_scale": (torch.Tensor,), "layer": (str,), "exact": (bool,), "ridge": (float,),
    "r2_uncentred": (list, type(None)), "relations": (list,), "targets": (list, type(None)),
    "penalty": (dict, type(None)), "log_weights": (float, type(None)),
}  # fmt: skip
# parts that a fit of an earlier version lacks
_FIT_LATER: dict[str, Any] = {
    "r2_uncentred": None, "relations": [], "targets": None, "penalty": None, "log_weights": None,
}  # fmt: skip
_PENALTY: dict[str, tuple[type, ...]] = {
    "name": (str,), "strength": (float,), "l1_ratio": (float, type(None)), "n_slopes": (int,), "n_columns": (int,),
    "n_strengths": (int,), "n_folds": (int, type(None)), "select": (str, type(None)), "error": (float, type(None)),
    "standard_error": (float, type(None)),
}  # fmt: skip
_OUTCOMES = ("running", "interrupted", "finished", "early_stopped")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAY_BE_INFINITE = ("optimizer_state_dict", "scheduler_state_dict")  # such as the best loss before the first epoch
_DEPTH = 32


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all elements are finite, without a copy of a large tensor."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.numel() < SMALL and tensor.dtype != torch.bfloat16:
        return bool(np.isfinite(tensor.numpy(force=True)).all())  # four times as fast as torch
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor.detach()))


def printable(value: Any) -> str:
    """Return a value from a file as short text for a message, without control characters."""
    return ascii(value)[:60] if isinstance(value, str | int | float | None) else type(value).__name__


def value_problem(content: Mapping[str, Any], *, most: int) -> str | None:
    """Describe a value that is neither plain nor a dense, finite tensor with its own memory; None if there is none.

    most: the allowed number of values. Tensors of `best` may share their memory with those outside of it.
    """
    used: dict[bool, set[int]] = {True: set(), False: set()}  # addresses, inside and outside of `best`
    waiting: list[tuple[str, int, Any]] = [(str(key), 1, value) for key, value in content.items()]
    while waiting:
        top, depth, value = waiting.pop()
        most -= 1
        if depth > _DEPTH or most < 0:
            return "values nested too deeply"
        kind = type(value)
        if kind is dict:
            waiting += [(top, depth + 1, item) for item in value.values()]
        elif kind is list or kind is tuple:
            waiting += [(top, depth + 1, item) for item in value]
        elif kind is float:
            if not math.isfinite(value) and not top.startswith(_MAY_BE_INFINITE) and top != "best":
                return f"{printable(top)} holds a non-finite number"
        elif kind is torch.Tensor:
            memory = value.untyped_storage()
            if value.layout != torch.strided or memory.nbytes() != value.nbytes or not value.is_contiguous():
                return f"{printable(top)} holds a tensor that does not cover its memory"
            if value.requires_grad or value._backward_hooks or not is_finite(value):
                return f"{printable(top)} holds a non-finite tensor, or one with gradients or hooks"
            if value.numel() and memory.data_ptr() in used[top == "best"]:
                return f"{printable(top)} holds a tensor that shares its memory with another"
            used[top == "best"].add(memory.data_ptr())
        elif value is not None and kind not in (bool, int, str):
            return f"{printable(top)} holds {kind.__name__}"
    return None


def content_problems(content: Mapping[str, Any]) -> list[str]:
    """Return the problems of the parts of a checkpoint, which must be plain values and dense tensors."""
    problems = _type_problems(content, {**_ENVELOPE, **_TYPES})
    problems = problems or [*_history_problems(content), *_name_problems(content), *_state_problems(content)]
    if not problems and content["best"] is not None:
        problems = _best_problems(content)
    if not problems and content["fit"] is not None:
        problems = _fit_problems(content["fit"], content["model_state_dict"], content["n_targets"])
    if not problems and content["intervals"] is not None:
        fit, names = content["fit"], content["feature_names"]
        problems = calibration_problems(
            content["intervals"],
            n_targets=content["n_targets"],
            n_fitted=None if fit is None or not fit["exact"] else len(fit["columns"]),
            is_described=lambda preprocessing: _are_features(preprocessing, names),
        )
    return problems


def _type_problems(content: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], prefix: str = "") -> list[str]:
    """Compare the keys and types of values with the expected ones."""
    problems = [f"{prefix}{key} is missing" for key in sorted(set(types) - set(content))]
    problems += [f"{prefix}{printable(key)} is unknown" for key in content if key not in types]
    problems += [
        f"{prefix}{key} is {type(content[key]).__name__}"
        for key in types
        if key in content and type(content[key]) not in types[key]
    ]
    return problems


def _history_problems(content: Mapping[str, Any]) -> list[str]:
    epoch, run = content["epoch"], content["run"]
    problems = [
        f"{key} does not have a finite number for each of {printable(epoch)} epochs"
        for key, types in (("loss", {float}), ("val_loss", {float, type(None)}), ("lr", {float}))
        if len(content[key]) != epoch or not types.issuperset(map(type, content[key]))
    ]
    has_names = set(run) == {"name", "id"} and _are_strings([*run.values()])
    checks = {
        "position has a value that is not a number": all(type(value) is float for value in content["position"]),
        "resumed_at has a value that is not an epoch": all(
            type(value) is int and 0 <= value <= epoch for value in content["resumed_at"]
        ),
        f"planned_epochs is {printable(content['planned_epochs'])}": content["planned_epochs"] >= 1,
        f"outcome is {printable(content['outcome'])}": content["outcome"] in _OUTCOMES,
        "run does not have a name and an id": has_names,
        f"run has the name {printable(run.get('name'))}": not has_names or _RUN_NAME.fullmatch(run["name"]),
    }
    return problems + [problem for problem, is_valid in checks.items() if not is_valid]


def _name_problems(content: Mapping[str, Any]) -> list[str]:
    problems = []
    for names, number in (("feature_names", content["n_features"]), ("target_names", content["n_targets"])):
        is_empty = not number and names == "target_names"  # a model without features predicts the mean
        if len(content[names]) != number or is_empty or not _are_strings(content[names]):
            problems.append(f"{names} does not have {printable(number)} names")
    if not _are_features(content["preprocessing"], content["feature_names"]):
        problems.append("preprocessing does not describe the features")
    return problems


def _are_strings(values: list[Any]) -> bool:
    return all(type(value) is str for value in values)


def _are_features(preprocessing: Mapping[str, Any], names: list[str]) -> bool:
    """Return whether a preprocessing has the name and either the range or the categories of each feature."""
    match preprocessing:
        case {"features": list(features), "missing": str(), "unseen": str(), **others} if not others:
            return all(map(_is_feature, features)) and [feature["name"] for feature in features] == names
    return False


def _is_feature(feature: Any) -> bool:
    match feature:
        case {"name": _, "minimum": float(), "maximum": float(), "categories": None, **others}:
            return not others
        case {"name": _, "minimum": None, "maximum": None, "categories": list(categories), **others}:
            return not others and _are_strings(categories)
    return False


def _state_problems(states: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{printable(key)} of the model is not a tensor"
        for key, value in states["model_state_dict"].items()
        if type(key) is not str or type(value) is not torch.Tensor
    ]
    if not generators.are_states(states):
        problems.append("invalid state of a generator")
    return problems


def _best_problems(content: Mapping[str, Any]) -> list[str]:
    best = content["best"]
    problems = _type_problems(best, _BEST, "best.") or _type_problems(best["states"], _STATES, "best.states.")
    if problems:
        return problems
    if not 0 <= best["epoch"] < content["epoch"]:
        problems.append(f"best.epoch is {printable(best['epoch'])}")
    if not all(math.isfinite(best[key]) for key in ("loss", "val_loss") if best[key] is not None):
        problems.append("best has a non-finite loss")
    problems += [f"best: {problem}" for problem in _state_problems(best["states"])]
    if not problems and _shapes(best["states"]["model_state_dict"]) != _shapes(content["model_state_dict"]):
        problems.append("best has the state of another model")
    return problems


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def completed(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fit with the parts that one of an earlier version lacks."""
    return {**fit, **{key: value for key, value in _FIT_LATER.items() if key not in fit}}


def _fit_problems(fit: Mapping[str, Any], state: Mapping[str, torch.Tensor], n_targets: int) -> list[str]:
    """Check the shapes that `equation`, `infer` and the intervals of predictions rely on."""
    fit = completed(fit)
    problems = _type_problems(fit, _FIT, "fit.")
    if not problems and fit["penalty"] is not None:
        problems = _type_problems(fit["penalty"], _PENALTY, "fit.penalty.")
    if problems:
        return problems
    n_columns, n_names = len(fit["columns"]), len(fit["names"])
    shapes = {
        "coefficients": (n_columns, n_targets),
        "inverse": (n_columns, *fit["inverse"].shape[1:2]),
        "transform": (n_names, n_columns),
        "y_mean": (n_targets,),
        "y_scale": (n_targets,),
        "residual_variance": (n_targets,),
    }
    tensors = {key: fit[key] for key in shapes if fit[key] is not None}
    variance = fit["residual_variance"]
    weight, bias = state.get(f"{fit['layer']}.weight"), state.get(f"{fit['layer']}.bias")
    n_inputs = n_columns - (bias is not None)
    has_layer = weight is not None and weight.shape == (n_targets, n_inputs)
    is_valid = (
        all(tensor.shape == shapes[key] and tensor.dtype == torch.float64 for key, tensor in tensors.items())
        and all(map(_are_strings, (fit["columns"], fit["names"], fit["left_out"])))
        and len(fit["left_out"]) <= n_columns
        and (variance is None or (bool((variance >= 0).all()) and fit["degrees_of_freedom"] > 0))
        and len(fit["r2"]) == n_targets
        and (fit["targets"] is None or (len(fit["targets"]) == n_targets and _are_strings(fit["targets"])))
        and {float, type(None)}.issuperset(map(type, fit["r2"]))
        and (fit["r2_uncentred"] is None or len(fit["r2_uncentred"]) == n_targets)
        and {float, type(None)}.issuperset(map(type, fit["r2_uncentred"] or []))
        and all(type(factors) is list and len(factors) == n_columns for factors in fit["relations"])
        and all(type(factor) is float for factors in fit["relations"] for factor in factors)
        and all(type(group) is list and group for group in fit["groups"])
        and all(type(row) is int and 0 <= row < n_names for group in fit["groups"] for row in group)
        and (fit["exact"] or (has_layer and (bias is None or bias.shape == (n_targets,))))
    )
    return [] if is_valid else ["fit does not match the model"]
