"""Prediction for rows of inputs: `predict`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.preprocessing import Feature, rows_as_data_errors
from linreg.data.transform import codes_of
from linreg.errors import DataError, UsageError
from linreg.experiment.doubts import Doubts
from linreg.experiment.intervals.opening import open_intervals
from linreg.experiment.loaded import LoadedModel

Value = float | str
Row = Value | Sequence[Value] | dict[str, Value]


@dataclass(frozen=True)
class Prediction:
    """Inputs (N, n_features) and predictions (N, n_targets), with the names of their columns; lower, upper: the bounds
    of the interval, if requested; interval: its level, its method and the number of rows that calibrate it. In the
    inputs a category is its position in the feature's list."""

    feature_names: list[str]
    target_names: list[str]
    inputs: NDArray[np.floating]
    predictions: NDArray[np.floating]
    rows: list[list[Value]] = field(default_factory=list)
    lower: NDArray[np.floating] | None = None
    upper: NDArray[np.floating] | None = None
    interval: dict[str, Any] | None = None


def predict(path: str | Path, rows: Sequence[Row], *, device: str = "cpu", interval: float | None = None) -> Prediction:
    """Predict for rows of inputs with the model alone: no data, no optimizer.

    A row is a list of n_features values, a mapping of names to values, or one value. interval: the level of the
    intervals, as 0.9. Raises CheckpointError, and UsageError for rows or a level that do not fit.
    """
    if not rows:
        raise UsageError("--inputs: no rows to predict for; give at least one")
    model = LoadedModel(path, device=device)
    intervals = None if interval is None else open_intervals(model, interval)
    saved = model.saved
    ordered = [_ordered(row, saved.feature_names) for row in rows]
    parse = make_parse_fn(model)
    table = np.array([[parse(*pair) for pair in zip(row, model.features, strict=True)] for row in ordered])
    table = table.reshape(len(rows), len(model.features))
    if model.preprocessing is None:
        with np.errstate(over="ignore"):
            table = table.astype(model.spec.dtype)
    if not np.isfinite(table).all():
        raise UsageError(
            f"--inputs: a value is too large for {model.spec.dtype}, the model's precision; give smaller ones"
        )
    try:
        with rows_as_data_errors(model.preprocessing, table, None, lambda row: f"--inputs: row {row + 1}"):
            predictions = model(table)
    except DataError as error:
        raise UsageError(str(error)) from None
    if not np.isfinite(predictions).all():
        row = int(np.nonzero(~np.isfinite(predictions).all(axis=1))[0][0])
        raise UsageError(f"--inputs: the prediction for row {row + 1} is not finite; give smaller values")
    lower, upper = (None, None) if intervals is None else intervals.bounds(table, predictions)
    doubts = Doubts(model)
    doubts.add(table)
    doubts.log()
    return Prediction(
        saved.feature_names,
        saved.target_names,
        table,
        predictions,
        ordered,
        lower,
        upper,
        None if intervals is None else intervals.described(),
    )


def _ordered(row: Row, names: list[str]) -> list[Value]:
    """Return the values of one row in the order of the features."""
    wanted = f"{_values(len(names))} ({', '.join(names)})"
    if isinstance(row, int | float | str):
        row = [row]
    if not isinstance(row, dict):
        if len(row) != len(names):
            given = ",".join(_show(value) for value in row)
            raise UsageError(
                f"--inputs {given}: {_values(len(row))}, and the model takes {wanted}; "
                "put commas within a row, spaces between rows"
            )
        return list(row)
    unknown = [name for name in row if name not in names]
    missing = [name for name in names if name not in row]
    if unknown or missing:
        given = ",".join(f"{name}={_show(value)}" for name, value in row.items())
        problems = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise UsageError(f"--inputs {given}: {'; '.join(problems)}; the model takes {wanted}")
    return [row[name] for name in names]


def make_parse_fn(model: LoadedModel) -> Callable[[Value, Feature], float]:
    """Make a function that returns a value as the number that a table would have: that of a category is its position in
    the feature's list, that of a date its days since 1970-01-01. It raises UsageError."""
    params = model.spec.data.source.params

    def parse(value: Value, feature: Feature) -> float:
        if feature.categories is not None:
            return float(_position(value, feature.name, feature.categories))
        if not isinstance(value, str):
            if feature.name in model.dates:
                raise UsageError(f"--inputs {_show(value)}: {feature.name} is a date; write for instance 2024-05-31")
            return float(value)
        import pyarrow as pa

        from linreg.data.tables import cells, paths

        options, array = paths.format_options(params), pa.array([value])
        if feature.name in model.dates:
            try:
                return float(cells.parse_dates(array, options.get("date_format", ""))[0])
            except pa.ArrowInvalid:
                wanted = params["date_format"] or "2024-05-31"
                raise UsageError(f"--inputs {value}: {value!r} is not a date as {wanted}") from None
        number = float(cells.parse_numbers(array, options["numbers"])[0])
        if np.isnan(number):
            raise UsageError(f"--inputs {value}: {value!r} is not a number; write for instance 0.2, -0.34 or 1e-3")
        return number

    return parse


def _position(value: Value, name: str, categories: list[str]) -> int:
    from linreg.data.tables.cells import canonical

    position = codes_of(categories)(canonical(value if isinstance(value, str) else repr(float(value))))
    if position < 0 and not isinstance(value, str):  # 01 is written as a number, too
        same = [i for i, category in enumerate(categories) if _is_plain(category) and float(category) == value]
        position = same[0] if same else -1
    if position < 0:
        known = ", ".join(categories[:20])
        raise UsageError(f"--inputs {_show(value)}: unknown {name}; it is one of {known}")
    return position


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) is not None


def _show(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _values(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"
