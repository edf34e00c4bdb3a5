"""The global random generators, torch's, NumPy's and Python's: what a model of one's own may draw from."""

import random
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """Seed all of them."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)  # it takes no more
    random.seed(number)


def states(device: torch.device) -> dict[str, Any]:
    """Give their states as plain values and tensors; that of CUDA's generator is None on another device."""
    version, key, gauss = random.getstate()
    of_numpy = np.random.get_state(legacy=False)
    of_numpy["state"] = {**of_numpy["state"], "key": torch.from_numpy(of_numpy["state"]["key"].astype(np.int64))}
    return {
        "rng_state": torch.get_rng_state(),
        "cuda_rng_state": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy_rng_state": of_numpy,
        "python_rng_state": {"version": version, "key": torch.tensor(key), "gauss": gauss},
    }


def set_states(saved: dict[str, Any], device: torch.device) -> None:
    """Put the generators into states that `states` gave. Raises RuntimeError, ValueError, KeyError or TypeError for
    what is no such state."""
    of_numpy, of_python = saved["numpy_rng_state"], saved["python_rng_state"]
    torch.set_rng_state(saved["rng_state"])
    if saved["cuda_rng_state"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda_rng_state"], device)
    np.random.set_state({**of_numpy, "state": {**of_numpy["state"], "key": of_numpy["state"]["key"].numpy()}})
    random.setstate((of_python["version"], tuple(of_python["key"].tolist()), of_python["gauss"]))
