"""The group of processes that train one run together: the exchange between them."""

import os

import torch

from linreg.errors import UsageError
from linreg.experiment.network import choose_device
from linreg.spec.schema import ExperimentSpec
from linreg.spec.sharing import refuse_unshared
from linreg.system.place import Place, place
from linreg.training.shards import Exchange

TIMEOUT = "LINREG_TIMEOUT"  # the environment variable with the seconds that an exchange may take
DEFAULT_TIMEOUT = 600.0


def open_exchange(spec: ExperimentSpec | None) -> Exchange:
    """Make the exchange of this process with its group, if it is in one; the group is formed later. Raises SpecError
    for a spec that several processes cannot share, and UsageError."""
    own = place()
    if own.size == 1:
        return Exchange()
    if spec is not None:
        refuse_unshared(spec, own.size)
    from linreg.training.shards.group import GroupExchange  # imports torch.distributed

    return GroupExchange(own, device=_device(spec, own), timeout=_timeout())


def lead(spec: ExperimentSpec, planned_epochs: int) -> Exchange:
    """Open the exchange of the first process, and let the others build what it builds. Raises SpecError, UsageError,
    GroupError."""
    exchange = open_exchange(spec)
    exchange.lead(lambda: (spec.to_dict(), planned_epochs))
    return exchange


def _device(spec: ExperimentSpec | None, own: Place) -> torch.device:
    """Return the device of a process: with `device: auto`, one of the GPUs of its machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if spec is None else choose_device(spec)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", own.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{TIMEOUT}={text}: must be a number of seconds > 0")
    return seconds
