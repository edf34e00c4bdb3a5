"""The data of a spec: opens its source, and runs the stages of `data.pipeline` with its settings."""

from typing import Any

import numpy as np

from linreg.components.transforms import TARGET_TRANSFORMS, TRANSFORMS
from linreg.data import pipeline
from linreg.data.conversion import open_mapped
from linreg.data.dataset import refuse_shapes
from linreg.data.derived import TransformSpec
from linreg.data.folds import divide_into_folds
from linreg.data.learning import Recipe, is_needed
from linreg.data.resident import ResidentRows
from linreg.data.rows import Rows, StreamedRows
from linreg.data.sources import DATASETS, Points, Samples
from linreg.data.split import Column, Parts, divide, join
from linreg.errors import DataError, SpecError
from linreg.spec.schema import ExperimentSpec


def prepare(spec: ExperimentSpec) -> pipeline.Data:
    """Read the data of a spec, divide it, and learn the preprocessing. Raises SpecError, DataError."""
    return prepare_rows(spec, read_rows(spec))


def read_rows(spec: ExperimentSpec) -> Rows:
    """Read the rows of a spec into memory, or open their map. Raises SpecError, DataError."""
    points = _open_source(spec)
    if isinstance(points, Rows):
        return points
    # without preprocessing the rows are read straight into the dataset
    needed, where = is_needed(points, recipe_of(spec)), spec.where("data", "source")
    return ResidentRows(points, dtype="float64" if needed else spec.dtype, gaps=needed, where=where)


def prepare_rows(spec: ExperimentSpec, rows: Rows) -> pipeline.Data:
    """Divide rows of `read_rows`, and learn the preprocessing. Raises SpecError, DataError."""
    where = spec.where("data", "source")
    return pipeline.prepare(rows, _divide(spec, rows), recipe_of(spec), dtype=spec.dtype, where=where)


def recipe_of(spec: ExperimentSpec) -> Recipe:
    """Return the preprocessing that a spec asks for, with its transforms built. Raises SpecError."""
    target = spec.data.target_transform
    return Recipe(
        spec.data.standardize,
        has_intercept(spec),
        transforms_of(spec),
        None if target is None else TARGET_TRANSFORMS.build(target, where=spec.where("data", "target_transform")),
    )


def transforms_of(spec: ExperimentSpec) -> list[TransformSpec]:
    """Build the transforms of a spec. Raises SpecError."""
    built = []
    for number, transform in enumerate(spec.data.transforms):
        where, columns = spec.where("data", "transforms", number), transform.params["columns"]
        names = [columns] if isinstance(columns, str) else columns
        built.append(TransformSpec(TRANSFORMS.build(transform, where=where), names, f"{where}: {transform.name}"))
    return built


def dates_of(spec: ExperimentSpec) -> list[str]:
    """Return the features of a spec that are dates."""
    dates = spec.data.source.params.get("dates", [])
    return [dates] if isinstance(dates, str) else list(dates)


def has_intercept(spec: ExperimentSpec) -> bool:
    """Return whether the model of a spec has an intercept. Without one, `standardize` must not shift columns."""
    return spec.model.params.get("bias") is not False


def open_parts(spec: ExperimentSpec, rows: Rows | None = None) -> tuple[Rows, Parts]:
    """Open the rows of a spec for passes over them, with memory for a block, and divide them into parts.

    rows: the rows, if they are open already. Raises SpecError, DataError."""
    if rows is not None:
        return rows, _divide(spec, rows)
    points = _open_source(spec)
    rows = points if isinstance(points, Rows) else StreamedRows(points, where=spec.where("data", "source"))
    return rows, _divide(spec, rows)


def _divide(spec: ExperimentSpec, rows: Rows) -> Parts:
    """Divide rows into parts. Raises SpecError, DataError."""
    split, where = spec.data.split, spec.where("data", "split")
    n_rows = rows.sizes[0] if rows.sizes else rows.n_rows
    rule, name = split.rule
    column = None
    if name is not None:
        where = spec.where("data", "split", "by", rule)
        column = _split_column(rows, name, where)
        if rule == "time" and not column.is_number:
            raise DataError(
                f"{where}: column {name!r} has neither numbers nor ISO dates; set date_format in data.source"
            )
        column = column._replace(values=column.values[:n_rows])
    ratios: Any = {"train_ratio": split.train_ratio, "test_ratio": split.test_ratio, "by": rule}
    common: Any = {**ratios, "seed": split.seed, "column": column, "where": where}
    if split.folds is None or split.fold is None:
        parts = divide(n_rows, **common)
    else:
        parts = divide_into_folds(n_rows, folds=split.folds, fold=split.fold, **common)
    return join(rows.sizes, parts) if rows.sizes else parts


def _split_column(rows: Rows, name: str, where: str) -> Column:
    try:
        return rows.column(name)
    except ValueError as error:
        raise SpecError([f"{where}: {str(error).removeprefix('by: ')}"]) from None


def _open_source(spec: ExperimentSpec) -> Points:
    """Open the source of a spec, converted into a map if `data.memory` is mapped."""
    where = spec.where("data", "source")
    with np.errstate(over="ignore", invalid="ignore"):  # later checks refuse non-finite values, by row and column
        points: Points = DATASETS.build(spec.data.source, where=where)
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    split = spec.data.split
    if split.val is not None or split.test is not None:
        points = _with_files(spec, points)
    if spec.data.memory == "resident":
        return points
    return open_mapped(
        points, source=spec.data.source.to_dict(), memory_limit=spec.data.memory_limit * 2**20, where=where
    )


def _with_files(spec: ExperimentSpec, points: Points) -> Points:
    """Add the files of separate parts to a table. Raises SpecError, DataError."""
    from linreg.data.tables.reading import Table  # imports pyarrow
    from linreg.data.tables.split import with_files

    split, where = spec.data.split, spec.where("data", "split")
    if not isinstance(points, Table):
        key = "val" if split.val is not None else "test"
        raise SpecError([f"{where}.{key}: source {spec.data.source.name} reads no files; remove {key}"])
    try:
        return with_files(points, val=split.val, test=split.test)
    except (ValueError, DataError) as error:
        if isinstance(error, DataError):
            raise DataError(f"{where}: {error}") from None
        raise SpecError([f"{where}.{error}"]) from None
