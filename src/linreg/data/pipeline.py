"""The stages of the data: rows -> parts -> statistics -> preprocessing -> dataset.

`prepare` runs all stages, for training. `solver: exact` and `evaluate` run the first ones, and end with a triangle or
with metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Subset

from linreg.data.preprocessing import Feature, Preprocessing, Standardize, is_needed, learn, to_dict
from linreg.data.rows import Rows, masked_blocks
from linreg.data.split import Parts, divide, subsets
from linreg.data.statistics import Statistics
from linreg.data.transform import Recode, Transform, WeightScale

INDICES_AT_ONCE = 2**13


@dataclass(frozen=True)
class Data:
    """The data of an experiment. dataset: its rows as inputs of the network; preprocessing: between the source and the
    network, or None; described: the features as plain values, for a checkpoint."""

    feature_names: Sequence[str]
    target_names: Sequence[str]
    is_weighted: bool
    dataset: Any
    train_data: Subset[Any]
    val_data: Subset[Any] | None
    features: list[Feature]
    preprocessing: Preprocessing | None
    described: dict[str, Any]
    fingerprint: str

    @property
    def n_columns(self) -> int:
        """The number of inputs of the network."""
        return sum(len(feature.columns) for feature in self.features)


def prepare(
    rows: Rows, *, split: Mapping[str, Any], standardize: Standardize, center: bool, dtype: str, where: str
) -> Data:
    """Divide rows into parts, learn the preprocessing from the training part, and make the dataset.

    split: the arguments of `divide`; center: see `learn`; dtype: that of the network. Raises DataError.
    """
    parts = divide(rows.n_rows, **split)
    needed = is_needed(rows, standardize)
    preprocessing = learn_from(
        rows, parts, standardize=standardize, center=center, where=where, ranges_in=None if needed else dtype
    )
    features = preprocessing.features
    described = to_dict(features, rows)
    weight, recode = rows.weight(), Recode(features, rows)
    scale = None if weight is None else WeightScale(weight, parts, where=where)
    transform = Transform(recode, features, preprocessing if needed else None, scale, dtype)
    dataset = rows.dataset(transform, where)
    train_data, val_data = subsets(dataset, parts)
    return Data(
        feature_names=rows.feature_names,
        target_names=rows.target_names,
        is_weighted=rows.is_weighted,
        dataset=dataset,
        train_data=train_data,
        val_data=val_data,
        features=features,
        preprocessing=transform.preprocessing,
        described=described,
        fingerprint=rows.fingerprint,
    )


def learn_from(
    rows: Rows, parts: Parts, *, standardize: Standardize, center: bool, where: str, ranges_in: str | None = None
) -> Preprocessing:
    """Learn the preprocessing from the statistics of the training part, in one pass; medians need another.

    ranges_in: a dtype, for rows without preprocessing; then only the ranges are learnt, of values in that dtype.
    """
    statistics = Statistics(len(rows.feature_names), len(rows.target_names), rows.categorical_positions)
    for block, mask in masked_blocks(rows, parts.mask):
        if not mask.any():
            continue
        if ranges_in is None:
            statistics.add(block.x[mask], block.y[mask])
        else:
            with np.errstate(over="ignore"):  # the dataset refuses values that do not fit
                statistics.add_ranges(block.x[mask].astype(ranges_in, copy=False))
    statistics.finish()
    medians = partial(rows.medians, parts.mask)
    return learn(statistics, rows, standardize=standardize, center=center, where=where, medians=medians)


def in_blocks(indices: Any) -> Iterator[Any]:
    """Cut indices into blocks."""
    return (indices[first : first + INDICES_AT_ONCE] for first in range(0, len(indices), INDICES_AT_ONCE))


def ascending(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of a mask in blocks, in the order of memory, which is several times as fast as any other."""
    for block in in_blocks(range(len(mask))):
        rows = np.flatnonzero(mask[block.start : block.stop])
        if len(rows):
            yield rows + block.start
