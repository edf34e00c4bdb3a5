"""The data of a spec, and passes over it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.fingerprint import Fingerprint
from linreg.data.mapped import MappedPoints, open_mapped
from linreg.data.pipeline import mask_of
from linreg.data.sources import DATASETS, Points
from linreg.data.split import split_rows
from linreg.errors import DataError
from linreg.spec.schema import ExperimentSpec


def open_points(spec: ExperimentSpec) -> Points:
    """Open the source of a spec; with `data.memory: mapped`, the map of what was converted from it."""
    where = spec.where("data", "source")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by row and column
        points: Points = DATASETS.build(spec.data.source, where=where)
    if spec.data.memory == "resident":
        return points
    return open_mapped(
        points, source=spec.data.source.to_dict(), memory_limit=spec.data.memory_limit * 2**20, where=where
    )


def split_of(spec: ExperimentSpec) -> dict[str, Any]:
    """Give the arguments that `split` takes, as a spec has them."""
    part = spec.data.split
    return {"train_ratio": part.train_ratio, "seed": part.seed, "where": spec.where("data", "split")}


def weight_mean(weight: NDArray[np.float64], where: str) -> float:
    """Find the mean of the weights of a part, by which they are divided. Raises DataError where all are 0."""
    mean = float(weight.mean())
    if not mean > 0:
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; give some of its points weight")
    return mean


@dataclass(frozen=True)
class Survey:
    """What a first pass over all points tells: the parts they are divided into, and their fingerprint."""

    mask: NDArray[np.bool_]
    fingerprint: str


def survey(points: Points, spec: ExperimentSpec) -> Survey:
    """Read all points once; of mapped ones it is known already."""
    if isinstance(points, MappedPoints):
        n_rows, fingerprint = points.n_rows, points.fingerprint
    else:
        found = Fingerprint(points)
        for block in points.blocks():
            found.add(block)
        n_rows, fingerprint = found.n_rows, found.text()
    train, _ = split_rows(n_rows, **split_of(spec))
    return Survey(mask_of(train, n_rows), fingerprint)
