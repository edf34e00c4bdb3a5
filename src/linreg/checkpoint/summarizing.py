"""`summary`: the content of a checkpoint as plain values. `linreg inspect` and `linreg report` show it."""

from collections.abc import Mapping
from typing import Any

import torch

from linreg.checkpoint.calibrations import described
from linreg.checkpoint.contents import FORMAT, VERSION, Checkpoint
from linreg.exact.equation import equation
from linreg.exact.inference import Covariance, infer

PREPROCESSED = "preprocessing.mean"  # in the state of a network with its preprocessing only
MOST_SHOWN = 20  # numbers of a model, of which `summary` lists the values


def summary(checkpoint: Checkpoint, *, level: float = 0.95, robust: Covariance | None = None) -> dict[str, Any]:
    """Return the content of a checkpoint as plain values, without building anything from it. level, robust: of the
    inference of a fit (see `infer`)."""
    state = checkpoint.model_state_dict
    n_values = sum(tensor.numel() for tensor in state.values())
    fitted: dict[str, Any] = {}
    if checkpoint.fit is not None:
        own = equation(checkpoint.fit, state, checkpoint.target_names)
        fitted = infer(checkpoint.fit, own, level=level, robust=robust)
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
        "n_parameters": _count_parameters(state),
        "parameters": {
            name: tensor.tolist() if n_values <= MOST_SHOWN else f"{list(tensor.shape)} {tensor.dtype}"
            for name, tensor in state.items()
        },
        **fitted,
        "intervals": described(checkpoint.intervals),
        "resumed_at": checkpoint.resumed_at,
        "data_fingerprint": checkpoint.data_fingerprint,
        "environment": checkpoint.environment,
        "spec": checkpoint.spec,
    }


def _count_parameters(state: Mapping[str, torch.Tensor]) -> int:
    """Return the number of trained numbers in the state of a model: those of its network, as `count_parameters` counts
    before training. Only what a plugin's network keeps beside them, such as running means, counts too."""
    is_preprocessed = PREPROCESSED in state
    return sum(tensor.numel() for name, tensor in state.items() if not is_preprocessed or name.startswith("network."))
