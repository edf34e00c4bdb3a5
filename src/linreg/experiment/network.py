"""The network of a spec, and the device it is on. `build`, `solve` and `LoadedModel` use it."""

import warnings
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.components.models import MODELS
from linreg.data.preprocessing import Preprocessed
from linreg.errors import SpecError
from linreg.spec.schema import ExperimentSpec

BATCH_CELLS = 2**15  # torch divides larger batches among threads, which are busy with reading the table


def build_network(spec: ExperimentSpec, n_columns: int, n_targets: int, device: torch.device) -> nn.Module:
    """Build the model of a spec for n_columns inputs and n_targets outputs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a model without features
        network: nn.Module = MODELS.build(spec.model, n_columns, n_targets, where=spec.where("model"))
    return network.to(device=device, dtype=getattr(torch, spec.dtype))


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def choose_device(spec: ExperimentSpec) -> torch.device:
    """Return the device of a spec; `auto` is a GPU if there is one. Raises SpecError if this machine lacks it."""
    name = spec.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "mps":
        is_available = torch.backends.mps.is_available()
    else:
        kind, _, index = name.partition(":")
        is_available = kind == "cpu" or int(index or 0) < torch.cuda.device_count()
    if not is_available:
        raise SpecError([f"{spec.where('device')}: no {name} on this machine; use auto or cpu"])
    if name == "mps" and spec.dtype == "float64":
        raise SpecError([f"{spec.where('dtype')}: mps has no float64; use float32, or another device"])
    return torch.device(name)


def device_of(model: nn.Module) -> torch.device:
    """Return the device on which a model is."""
    return next(chain(model.parameters(), model.buffers()), torch.empty(0)).device


def apply_model(model: nn.Module, x: NDArray[np.floating], dtype: str) -> NDArray[np.floating]:
    """Predict for inputs (N, n_features): (N, n_targets), in float64 with a preprocessing, else in the dtype."""
    batches = _batches(x, "float64" if isinstance(model, Preprocessed) else dtype)
    device = device_of(model)
    # a preprocessed network moves its inputs itself
    inputs = batches if isinstance(model, Preprocessed) else (batch.to(device) for batch in batches)
    with torch.no_grad():
        return np.asarray(torch.cat([model(batch).cpu() for batch in inputs]).numpy())


def errors_of(model: nn.Module, x: NDArray[np.floating], y: NDArray[np.floating], dtype: str) -> NDArray[np.float64]:
    """Return y - yhat (N, n_targets) for inputs (N, n_features) and targets (N, n_targets)."""
    if not isinstance(model, Preprocessed):
        return y.astype(np.float64) - apply_model(model, x, dtype)
    inputs = _batches(x, "float64")
    targets = torch.split(torch.from_numpy(np.ascontiguousarray(y)), len(inputs[0]))
    with torch.no_grad():
        errors = [model.errors(*pair) for pair in zip(inputs, targets, strict=True)]
    return np.asarray(torch.cat(errors).numpy())


def outputs_of(model: Preprocessed, x: NDArray[np.floating]) -> torch.Tensor:
    """Return the outputs of the network (N, n_targets), on its scale, for inputs of the table (N, n_features)."""
    with torch.no_grad():
        return torch.cat([model.outputs(batch) for batch in _batches(x, "float64")])


def _batches(x: NDArray[np.floating], dtype: str) -> tuple[torch.Tensor, ...]:
    with np.errstate(over="ignore"):  # the prediction reports a value that does not fit
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=dtype))
    return torch.split(inputs, max(1, BATCH_CELLS // max(1, inputs.shape[1])))
