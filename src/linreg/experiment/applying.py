"""A trained model, applied: predictions, and metrics on the validation part."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from linreg.checkpoint import Checkpoint, load
from linreg.datasets import DATASETS
from linreg.errors import CheckpointError, DataError, UsageError
from linreg.experiment.building import choose_device
from linreg.experiment.state import saved_spec
from linreg.loaders import dataset_of, fingerprint, split
from linreg.models import MODELS
from linreg.spec import ExperimentSpec

BATCH_SIZE = 4096

Row = float | Sequence[float] | dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """Inputs (N, n_features) and predictions (N, n_targets), with the names of their columns."""

    feature_names: list[str]
    target_names: list[str]
    inputs: NDArray[np.floating]
    predictions: NDArray[np.floating]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a part of its data. metrics: by target, `mse`, `rmse`, `mae` (the mean over points,
    in the target's units or their square) and `r2` (None where the target does not vary)."""

    part: str
    n_samples: int
    metrics: dict[str, dict[str, float | None]]


def predict(path: str | Path, rows: Sequence[Row], *, device: str = "cpu") -> Prediction:
    """Predict for rows of inputs, each a list of n_features values, a mapping of names to values, or one value, with
    the model alone: no data, no optimizer. Raises CheckpointError, UsageError for rows that do not fit."""
    if not rows:
        raise UsageError("--inputs: no rows to predict for; give at least one")
    saved = load(path)
    spec = saved_spec(saved, [f"device={json.dumps(device)}"])
    with np.errstate(over="ignore"):
        table = np.array([_ordered(row, saved.feature_names) for row in rows], dtype=spec.dtype)
    if not np.isfinite(table).all():
        raise UsageError(f"--inputs: a value is too large for {spec.dtype}, the model's precision; give smaller ones")
    model, where = load_model(saved, spec)
    predictions = _apply(model, where, torch.from_numpy(table))
    if not np.isfinite(predictions).all():
        row = int(np.nonzero(~np.isfinite(predictions).all(axis=1))[0][0])
        raise UsageError(f"--inputs: the prediction for row {row + 1} is not finite; give smaller values")
    return Prediction(saved.feature_names, saved.target_names, table, predictions)


def evaluate(path: str | Path, *, device: str = "cpu") -> Evaluation:
    """Measure a checkpoint's model on its validation part, or on the training part where there is no validation.
    Raises CheckpointError, DataError."""
    saved = load(path)
    spec = saved_spec(saved, [f"device={json.dumps(device)}"])
    model, where = load_model(saved, spec)
    samples = DATASETS.build(spec.data.source, where=spec.where("data", "source"))
    dataset = dataset_of(samples, getattr(torch, spec.dtype), where=spec.where("data", "source"))
    if fingerprint(dataset) != saved.data_fingerprint:
        raise DataError(f"{path}: was trained on other data than data.source gives now; bring the old data back")
    train_data, val_data = split(dataset, train_ratio=spec.data.split.train_ratio, seed=spec.data.split.seed)
    part = train_data if val_data is None else val_data
    indices = torch.as_tensor(part.indices)
    yhat = _apply(model, where, dataset.x[indices]).astype(np.float64)
    y = dataset.y[indices].numpy().astype(np.float64)
    metrics = {name: measure(y[:, column], yhat[:, column]) for column, name in enumerate(saved.target_names)}
    return Evaluation("training" if val_data is None else "validation", len(y), metrics)


def measure(y: NDArray[np.float64], yhat: NDArray[np.float64]) -> dict[str, float | None]:
    """Give mse, rmse, mae and r2 (1 - residual over total sum of squares) of yhat (N,) against y (N,)."""
    error = y - yhat
    mse = float(np.mean(error**2))
    total = float(np.sum((y - y.mean()) ** 2))
    r2 = 1 - float(np.sum(error**2)) / total if total > 0 else None
    return {"mse": mse, "rmse": mse**0.5, "mae": float(np.mean(np.abs(error))), "r2": r2}


def load_model(saved: Checkpoint, spec: ExperimentSpec) -> tuple[nn.Module, torch.device]:
    """Build the model of a checkpoint, in evaluation mode, and give it with its device. Raises CheckpointError."""
    device = choose_device(spec)
    with torch.random.fork_rng(devices=[]):  # building draws numbers that the state replaces
        model: nn.Module = MODELS.build(spec.model, saved.n_features, saved.n_targets, where=spec.where("model"))
    model = model.to(device=device, dtype=getattr(torch, spec.dtype))
    try:
        model.load_state_dict(saved.model_state_dict)
    except RuntimeError as error:
        reason = str(error).strip().replace("\n", " ")
        raise CheckpointError(f"{saved.path}: does not fit the model that its spec builds: {reason}") from None
    model.eval()  # always use EVAL for fully trained models!
    return model, device


def _apply(model: nn.Module, device: torch.device, x: torch.Tensor) -> NDArray[Any]:
    batches = DataLoader(TensorDataset(x), batch_size=BATCH_SIZE)
    with torch.no_grad():
        outputs = [model(x_batch.to(device)).cpu() for (x_batch,) in batches]
    return torch.cat(outputs).numpy()


def _ordered(row: Row, names: list[str]) -> list[float]:
    """Put the values of one row into the order of the features."""
    wanted = f"{_values(len(names))} ({', '.join(names)})"
    if isinstance(row, int | float):
        row = [row]
    if not isinstance(row, dict):
        if len(row) != len(names):
            met = ",".join(f"{value:g}" for value in row)
            raise UsageError(
                f"--inputs {met}: {_values(len(row))}, and the model takes {wanted}; "
                "put commas within a row, spaces between rows"
            )
        return list(row)
    unknown = [name for name in row if name not in names]
    missing = [name for name in names if name not in row]
    if unknown or missing:
        met = ",".join(f"{name}={value:g}" for name, value in row.items())
        what = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise UsageError(f"--inputs {met}: {'; '.join(what)}; the model takes {wanted}")
    return [row[name] for name in names]


def _values(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"
