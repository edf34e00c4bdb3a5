"""What a checkpoint holds, and whether what was read from a file is that."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from linreg.exact.equation import equation
from linreg.system import generators

FORMAT = "linreg"
VERSION = 4  # 2: preprocessing, fit; 3: NumPy's and Python's generators; 4: checksums of the tensors
FEW_ELEMENTS = 2**16  # a copy of so many is the quickest
FEW = 20  # up to so many parameters are shown as numbers


@dataclass
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped, and a model to be used elsewhere.

    epoch: how many epochs are done; loss, val_loss, lr: one value an epoch; planned_epochs: what a scheduler was made
    for, and a finished run is trained again for; position: the losses of the batches of the next epoch that are done;
    loader_state: the state of the loaders' generator as that epoch began; rng_state, cuda_rng_state, numpy_rng_state,
    python_rng_state: those of the global generators (see `generators`); best: the epoch, its losses, its spec, and
    the states as it ended, or None; preprocessing: the features, with ranges and categories; fit: the closed form's
    optimum (see `exact`), or None; resumed_at: the epochs at which the run was gone on with; outcome: `running`,
    `interrupted`, `finished` or `early_stopped`; run: the name and id of the run that wrote it.
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
    resumed_at: list[int]
    outcome: str
    run: dict[str, str]
    data_fingerprint: str
    environment: dict[str, Any]
    path: Path = field(default=Path(), compare=False)  # where it was loaded from; not in the file

    @property
    def best_epoch(self) -> int | None:
        """The epoch, counted from 0, with the lowest loss (validation loss where there is any)."""
        return self.best["epoch"] if self.best else None


_TYPES: dict[str, tuple[type, ...]] = {
    "epoch": (int,),
    "model_state_dict": (dict,),
    "optimizer_state_dict": (dict,),
    "scheduler_state_dict": (dict, type(None)),
    "loss": (list,),
    "val_loss": (list,),
    "lr": (list,),
    "spec": (dict,),
    "planned_epochs": (int,),
    "preprocessing": (dict,),
    "n_features": (int,),
    "n_targets": (int,),
    "feature_names": (list,),
    "target_names": (list,),
    "position": (list,),
    "loader_state": (torch.Tensor,),
    "rng_state": (torch.Tensor,),
    "cuda_rng_state": (torch.Tensor, type(None)),
    "numpy_rng_state": (dict,),
    "python_rng_state": (dict,),
    "best": (dict, type(None)),
    "fit": (dict, type(None)),
    "resumed_at": (list,),
    "outcome": (str,),
    "run": (dict,),
    "data_fingerprint": (str,),
    "environment": (dict,),
}
KEYS = frozenset(_TYPES)
_ENVELOPE: dict[str, tuple[type, ...]] = {"format": (str,), "version": (int,), "checksums": (list,)}
_STATES = {key: types for key, types in _TYPES.items() if key.endswith(("_state", "_state_dict"))}
_BEST = {"epoch": (int,), "loss": (float,), "val_loss": (float, type(None)), "spec": (dict,), "states": (dict,)}
_FIT = {
    "columns": (list,), "coefficients": (torch.Tensor,), "inverse": (torch.Tensor,),
    "residual_variance": (torch.Tensor, type(None)), "degrees_of_freedom": (int,), "n_rows": (int,), "r2": (list,),
    "left_out": (list,), "names": (list,), "transform": (torch.Tensor,), "groups": (list,), "y_mean": (torch.Tensor,),
    "y_scale": (torch.Tensor,), "layer": (str,), "exact": (bool,), "ridge": (float,),
}  # fmt: skip
_OUTCOMES = ("running", "interrupted", "finished", "early_stopped")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MAY_BE_INFINITE = ("optimizer_state_dict", "scheduler_state_dict")  # such as the best loss before the first epoch
_DEPTH = 32


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are finite, found without a copy of them, but of a few."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.numel() < FEW_ELEMENTS and tensor.dtype != torch.bfloat16:
        return bool(np.isfinite(tensor.numpy(force=True)).all())  # a fourth of the time that torch takes
    return all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor.detach()))


def shown(value: Any) -> str:
    """Show a value out of a file in a message: short, and nothing that moves a terminal's cursor."""
    return ascii(value)[:60] if isinstance(value, str | int | float | None) else type(value).__name__


