"""The split into a training and a validation part, with torch's random order."""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from linreg.errors import DataError


@dataclass(frozen=True)
class Parts:
    """The rows of the training and the validation part, in their order, and the mask of the training part (n_rows,).
    val: None without validation."""

    train: NDArray[np.integer]
    val: NDArray[np.integer] | None
    mask: NDArray[np.bool_]


def split(
    dataset: Dataset[Any], *, train_ratio: float, seed: int, where: str = "data.split"
) -> tuple[Subset[Any], Subset[Any] | None]:
    """Divide a dataset at random into a training and a validation part, as `random_split` after
    `torch.manual_seed(seed)`.

    With a train_ratio of 1 there is no validation part. Raises DataError if there are too few points for the ratio.
    """
    assert isinstance(dataset, Sized)
    return subsets(dataset, divide(len(dataset), train_ratio=train_ratio, seed=seed, where=where))


def subsets(dataset: Dataset[Any], parts: Parts) -> tuple[Subset[Any], Subset[Any] | None]:
    """Return the parts of a dataset."""
    train, val = cast(Any, parts.train), cast(Any, parts.val)  # the type of Subset wants sequences
    return Subset(dataset, train), None if val is None else Subset(dataset, val)


def divide(n_rows: int, *, train_ratio: float, seed: int, where: str = "data.split") -> Parts:
    """Divide the numbers of rows, as `split` divides a dataset."""
    n_train, n_val = _lengths(n_rows, train_ratio, where)
    order: NDArray[np.integer] = permutation(n_rows, seed).numpy()
    train, val = order[:n_train], order[n_train:] if n_val else None
    mask = np.zeros(n_rows, dtype=bool)
    mask[train] = True
    return Parts(train, val, mask)


def permutation(n: int, seed: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the numbers below n in the order of `torch.randperm` after seeding, in int32 if n allows.

    int32 has the same order, in a third of the time. generator: one to seed and use.
    """
    dtype = torch.int32 if n < 2**31 else torch.int64
    return torch.randperm(n, generator=(generator or torch.Generator()).manual_seed(seed), dtype=dtype)


def _lengths(n_rows: int, train_ratio: float, where: str) -> tuple[int, int]:
    n_train = int(n_rows * train_ratio)
    n_val = n_rows - n_train
    if not n_train or (not n_val and train_ratio < 1):
        raise DataError(
            f"{where}: {n_rows} points in the ratio {train_ratio} leave {n_train} for training and "
            f"{n_val} for validation; use more points, another ratio, or 1.0 for no validation"
        )
    return n_train, n_val


def draw_seed(generator: torch.Generator, out: torch.Tensor | None = None) -> int:
    """Draw a seed, as `torch.utils.data` does for workers and for the order of a sampler. out: an int64 tensor for
    it."""
    out = torch.empty((), dtype=torch.int64) if out is None else out
    return int(out.random_(generator=generator).item())
