"""The global random generators of torch, NumPy and Python, which a user's model may use."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed(number: int) -> None:
    """Seed all generators."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)  # its largest seed
    random.seed(number)


def states(device: torch.device) -> dict[str, Any]:
    """Return their states as plain values and tensors; the state of CUDA's generator is None on another device."""
    of_numpy = np.random.get_state(legacy=False)
    of_numpy["state"] = {**of_numpy["state"], "key": torch.from_numpy(of_numpy["state"]["key"].astype(np.int64))}
    return {
        "rng_state": torch.get_rng_state(),
        "cuda_rng_state": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy_rng_state": of_numpy,
        "python_rng_state": _of_python(),
    }


_LAST: dict[str, Any] = {}  # the last state of Python's generator, which rarely changes, and its plain values


def _of_python() -> dict[str, Any]:
    state = random.getstate()
    if _LAST.get("state") != state:
        version, key, gauss = state
        plain = {"version": version, "key": torch.from_numpy(np.fromiter(key, np.int64, len(key))), "gauss": gauss}
        _LAST.update(state=state, plain=plain)
    last: dict[str, Any] = _LAST["plain"]
    return {**last, "key": last["key"].clone()}


def set_states(saved: dict[str, Any], device: torch.device) -> None:
    """Set the generators to states of `states`. Raises RuntimeError, ValueError, KeyError or TypeError for an invalid
    state."""
    of_numpy, of_python = saved["numpy_rng_state"], saved["python_rng_state"]
    torch.set_rng_state(saved["rng_state"])
    if saved["cuda_rng_state"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(saved["cuda_rng_state"], device)
    np.random.set_state({**of_numpy, "state": {**of_numpy["state"], "key": of_numpy["state"]["key"].numpy()}})
    random.setstate((of_python["version"], tuple(of_python["key"].tolist()), of_python["gauss"]))


def are_states(saved: Mapping[str, Any]) -> bool:
    """Return whether these are states of `states`. NumPy would accept a position beyond its numbers, and read there."""
    of_numpy, of_python = saved["numpy_rng_state"], saved["python_rng_state"]
    match of_numpy:
        case {
            "bit_generator": "MT19937",
            "state": {"key": torch.Tensor() as key, "pos": int(pos), **more},
            "has_gauss": 0 | 1,
            "gauss": float(),
            **others,
        } if not more and not others:
            numpy_is = _are_words(key, 624) and 0 <= pos <= 624
        case _:
            numpy_is = False
    match of_python:
        case {"version": 3, "key": torch.Tensor() as key, "gauss": float() | None, **others} if not others:
            python_is = _are_words(key, 625) and 0 <= int(key[-1]) <= 624
        case _:
            python_is = False
    torchs = [saved["rng_state"], saved["cuda_rng_state"], saved["loader_state"]]
    return (
        numpy_is
        and python_is
        and all(state is None or (state.dtype == torch.uint8 and state.ndim == 1) for state in torchs)
    )


def _are_words(key: torch.Tensor, number: int) -> bool:
    """Return whether a tensor holds n words of 32 bits."""
    if key.dtype != torch.int64 or key.shape != (number,):
        return False
    return int(key.min()) >= 0 and int(key.max()) < 2**32
