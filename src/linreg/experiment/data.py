"""The data of a spec: opens its source, and runs the stages of `data.pipeline` with its settings."""

from typing import Any

import numpy as np

from linreg.components.transforms import TARGET_TRANSFORMS, TRANSFORMS
from linreg.data import division, pipeline
from linreg.data.conversion import open_mapped
from linreg.data.dataset import refuse_shapes
from linreg.data.derived import TransformSpec
from linreg.data.folds import Folds, divide_into_folds, divide_rows
from linreg.data.learning import Recipe, is_needed
from linreg.data.resident import ResidentRows
from linreg.data.rows import Rows, StreamedRows
from linreg.data.shards import Shards
from linreg.data.sources import DATASETS, Points, Samples
from linreg.data.split import Column, Parts, divide, join
from linreg.errors import DataError, SpecError
from linreg.experiment.intervals.limits import refuse_large
from linreg.spec.schema import ExperimentSpec
from linreg.training.shards import Exchange


def prepare(spec: ExperimentSpec, exchange: Exchange | None = None) -> pipeline.Data:
    """Read the data of a spec, divide it, and learn the preprocessing. exchange: with processes that do so for their
    shards. Raises SpecError, DataError, GroupError."""
    return prepare_rows(spec, read_rows(spec, exchange))


def read_rows(spec: ExperimentSpec, exchange: Exchange | None = None) -> Rows:
    """Read the rows of a spec into memory, or open their map; in a group those of the shards of this process. Raises
    SpecError, DataError, GroupError."""
    shards = _shards_of(spec, exchange)
    points = _open_source(spec, shards)
    if isinstance(points, Rows):
        return points
    # without preprocessing the rows are read straight into the dataset
    needed, where = is_needed(points, recipe_of(spec)), spec.where("data", "source")
    return ResidentRows(points, dtype="float64" if needed else spec.dtype, gaps=needed, where=where, shards=shards)


def _shards_of(spec: ExperimentSpec, exchange: Exchange | None) -> Shards | None:
    """Return the shards of a spec, of which this process has some; None if it has none."""
    n, exchange = spec.data.shards, exchange or Exchange()
    return None if n is None else Shards(n, exchange.own(n), exchange.all_of)


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


def open_parts(spec: ExperimentSpec, rows: Rows | None = None, exchange: Exchange | None = None) -> tuple[Rows, Parts]:
    """Open the rows of a spec for passes over them, with memory for a block, and divide them into parts.

    rows: the rows, if they are open already; exchange: as in `prepare`. Raises SpecError, DataError, GroupError."""
    if rows is not None:
        return rows, _divide(spec, rows)
    shards = _shards_of(spec, exchange)
    points, where = _open_source(spec, shards), spec.where("data", "source")
    rows = points if isinstance(points, Rows) else StreamedRows(points, where=where, shards=shards)
    return rows, _divide(spec, rows)


def _divide(spec: ExperimentSpec, rows: Rows) -> Parts:
    """Divide rows into parts. Raises SpecError, DataError."""
    split, cut = spec.data.split, rows.cut
    if split.folds is not None and split.fold is not None:
        parts = folds_of(spec, rows).parts(split.fold)
    elif cut is None:
        parts = _divide_all(spec, rows)
    elif split.by == "random":
        parts = division.divide_at_random(cut, ratios=_ratios(spec), **_seed_and_where(spec))
    else:
        parts = division.own_parts(cut, _divide_all(spec, rows))
    if cut is not None:
        parts = division.with_own_files(cut, parts)
    elif rows.sizes:
        parts = join(rows.sizes, parts)
    if spec.intervals is not None:
        refuse_large(spec, rows, parts, len(rows.target_names))
    return parts


def _divide_all(spec: ExperimentSpec, rows: Rows) -> Parts:
    """Divide all rows of the table, also those of other processes. Raises SpecError, DataError."""
    return divide(_n_divided(rows), **_ratios(spec), **_rule(spec, rows))


def folds_of(spec: ExperimentSpec, rows: Rows) -> Folds:
    """Divide rows into the folds of a spec's split, of which it has one. Raises SpecError, DataError."""
    split, cut = spec.data.split, rows.cut
    assert split.folds is not None
    if cut is not None and split.by == "random":
        return division.fold_at_random(cut, folds=split.folds, ratios=_ratios(spec), **_seed_and_where(spec))
    folds = _all_folds(spec, rows)
    return folds if cut is None else division.own_folds(cut, folds)


def _all_folds(spec: ExperimentSpec, rows: Rows) -> Folds:
    """Divide all rows of the table into folds, also those of other processes. Raises SpecError, DataError."""
    assert spec.data.split.folds is not None
    return divide_into_folds(_n_divided(rows), folds=spec.data.split.folds, **_ratios(spec), **_rule(spec, rows))


def inner_folds(spec: ExperimentSpec, rows: Rows, parts: Parts, *, folds: int, where: str) -> Folds:
    """Divide the training part into folds, by the rule of the split. Raises SpecError, DataError."""
    split, cut = spec.data.split, rows.cut
    if cut is not None and split.by == "random":
        return division.fold_part_at_random(cut, parts.train, folds=folds, seed=split.seed, where=where)
    train = parts.train
    if cut is not None:
        whole = _divide_all(spec, rows) if split.fold is None else _all_folds(spec, rows).parts(split.fold)
        train = whole.train
    divided = divide_rows(train, folds=folds, **{**_rule(spec, rows), "where": where})
    return divided if cut is None else division.own_folds(cut, divided)


def _n_divided(rows: Rows) -> int:
    """Return the number of rows that are divided, of all processes: those of separate files are not."""
    if rows.cut is not None:
        return rows.cut.sizes[0]
    return rows.sizes[0] if rows.sizes else rows.n_rows


def _ratios(spec: ExperimentSpec) -> division.Ratios:
    """Return the shares of the parts as arguments."""
    split = spec.data.split
    return {
        "train_ratio": split.train_ratio,
        "test_ratio": split.test_ratio,
        "calibration_ratio": split.calibration_ratio,
    }


def _seed_and_where(spec: ExperimentSpec) -> dict[str, Any]:
    return {"seed": spec.data.split.seed, "where": spec.where("data", "split")}


def _rule(spec: ExperimentSpec, rows: Rows) -> dict[str, Any]:
    """Return the rule of a division as arguments. Raises SpecError, DataError."""
    split, where = spec.data.split, spec.where("data", "split")
    rule, name = split.rule
    column = None
    if name is not None:
        where = spec.where("data", "split", "by", rule)
        column = _split_column(rows, name, where)
        if rule == "time" and not column.is_number:
            raise DataError(
                f"{where}: column {name!r} has neither numbers nor ISO dates; set date_format in data.source"
            )
        column = column._replace(values=column.values[: _n_divided(rows)])
    return {"by": rule, "seed": split.seed, "column": column, "where": where}


def _split_column(rows: Rows, name: str, where: str) -> Column:
    try:
        return rows.column(name)
    except ValueError as error:
        raise SpecError([f"{where}: {str(error).removeprefix('by: ')}"]) from None


def _open_source(spec: ExperimentSpec, shards: Shards | None) -> Points:
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
        points,
        source=spec.data.source.to_dict(),
        memory_limit=spec.data.memory_limit * 2**20,
        where=where,
        shards=shards,
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
