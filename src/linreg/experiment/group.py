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

    _choose_gpu(spec, own)
    return GroupExchange(own, timeout=_timeout())


def lead(spec: ExperimentSpec, planned_epochs: int) -> Exchange:
    """Open the exchange of the first process, and let the others build what it builds. Raises SpecError, UsageError,
    GroupError."""
    exchange = open_exchange(spec)
    exchange.lead(lambda: (spec.to_dict(), planned_epochs))
    return exchange


def _choose_gpu(spec: ExperimentSpec | None, own: Place) -> None:
    """Give this process one of the GPUs of its machine. spec: whose shards the processes train, each on a GPU of its
    own; None if it is not known, or if each process trains models of its own. Raises UsageError for too few GPUs."""
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    text = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun sets it
    n_processes = max(own.local_rank + 1, int(text) if text.isdecimal() else 1)
    may_use_gpu = spec is None or choose_device(spec).type == "cuda"
    if spec is not None and may_use_gpu and n_processes > n_gpus:
        problem = f"{n_processes} processes on this machine, and {n_gpus} GPU{'s' * (n_gpus != 1)}"
        raise UsageError(f"{problem}; start one process for each GPU, or set device=cpu")
    if n_gpus and may_use_gpu:
        torch.cuda.set_device(own.local_rank % n_gpus)


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, str(DEFAULT_TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{TIMEOUT}={text}: must be a number of seconds > 0")
    return seconds
