"""Prediction for rows of inputs: `predict`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linreg.data.preprocessing import Feature
from linreg.errors import UsageError
from linreg.experiment.doubts import Doubts
from linreg.experiment.loaded import LoadedModel

Value = float | str
Row = Value | Sequence[Value] | dict[str, Value]


@dataclass(frozen=True)
class Prediction:
    """Inputs (N, n_features) and predictions (N, n_targets), with the names of their columns; lower, upper: the bounds
    of the interval, if requested. In the inputs a category is its position in the feature's list."""

    feature_names: list[str]
    target_names: list[str]
    inputs: NDArray[np.floating]
    predictions: NDArray[np.floating]
    rows: list[list[Value]] = field(default_factory=list)
    lower: NDArray[np.floating] | None = None
    upper: NDArray[np.floating] | None = None


def predict(path: str | Path, rows: Sequence[Row], *, device: str = "cpu", interval: float | None = None) -> Prediction:
    """Predict for rows of inputs with the model alone: no data, no optimizer.

    A row is a list of n_features values, a mapping of names to values, or one value. Raises CheckpointError, and
    UsageError for rows that do not fit.
    """
    if not rows:
        raise UsageError("--inputs: no rows to predict for; give at least one")
    model = LoadedModel(path, device=device)
    saved = model.saved
    ordered = [_ordered(row, saved.feature_names) for row in rows]
    table = np.array([[_number(*pair) for pair in zip(row, model.features, strict=True)] for row in ordered])
    if model.preprocessing is None:
        with np.errstate(over="ignore"):
            table = table.astype(model.spec.dtype)
    if not np.isfinite(table).all():
        raise UsageError(
            f"--inputs: a value is too large for {model.spec.dtype}, the model's precision; give smaller ones"
        )
    predictions = model(table)
    if not np.isfinite(predictions).all():
        row = int(np.nonzero(~np.isfinite(predictions).all(axis=1))[0][0])
        raise UsageError(f"--inputs: the prediction for row {row + 1} is not finite; give smaller values")
    margin = None if interval is None else model.margin(table, interval)
    doubts = Doubts(model)
    doubts.add(table)
    doubts.log()
    return Prediction(
        saved.feature_names,
        saved.target_names,
        table,
        predictions,
        ordered,
        None if margin is None else (predictions - margin).astype(predictions.dtype),
        None if margin is None else (predictions + margin).astype(predictions.dtype),
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


def _number(value: Value, feature: Feature) -> float:
    """Return a value as a number; the number of a category is its position in the feature's list."""
    if feature.categories is None:
        if isinstance(value, str):
            raise UsageError(f"--inputs {value}: {value!r} is not a number; write for instance 0.2, -0.34 or 1e-3")
        return float(value)
    for position, category in enumerate(feature.categories):
        if category == value or (not isinstance(value, str) and _is_plain(category) and float(category) == value):
            return float(position)
    known = ", ".join(feature.categories[:20])
    raise UsageError(f"--inputs {_show(value)}: unknown {feature.name}; it is one of {known}")


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) is not None


def _show(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _values(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"
