"""The network of a spec, and the device it is on. `build`, `solve` and `LoadedModel` use it."""

import torch
from torch import nn

from linreg.components.models import MODELS
from linreg.errors import SpecError
from linreg.spec.schema import ExperimentSpec


def build_network(spec: ExperimentSpec, n_columns: int, n_targets: int, device: torch.device) -> nn.Module:
    """Build the model of a spec for n_columns inputs and n_targets outputs."""
    network: nn.Module = MODELS.build(spec.model, n_columns, n_targets, where=spec.where("model"))
    return network.to(device=device, dtype=getattr(torch, spec.dtype))


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
