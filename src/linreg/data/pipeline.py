"""The stages of the data: rows -> parts -> statistics -> preprocessing -> dataset.

`prepare` runs all stages, for training. `solver: exact` and `evaluate` run the first ones, and end with a triangle or
with metrics.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.data.derived import ColumnInfo
from linreg.data.learning import Recipe, is_needed, learn_from
from linreg.data.preprocessing import Feature, Preprocessing, to_dict
from linreg.data.rows import Rows
from linreg.data.shards import Cut, ShardedPart, sharded
from linreg.data.split import Parts, subsets
from linreg.data.transform import Recode, Transform, WeightScale

INDICES_AT_ONCE = 2**13


@dataclass(frozen=True)
class Data:
    """The data of an experiment. dataset: its rows as inputs of the network; preprocessing: between the source and the
    network, or None; described: the features as plain values, for a checkpoint; train_shards, val_shards: the parts by
    shards, if the rows are cut into them. Then the dataset and the parts have the rows of this process."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    is_weighted: bool
    dataset: Any
    train_data: Subset[Any]
    val_data: Subset[Any] | None
    parts: Parts
    features: list[Feature]
    columns: list[ColumnInfo]
    preprocessing: Preprocessing | None
    described: dict[str, Any]
    fingerprint: str
    cut: Cut | None = None
    train_shards: ShardedPart | None = None
    val_shards: ShardedPart | None = None

    @property
    def n_columns(self) -> int:
        """The number of inputs of the network."""
        return len(self.columns)


def prepare(rows: Rows, parts: Parts, recipe: Recipe, *, dtype: str, where: str) -> Data:
    """Learn the preprocessing from the training part of the rows, and make the dataset.

    dtype: that of the network. Raises SpecError, DataError.
    """
    needed = is_needed(rows, recipe)
    preprocessing = learn_from(rows, parts, recipe, where=where, ranges_in="float64" if needed else dtype)
    features = preprocessing.features
    described = to_dict(features, rows)
    weight, recode = rows.weight(), Recode(features, rows)
    scale = None if weight is None else WeightScale(weight, parts, where=where, cut=rows.cut)
    transform = Transform(recode, features, preprocessing if needed else None, scale, dtype)
    dataset = rows.dataset(transform, parts, where)
    train_data, val_data = subsets(dataset, parts)
    return Data(
        feature_names=rows.feature_names,
        target_names=rows.target_names,
        is_weighted=rows.is_weighted,
        dataset=dataset,
        train_data=train_data,
        val_data=val_data,
        parts=parts,
        features=features,
        columns=preprocessing.columns,
        preprocessing=transform.preprocessing,
        described=described,
        fingerprint=rows.fingerprint,
        cut=rows.cut,
        train_shards=None if rows.cut is None else sharded(rows.cut, parts.train),
        val_shards=None if rows.cut is None or parts.val is None else sharded(rows.cut, parts.val),
    )


def in_blocks(indices: Any) -> Iterator[Any]:
    """Cut indices into blocks."""
    return (indices[first : first + INDICES_AT_ONCE] for first in range(0, len(indices), INDICES_AT_ONCE))


def ascending(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a mask in blocks, in the order of memory, which is several times as fast as any other."""
    for block in in_blocks(range(len(mask))):
        rows = np.flatnonzero(mask[block.start : block.stop])
        if len(rows):
            yield rows + block.start
