"""The data of a spec with `data.memory: mapped`: as in memory, to the last bit, but read from a map in passes."""

from functools import partial

import numpy as np
import torch
from torch.utils.data import Subset

from linreg.data.mapped import MappedDataset, MappedPoints, WeightScale
from linreg.data.pipeline import Data, mask_of, with_mask
from linreg.data.preprocessing import Preprocessing, RecodeFn, categorical_of, is_needed, learn, make_recode_fn, to_dict
from linreg.data.split import split_rows
from linreg.data.statistics import Statistics, ranges_of
from linreg.errors import DataError
from linreg.experiment.data import split_of, weight_mean
from linreg.spec.schema import ExperimentSpec


def prepare_mapped(spec: ExperimentSpec, points: MappedPoints) -> Data:
    """Divide points that are mapped, and learn the preprocessing of their training part in a pass over them. Raises
    DataError.

    Beside what is resident of the map there is memory for the order of the rows and for their parts; while it is
    learnt, where it takes medians, for a column, and where points are weighted, for the weights.
    """
    where = spec.where("data", "source")
    train, val = split_rows(points.n_rows, **split_of(spec))
    mask = mask_of(train, points.n_rows)

    needed = is_needed(points, spec.data.standardize)
    statistics = Statistics(len(points.feature_names), len(points.target_names))
    for block, here in with_mask(points, mask):
        if needed:
            statistics.add(block.x[here], block.y[here], categorical_of(points))
        elif here.any():
            with np.errstate(over="ignore"):  # refused below
                x = block.x[here].astype(spec.dtype)  # as in memory, of what the network takes
            statistics.add_ranges(*ranges_of(x))
    learnt = learn(
        statistics, points, standardize=spec.data.standardize, where=where, medians=partial(points.medians, mask)
    )
    preprocessing = learnt if needed else None
    recode = make_recode_fn(learnt.features, points)
    _refuse_unseen(points, statistics, recode)
    _refuse_too_large(points, preprocessing, spec.dtype, where)
    scale = None
    if points.weighted:
        weight = points.weight()
        means = [1.0 if part is None else weight_mean(weight[part], where) for part in (train, val)]
        scale = WeightScale(mask, *means)

    dtype = getattr(torch, spec.dtype)
    dataset = MappedDataset(points, dtype, recode=recode, preprocessing=preprocessing, scale=scale)
    return Data(
        feature_names=points.feature_names,
        target_names=points.target_names,
        is_weighted=points.weighted,
        dataset=dataset,
        train_data=Subset(dataset, train),  # type: ignore[arg-type]  # anything that can be indexed
        val_data=None if val is None else Subset(dataset, val),  # type: ignore[arg-type]  # as above
        features=learnt.features,
        preprocessing=preprocessing,
        described=to_dict(learnt.features, points),
        fingerprint=points.fingerprint,
    )


def _refuse_unseen(points: MappedPoints, statistics: Statistics, recode: RecodeFn) -> None:
    """Refuse, where `unseen` says so, a category that only the validation part has; in another pass, if there may be
    one."""
    positions = categorical_of(points)
    met = [len(points.categories[points.feature_names[position]]) for position in positions]
    if points.unseen == "error" and met != [len(statistics.often[position]) for position in positions]:
        for block in points.blocks():
            recode(block)


def _refuse_too_large(points: MappedPoints, preprocessing: Preprocessing | None, dtype: str, where: str) -> None:
    """Refuse values that dtype cannot hold. What a column goes through keeps the order of its values, so that its
    extremes tell."""
    d, t = len(points.feature_names), len(points.target_names)
    extremes = np.stack([points.minimum, points.maximum])
    extremes[:, categorical_of(points)] = 0.0
    x, y = torch.from_numpy(extremes[:, :d]), torch.from_numpy(extremes[:, d : d + t])
    names = [*points.feature_names, *points.target_names]
    if preprocessing is not None:
        x, y = preprocessing(x), preprocessing.scaled(y)
        names = [*preprocessing.column_names, *points.target_names]
    values = torch.cat([x, y], dim=1).to(getattr(torch, dtype))
    for row, column in (~torch.isfinite(values)).nonzero().tolist():
        met = float(torch.cat([x, y], dim=1)[row, column])
        raise DataError(f"{where}: column {names[column]!r} has {met:g}; every value must be finite, and fit {dtype}")
