"""The checkpoint: one safe, self-contained file. Saved whole or not at all; verified before it is believed.

The file is `torch.save` of one dictionary of plain values and tensors, with the textbook's keys (`epoch`,
`model_state_dict`, `optimizer_state_dict`, `loss`, `val_loss`) and those of `Checkpoint`.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from linreg.equation import equation
from linreg.errors import CheckpointError
from linreg.storage import replace_file

FORMAT = "linreg"
VERSION = 3  # 2: preprocessing, fit; 3: NumPy's and Python's generators
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


_TYPES: dict[str, type | tuple[type, ...]] = {
    "epoch": int,
    "model_state_dict": dict,
    "optimizer_state_dict": dict,
    "scheduler_state_dict": (dict, type(None)),
    "loss": list,
    "val_loss": list,
    "lr": list,
    "spec": dict,
    "planned_epochs": int,
    "preprocessing": dict,
    "n_features": int,
    "n_targets": int,
    "feature_names": list,
    "target_names": list,
    "position": list,
    "loader_state": torch.Tensor,
    "rng_state": torch.Tensor,
    "cuda_rng_state": (torch.Tensor, type(None)),
    "numpy_rng_state": dict,
    "python_rng_state": dict,
    "best": (dict, type(None)),
    "fit": (dict, type(None)),
    "resumed_at": list,
    "outcome": str,
    "run": dict,
    "data_fingerprint": str,
    "environment": dict,
}


_KEYS = set(_TYPES)


def _inconsistencies(content: Mapping[str, Any]) -> list[str]:
    """Say in what the parts of a checkpoint, each of the right type, are not those of one."""
    epoch, found = content["epoch"], []
    for key in ("loss", "val_loss", "lr"):
        if len(content[key]) != epoch or not all(_is_finite(value) for value in content[key] if value is not None):
            found.append(f"{key} is not one finite number for each of {epoch} epochs")
    if None in content["loss"] or not all(map(_is_finite, content["position"])):
        found.append("loss or position holds what is no number")
    for names, number in (("feature_names", content["n_features"]), ("target_names", content["n_targets"])):
        if len(content[names]) != number or not all(isinstance(name, str) for name in content[names]):
            found.append(f"{names} is not {number} names")
    for key, value in content["model_state_dict"].items():
        if not isinstance(value, torch.Tensor) or not torch.isfinite(value).all():
            found.append(f"{key} of the model is not a tensor of finite numbers")
    if not _are_features(content["preprocessing"], content["feature_names"]):
        found.append("preprocessing does not describe the features")
    if not all(isinstance(content["run"].get(key), str) for key in ("name", "id")):
        found.append("run has no name or id")
    best = content["best"]
    if best is not None and not {"epoch", "loss", "val_loss", "spec", "states"} <= set(best):
        found.append("best lacks a part")
    return found


def _are_features(preprocessing: Mapping[str, Any], names: list[str]) -> bool:
    """Whether a preprocessing has, of each feature, its name, range and categories."""
    features = preprocessing.get("features")
    if set(preprocessing) != {"features", "missing", "unseen"} or not isinstance(features, list):
        return False
    for feature in features:
        if not isinstance(feature, dict) or set(feature) != {"name", "minimum", "maximum", "categories"}:
            return False
        categories = feature["categories"]
        ranged = _is_finite(feature["minimum"]) and _is_finite(feature["maximum"])
        listed = isinstance(categories, list) and all(isinstance(category, str) for category in categories)
        if not isinstance(feature["name"], str) or ranged == listed:
            return False
    return [feature["name"] for feature in features] == names


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all: an older file of that name stays until the new one is on disk.
    Raises StorageError."""
    replace_file(path, serialize(checkpoint))


def serialize(checkpoint: Checkpoint) -> memoryview:
    """Give what the file of a checkpoint holds."""
    content = {name: getattr(checkpoint, name) for name in _KEYS}
    buffer = io.BytesIO()  # memory first: torch.save to a full disk raises an error without a reason
    torch.save({"format": FORMAT, "version": VERSION, **content}, buffer)
    return buffer.getbuffer()


def load(path: str | Path) -> Checkpoint:
    """Open a checkpoint, on the CPU, without running anything from it.

    Raises CheckpointError if it is not there, is damaged, was not written by linreg or by a later version of it.
    """
    path = Path(path)
    content = _unpickle(path, _verified(path, _read(path)))
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        textbook = isinstance(content, Mapping) and "model_state_dict" in content
        what = "a state without a spec, as the textbook saves it" if textbook else "a PyTorch file of another kind"
        raise CheckpointError(f"{path}: {what}; name a checkpoint that linreg train wrote")
    if content.get("version") != VERSION or isinstance(content.get("version"), bool):
        raise CheckpointError(
            f"{path}: of version {content.get('version')!r}, and this linreg reads version {VERSION}; "
            "use the linreg that wrote it, or train anew"
        )
    problems = [f"{key} is missing" for key in sorted(_KEYS - set(content))]
    problems += [f"{key!r} is unknown" for key in content if key not in _KEYS | {"format", "version"}]
    problems += [
        f"{key} is {type(content[key]).__name__}"
        for key, type_ in _TYPES.items()
        if key in content and not isinstance(content[key], type_)
    ]
    problems = problems or _inconsistencies(content)
    if problems:
        raise CheckpointError(f"{path}: not a whole checkpoint: {', '.join(problems)}; use another")
    return Checkpoint(**{key: content[key] for key in _KEYS}, path=path)


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; linreg runs lists those there are") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: a folder; name a checkpoint in it, such as {path / 'last.pth'}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def _verified(path: Path, content: bytes) -> bytes:
    """Check every record against its checksum; torch would read a damaged one without a word."""
    if not content.startswith(b"PK"):
        what = "empty" if not content else "not a checkpoint, nor any file that torch.save writes"
        raise CheckpointError(f"{path}: {what}; name a .pth file that linreg train wrote")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except Exception as error:  # of a damaged archive zipfile raises a dozen kinds
        raise CheckpointError(f"{path}: damaged: {error}; use another checkpoint of the run") from None
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged: the checksum of {damaged} is wrong; use another checkpoint of the run")
    return content


def _unpickle(path: Path, content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # nine kinds were met, and their texts advise weights_only=False
        raise CheckpointError(
            f"{path}: holds more than plain values and tensors, or is damaged; it was not opened, use a checkpoint "
            "that linreg train wrote"
        ) from None
