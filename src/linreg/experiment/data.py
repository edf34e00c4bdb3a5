"""The data of a spec: opens its source, and runs the stages of `data.pipeline` with its settings."""

from typing import Any

import numpy as np

from linreg.data import pipeline
from linreg.data.conversion import open_mapped
from linreg.data.dataset import refuse_shapes
from linreg.data.preprocessing import is_needed
from linreg.data.resident import ResidentRows
from linreg.data.rows import Rows, StreamedRows
from linreg.data.sources import DATASETS, Points, Samples
from linreg.data.split import Parts, divide
from linreg.spec.schema import ExperimentSpec


def prepare(spec: ExperimentSpec) -> pipeline.Data:
    """Read the data of a spec, divide it, and learn the preprocessing. Raises SpecError, DataError."""
    where, standardize, split = spec.where("data", "source"), spec.data.standardize, _split_of(spec)
    points = _open_source(spec)
    if isinstance(points, Rows):
        rows = points
    else:  # without preprocessing the rows are read straight into the dataset
        needed = is_needed(points, standardize)
        rows = ResidentRows(points, dtype="float64" if needed else spec.dtype, gaps=needed, where=where)
    center = has_intercept(spec)
    return pipeline.prepare(rows, split=split, standardize=standardize, center=center, dtype=spec.dtype, where=where)


def has_intercept(spec: ExperimentSpec) -> bool:
    """Return whether the model of a spec has an intercept. Without one, `standardize` must not shift columns."""
    return spec.model.params.get("bias") is not False


def open_parts(spec: ExperimentSpec) -> tuple[Rows, Parts]:
    """Open the rows of a spec for passes over them, with memory for a block, and divide them into parts.

    Raises SpecError, DataError."""
    split, points = _split_of(spec), _open_source(spec)
    rows = points if isinstance(points, Rows) else StreamedRows(points, where=spec.where("data", "source"))
    return rows, divide(rows.n_rows, **split)


def _split_of(spec: ExperimentSpec) -> dict[str, Any]:
    """Return the arguments of `divide`."""
    split = spec.data.split
    return {"train_ratio": split.train_ratio, "seed": split.seed, "where": spec.where("data", "split")}


def _open_source(spec: ExperimentSpec) -> Points:
    """Open the source of a spec, converted into a map if `data.memory` is mapped."""
    where = spec.where("data", "source")
    with np.errstate(over="ignore", invalid="ignore"):  # later checks refuse non-finite values, by row and column
        points: Points = DATASETS.build(spec.data.source, where=where)
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    if spec.data.memory == "resident":
        return points
    return open_mapped(
        points, source=spec.data.source.to_dict(), memory_limit=spec.data.memory_limit * 2**20, where=where
    )
