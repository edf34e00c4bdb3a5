"""JSON lines: an object per line."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format
from linreg.data.tables.formats.errors import first_line
from linreg.data.tables.formats.files import File, open_bytes
from linreg.data.tables.formats.values import values_batch
from linreg.errors import DataError

HEAD_ROWS = 1_000  # whose keys are the columns


def column_names(file: File, format: Format) -> list[str]:
    """Read the names in the first objects."""
    with open_bytes(file) as stream:
        return list(dict.fromkeys(name for row in islice(_objects(file, stream), HEAD_ROWS) for name in row))


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches; blank lines are skipped. Raises DataError for bad lines and cells."""
    with open_bytes(file) as stream:
        rows, first = _objects(file, stream), 0
        while block := list(islice(rows, BLOCK_ROWS)):
            values = {name: [row.get(name) for row in block] for name in columns.all}
            yield values_batch(file, format, columns, values, first)
            first += len(block)


def _objects(file: File, stream: Any) -> Iterator[dict[str, Any]]:
    return (_parse(file, number, line) for number, line in enumerate(stream, 1) if line.strip())


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
