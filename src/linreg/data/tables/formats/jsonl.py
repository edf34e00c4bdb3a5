"""JSON lines: an object per line. Only prediction reads them."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format
from linreg.data.tables.formats.errors import bad_cell, first_line, refuse
from linreg.data.tables.formats.files import File, open_bytes
from linreg.data.tables.formats.typed import typed_batch
from linreg.errors import DataError


def column_names(file: File, format: Format) -> list[str]:
    """Read the names of the first object."""
    with open_bytes(file) as stream:
        line = stream.readline()
    return list(_parse(file, 1, line)) if line.strip() else []


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches; blank lines are skipped. Raises DataError for bad lines and cells."""
    with open_bytes(file) as stream:
        rows = (_parse(file, number, line) for number, line in enumerate(stream, 1) if line.strip())
        first = 0
        while block := list(islice(rows, BLOCK_ROWS)):
            yield _batch(file, format, columns, block, first)
            first += len(block)


def _batch(file: File, format: Format, columns: Columns, rows: list[dict[str, Any]], first: int) -> Batch:
    problems: list[str] = []
    arrays: dict[str, Any] = {}
    for name in columns.all:
        values = [row.get(name) for row in rows]
        if name in columns.numbers:
            for row, value in enumerate(values):
                if isinstance(value, str) and (not value.strip() or value in format.missing_values):
                    values[row] = None
                elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                    problems.append(bad_cell(file, first + row, name, json.dumps(value)))
                    values[row] = None
            arrays[name] = pa.array(values, pa.float64(), from_pandas=False, safe=False)
        elif name in columns.texts:
            arrays[name] = pa.array([_category(value) for value in values], pa.string())
        else:
            arrays[name] = pa.array([json.dumps(v) if isinstance(v, dict | list) else v for v in values])
    refuse(problems)
    return typed_batch(file, format, columns, arrays, first)


def _category(value: Any) -> str | None:
    """Return a value as the name of a category. 3 and 3.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _parse(file: File, number: int, line: bytes) -> dict[str, Any]:
    """Parse the line of a number. Raises DataError."""
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number}: not JSON: {first_line(error)}; write one object per line") from None
    if not isinstance(row, dict):
        raise DataError(f'{file}: line {number}: not an object; write one per line, such as {{"x": 0.2}}')
    return row


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
