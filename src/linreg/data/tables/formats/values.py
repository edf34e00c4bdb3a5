"""Rows of Python values, of JSON lines, databases and workbooks, as batches."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from linreg.data.tables.formats.batch import Batch, Columns, Format
from linreg.data.tables.formats.errors import bad_cell, refuse
from linreg.data.tables.formats.files import File
from linreg.data.tables.formats.typed import typed_batch


def values_batch(
    file: File, format: Format, columns: Columns, values: Mapping[str, Sequence[Any]], first: int
) -> Batch:
    """Convert lists of values (n_rows,) by column name. first: the position of the first row. Raises DataError."""
    problems: list[str] = []
    arrays: dict[str, Any] = {}
    for name in columns.all:
        if name in columns.numbers:
            arrays[name] = _numbers(file, format, name, values[name], first, problems)
        elif name in columns.texts or name in columns.dates:
            arrays[name] = pa.array([None if value is None else _text(value) for value in values[name]], pa.string())
        else:
            arrays[name] = as_array(values[name])
    refuse(problems)
    return typed_batch(file, format, columns, arrays, first)


def _numbers(file: File, format: Format, name: str, values: Sequence[Any], first: int, problems: list[str]) -> Any:
    """Return values as an arrow array of numbers, or of text for `typed_batch` to parse if there is any text."""
    if any(isinstance(value, str) for value in values):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())
    numbers = []
    for row, value in enumerate(values):
        is_number = value is None or isinstance(value, int | float)
        if not is_number:
            problems.append(bad_cell(file, first + row, name, _text(value), format))
        numbers.append(float(value) if is_number and value is not None else None)
    return pa.array(numbers, pa.float64(), from_pandas=False)


def as_array(values: Sequence[Any]) -> Any:
    """Return values of any kinds as an arrow array; of text if they differ."""
    try:
        return pa.array([_text(value) if isinstance(value, dict | list) else value for value in values])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    """Return a value as the text that a CSV file would have."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