def strange(content: Mapping[str, Any], *, most: int) -> str | None:
    """Find what is neither a plain value nor a dense, finite tensor with memory of its own; None if there is nothing.

    most: the values that there may be. Tensors of `best` may be the very ones that stand outside of it, too.
    """
    taken: dict[bool, set[int]] = {True: set(), False: set()}
    waiting: list[tuple[str, int, Any]] = [(str(key), 1, value) for key, value in content.items()]
    while waiting:
        top, depth, value = waiting.pop()
        most -= 1
        if depth > _DEPTH or most < 0:
            return "holds values within values without end"
        kind = type(value)
        if kind is dict:
            waiting += [(top, depth + 1, item) for item in value.values()]
        elif kind is list or kind is tuple:
            waiting += [(top, depth + 1, item) for item in value]
        elif kind is float:
            if not math.isfinite(value) and not top.startswith(_MAY_BE_INFINITE) and top != "best":
                return f"{shown(top)} holds a number that is not finite"
        elif kind is torch.Tensor:
            memory = value.untyped_storage()
            if value.layout != torch.strided or memory.nbytes() != value.nbytes or not value.is_contiguous():
                return f"{shown(top)} holds a tensor that is not the whole of its memory"
            if value.requires_grad or value._backward_hooks or not is_finite(value):
                return f"{shown(top)} holds a tensor that is not of finite numbers alone"
            if value.numel() and memory.data_ptr() in taken[top == "best"]:
                return f"{shown(top)} holds a tensor that shares its memory with another"
            taken[top == "best"].add(memory.data_ptr())
        elif value is not None and kind not in (bool, int, str):
            return f"{shown(top)} holds {kind.__name__}"
    return None


