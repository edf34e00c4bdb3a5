"""The split into a training and a validation part, with torch's random order."""

from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from linreg.errors import DataError


def split(
    dataset: Dataset[Any], *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[Subset[Any], Subset[Any] | None]:
    """Divide a dataset at random into a training and a validation part, as `random_split` does after
    `torch.manual_seed(seed)`, with indices in arrays. With a train_ratio of 1 there is no validation part; too few
    points for the ratio are a DataError."""
    assert isinstance(dataset, Sized)
    train, val = split_rows(len(dataset), train_ratio=train_ratio, seed=seed, where=where)
    parts: list[Any] = [train, val]  # what can be indexed
    return Subset(dataset, parts[0]), None if val is None else Subset(dataset, parts[1])


def split_rows(
    n_total: int, *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[NDArray[np.integer], NDArray[np.integer] | None]:
    """Give the rows that `split` puts into each part, in its order."""
    n_train, n_val = _lengths(n_total, train_ratio, where)
    order: NDArray[np.integer] = permutation(n_total, seed).numpy()
    return order[:n_train], order[n_train:] if n_val else None


def permutation(n: int, seed: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Give the numbers below n in the order of `torch.randperm` after seeding, with 4 bytes for each where that will
    do: it draws the same numbers, in a third of the time. generator: one to seed, where one is at hand."""
    dtype = torch.int32 if n < 2**31 else torch.int64
    return torch.randperm(n, generator=(generator or torch.Generator()).manual_seed(seed), dtype=dtype)


def _lengths(n_total: int, train_ratio: float, where: str) -> tuple[int, int]:
    n_train = int(n_total * train_ratio)
    n_val = n_total - n_train
    if not n_train or (not n_val and train_ratio < 1):
        raise DataError(
            f"{where}: {n_total} points in the ratio {train_ratio} leave {n_train} to train on and {n_val} to "
            "validate on; use more points, another ratio, or 1.0 to train on all"
        )
    return n_train, n_val


def drawn(generator: torch.Generator, place: torch.Tensor | None = None) -> int:
    """Draw a seed, as `torch.utils.data` does for a loader's workers and for a sampler's order. place: an integer to
    draw it into, where one is at hand."""
    place = torch.empty((), dtype=torch.int64) if place is None else place
    return int(place.random_(generator=generator).item())
