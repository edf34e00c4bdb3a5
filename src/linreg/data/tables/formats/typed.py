"""Columns that have a type in arrow, of Parquet, NumPy and JSON lines, as numbers and text."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.tables.formats.batch import Batch, Columns, Format
from linreg.data.tables.formats.errors import bad_cell, bad_date, refuse, text_column
from linreg.data.tables.formats.files import File
from linreg.errors import DataError


def typed_batch(file: File, format: Format, columns: Columns, arrays: Mapping[str, Any], first: int) -> Batch:
    """Convert arrow arrays (n_rows,) by column name. first: the position of the first row. Raises DataError."""
    problems: list[str] = []
    numbers = {name: _as_numbers(file, format, name, arrays[name], first, problems) for name in columns.numbers}
    refuse(problems)
    numbers |= {name: _as_days(file, format, name, arrays[name], first) for name in columns.dates}
    texts = {name: _as_texts(arrays[name]) for name in columns.texts}
    others = {name: arrays[name] for name in columns.others}
    return Batch(len(next(iter(arrays.values()))), numbers, texts, others)


def is_text(kind: Any) -> bool:
    """Return whether an arrow type is text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: Any) -> bool:
    """Return whether an arrow type converts to float64."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def decoded(column: Any) -> Any:
    """Return a column without dictionary encoding."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def as_float64(column: Any) -> Any:
    """Cast a column of numbers to float64."""
    return (column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column).cast(pa.float64(), safe=False)


def to_numpy(column: Any) -> NDArray[np.float64]:
    """Return an arrow column of float64 as an array (n,), NaN for a null. Arrow's own `to_numpy` imports pandas if it
    is installed, which takes 45 MB."""
    if not len(column):
        return np.empty(0)
    validity, content = column.buffers()
    values = np.frombuffer(content, np.float64, len(column), 8 * column.offset)
    if column.null_count:
        bits = np.unpackbits(np.frombuffer(validity, np.uint8), count=column.offset + len(column), bitorder="little")
        values = np.where(bits[column.offset :], values, np.nan)
    return values


def with_gaps(cells: Any, format: Format) -> Any:
    """Replace the missing values of a format by nulls."""
    from linreg.data.tables.cells import with_gaps  # imports pyarrow.compute; CSV with numbers only does not need it

    return with_gaps(cells, format.missing_values)


def _as_numbers(
    file: File, format: Format, name: str, column: Any, first: int, problems: list[str]
) -> NDArray[np.float64]:
    """Return a column as numbers (n,), NaN for a gap. Adds its bad cells to the problems."""
    from linreg.data.tables.cells import is_float

    column = decoded(column)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if is_text(column.type):
        return _parsed(file, format, name, column, first, problems)
    if not is_number(column.type):
        hint = "put it in dates" if pa.types.is_temporal(column.type) else "put it in exclude"
        raise DataError(f"{file}: column {name!r} has type {column.type}, not numbers; {hint}")
    values = to_numpy(as_float64(column))
    for text in format.missing_values:
        if is_float(text):
            values = np.where(values == float(text), np.nan, values)
    wrong = np.nonzero(np.isinf(values))[0]
    problems += [bad_cell(file, first + int(row), name, str(values[row]), format) for row in wrong]
    return values


def _parsed(file: File, format: Format, name: str, column: Any, first: int, problems: list[str]) -> NDArray[np.float64]:
    """Parse a column of text as numbers (n,), NaN for a gap. Adds its bad cells to the problems."""
    from linreg.data.tables.cells import are_wrong, parse_numbers, without_blanks

    cells = with_gaps(without_blanks(column), format)
    wrong = are_wrong(cells, format.numbers)
    if wrong.sum() > 1 and wrong.sum() == len(cells) - cells.null_count:
        problems.append(text_column(file, name, cells.drop_null()[0].as_py(), format))
        return np.full(len(column), np.nan)
    rows = np.nonzero(wrong)[0]
    problems += [bad_cell(file, first + int(row), name, cells[int(row)].as_py(), format) for row in rows]
    return parse_numbers(cells, format.numbers)


def _as_days(file: File, format: Format, name: str, column: Any, first: int) -> NDArray[np.float64]:
    """Return a column of dates as days since 1970-01-01 (n,), NaN for a gap. Raises DataError."""
    from linreg.data.tables.cells import are_dates, days, parse_dates, without_blanks

    column = decoded(column)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return days(column)
    if not is_text(column.type):
        raise DataError(f"{file}: column {name!r} has type {column.type}, not dates; remove it from dates")
    cells = with_gaps(without_blanks(column), format)
    try:
        return parse_dates(cells, format.date_format)
    except pa.ArrowInvalid:
        wrong = np.nonzero(~are_dates(cells, format.date_format) & ~np.asarray(cells.is_null()))[0]
        refuse([bad_date(file, first + int(row), name, cells[int(row)].as_py(), format) for row in wrong])
        raise


def _as_texts(column: Any) -> Any:
    """Return a column as text."""
    column = decoded(column)
    if pa.types.is_floating(column.type):
        values = column.to_pylist()
        return pa.array([None if v is None or math.isnan(v) else repr(v) for v in values], pa.string())
    return column.cast(pa.string())