def problems(content: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the parts of a checkpoint, which are plain values and dense tensors."""
    found = _mistyped(content, {**_ENVELOPE, **_TYPES})
    found = found or [*_about_history(content), *_about_names(content), *_about_states(content)]
    if not found and content["best"] is not None:
        found = _about_best(content)
    if not found and content["fit"] is not None:
        found = _about_fit(content["fit"], content["model_state_dict"], content["n_targets"])
    return found


def _mistyped(content: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], of: str = "") -> list[str]:
    """Compare keys and types with those that there should be."""
    found = [f"{of}{key} is missing" for key in sorted(set(types) - set(content))]
    found += [f"{of}{shown(key)} is unknown" for key in content if key not in types]
    found += [
        f"{of}{key} is {type(content[key]).__name__}"
        for key in types
        if key in content and type(content[key]) not in types[key]
    ]
    return found


def _about_history(content: Mapping[str, Any]) -> list[str]:
    epoch, found = content["epoch"], []
    for key in ("loss", "val_loss", "lr"):
        values = content[key]
        if key == "val_loss":
            values = [value for value in values if value is not None]
        if len(content[key]) != epoch or not all(type(value) is float for value in values):
            found.append(f"{key} is not one finite number for each of {shown(epoch)} epochs")
    if not all(type(value) is float for value in content["position"]):
        found.append("position holds what is no number")
    if not all(type(value) is int and 0 <= value <= epoch for value in content["resumed_at"]):
        found.append("resumed_at holds what is no epoch")
    if content["planned_epochs"] < 1:
        found.append(f"planned_epochs is {shown(content['planned_epochs'])}")
    if content["outcome"] not in _OUTCOMES:
        found.append(f"outcome is {shown(content['outcome'])}")
    run = content["run"]
    if set(run) != {"name", "id"} or not all(type(value) is str for value in run.values()):
        found.append("run has not a name and an id")
    elif not _RUN_NAME.fullmatch(run["name"]):
        found.append(f"run has the name {shown(run['name'])}")
    return found


def _about_names(content: Mapping[str, Any]) -> list[str]:
    found = []
    for names, number in (("feature_names", content["n_features"]), ("target_names", content["n_targets"])):
        if len(content[names]) != number or not number or not _are_names(content[names]):
            found.append(f"{names} is not {shown(number)} names")
    if not _are_features(content["preprocessing"], content["feature_names"]):
        found.append("preprocessing does not describe the features")
    return found


def _are_names(values: list[Any]) -> bool:
    return all(type(value) is str for value in values)


def _are_features(preprocessing: Mapping[str, Any], names: list[str]) -> bool:
    """Whether a preprocessing has, of each feature, its name, range and categories."""
    features = preprocessing.get("features")
    if set(preprocessing) != {"features", "missing", "unseen"} or type(features) is not list:
        return False
    if not _are_names([preprocessing["missing"], preprocessing["unseen"]]):
        return False
    for feature in features:
        if type(feature) is not dict or set(feature) != {"name", "minimum", "maximum", "categories"}:
            return False
        categories = feature["categories"]
        ranged = type(feature["minimum"]) is float and type(feature["maximum"]) is float
        if ranged == (type(categories) is list and _are_names(categories)):
            return False
        if not ranged and (feature["minimum"] is not None or feature["maximum"] is not None):
            return False
        if ranged and categories is not None:
            return False
    return [feature["name"] for feature in features] == names


def _about_states(states: Mapping[str, Any]) -> list[str]:
    found = [
        f"{shown(key)} of the model is not a tensor"
        for key, value in states["model_state_dict"].items()
        if type(key) is not str or type(value) is not torch.Tensor
    ]
    if not generators.are_states(states):
        found.append("a generator has a state that it cannot have")
    return found


def _about_best(content: Mapping[str, Any]) -> list[str]:
    best = content["best"]
    found = _mistyped(best, _BEST, "best.")
    if not found:
        found = _mistyped(best["states"], _STATES, "best.states.")
    if found:
        return found
    if not 0 <= best["epoch"] < content["epoch"]:
        found.append(f"best.epoch is {shown(best['epoch'])}")
    if not all(math.isfinite(best[key]) for key in ("loss", "val_loss") if best[key] is not None):
        found.append("best has a loss that is not finite")
    found += [f"best: {problem}" for problem in _about_states(best["states"])]
    if not found and _shapes(best["states"]["model_state_dict"]) != _shapes(content["model_state_dict"]):
        found.append("best is of another model")
    return found


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _about_fit(fit: Mapping[str, Any], state: Mapping[str, torch.Tensor], n_targets: int) -> list[str]:
    """Whether the optimum has the shapes that `equation` and the intervals of predictions count on."""
    found = _mistyped(fit, _FIT, "fit.")
    if found:
        return found
    n_columns, n_names = len(fit["columns"]), len(fit["names"])
    wanted = {
        "coefficients": (n_columns, n_targets),
        "inverse": (n_columns, *fit["inverse"].shape[1:2]),
        "transform": (n_names, n_columns),
        "y_mean": (n_targets,),
        "y_scale": (n_targets,),
        "residual_variance": (n_targets,),
    }
    tensors = {key: fit[key] for key in wanted if fit[key] is not None}
    right = all(t.shape == wanted[key] and t.dtype == torch.float64 for key, t in tensors.items())
    right = right and all(map(_are_names, (fit["columns"], fit["names"], fit["left_out"])))
    right = right and len(fit["r2"]) == n_targets and all(type(r2) in (float, type(None)) for r2 in fit["r2"])
    for group in fit["groups"]:
        right = right and type(group) is list and bool(group)
        right = right and all(type(row) is int and 0 <= row < n_names for row in group)
    if right and not fit["exact"]:
        weight, bias = state.get(f"{fit['layer']}.weight"), state.get(f"{fit['layer']}.bias")
        n_inputs = n_columns - (bias is not None)
        right = weight is not None and weight.shape == (n_targets, n_inputs)
        right = right and (bias is None or bias.shape == (n_targets,))
    return [] if right else ["fit does not describe the model"]


def summary(checkpoint: Checkpoint) -> dict[str, Any]:
    """Say what is in a checkpoint, in plain values; nothing of it is run or built."""
    n_parameters = sum(tensor.numel() for tensor in checkpoint.model_state_dict.values())
    return {
        "checkpoint": str(checkpoint.path),
        "format": FORMAT,
        "version": VERSION,
        "run": checkpoint.run["name"],
        "outcome": checkpoint.outcome,
        "epochs": checkpoint.epoch,
        "batches_into_next_epoch": len(checkpoint.position),
        "loss": checkpoint.loss[-1] if checkpoint.loss else None,
        "val_loss": checkpoint.val_loss[-1] if checkpoint.val_loss else None,
        "best_epoch": checkpoint.best_epoch,
        "features": checkpoint.feature_names,
        "targets": checkpoint.target_names,
        "n_parameters": n_parameters,
        "parameters": {
            name: tensor.tolist() if n_parameters <= FEW else f"{list(tensor.shape)} {tensor.dtype}"
            for name, tensor in checkpoint.model_state_dict.items()
        },
        **(equation(checkpoint.fit, checkpoint.model_state_dict, checkpoint.target_names) if checkpoint.fit else {}),
        "resumed_at": checkpoint.resumed_at,
        "data_fingerprint": checkpoint.data_fingerprint,
        "environment": checkpoint.environment,
        "spec": checkpoint.spec,
    }
