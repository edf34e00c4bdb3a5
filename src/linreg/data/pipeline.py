"""Passes over the rows of a data set, and what they are prepared into."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.data.dataset import CustomDataset
from linreg.data.mapped import MappedDataset
from linreg.data.preprocessing import Feature, Preprocessing
from linreg.data.sources import Block, Points

BLOCK_ROWS = 2**13  # gathered, learnt from and preprocessed at once


@dataclass(frozen=True)
class Data:
    """The data of an experiment. dataset: its rows as the network takes them; preprocessing: what stands between the
    source and those, or None; described: what a checkpoint keeps of it beside its numbers."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    is_weighted: bool
    dataset: CustomDataset | MappedDataset
    train_data: Subset[Any]
    val_data: Subset[Any] | None
    features: list[Feature]
    preprocessing: Preprocessing | None
    described: dict[str, Any]
    fingerprint: str

    @property
    def n_columns(self) -> int:
        """How many columns the network takes."""
        return sum(len(feature.columns) for feature in self.features)


def with_mask(points: Points, mask: NDArray[np.bool_]) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
    """Read all points again, each block with its part of the mask."""
    first = 0
    for block in points.blocks():
        yield block, mask[first : first + len(block.x)]
        first += len(block.x)


def chunks(rows: Any) -> Iterator[Any]:
    """Cut rows into blocks."""
    return (rows[first : first + BLOCK_ROWS] for first in range(0, len(rows), BLOCK_ROWS))


def mask_of(indices: NDArray[Any], n_total: int) -> NDArray[np.bool_]:
    """Say of each row whether it is among the indices."""
    mask = np.zeros(n_total, dtype=bool)
    mask[indices] = True
    return mask


def ascending(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Give the rows of a mask, block by block, in the order in which they lie in memory: to fetch them in another takes
    several times as long."""
    for rows in chunks(range(len(mask))):
        here = np.flatnonzero(mask[rows.start : rows.stop])
        if len(here):
            yield here + rows.start
