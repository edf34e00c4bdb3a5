"""The file formats of tables. `reading` and `profile` read every table through these functions."""

from collections import Counter
from collections.abc import Callable, Generator

from linreg.data.tables.formats import csv, jsonl, numpy, parquet
from linreg.data.tables.formats.batch import MOST_COLUMNS, Batch, Columns, Format, Made
from linreg.data.tables.formats.errors import translated_errors
from linreg.data.tables.formats.files import File, StandardInput, standard_input
from linreg.errors import DataError, show

__all__ = [
    "Batch", "Columns", "File", "Format", "StandardInput", "batches", "column_names", "map_batches", "standard_input",
]  # fmt: skip

_FORMATS = {"csv": csv, "parquet": parquet, "npz": numpy, "npy": numpy, "jsonl": jsonl}


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names of a file. Raises DataError."""
    with translated_errors(file, f"not a readable {format.name} file", "fix it, or name another file"):
        names: list[str] = _FORMATS[format.name].column_names(file, format)
    if not names:
        raise DataError(f"{file}: empty; a table needs a header with column names")
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file}: {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    if duplicates:
        raise DataError(f"{file}: duplicate column {show(duplicates[0])}; rename one")
    return names


def batches(file: File, format: Format, columns: Columns) -> Generator[Batch, None, None]:
    """Read a file in batches of rows. Raises DataError, which lists at most ten bad cells."""
    return map_batches(lambda batch: batch, file, format, columns)


def map_batches(
    function: Callable[[Batch], Made], file: File, format: Format, columns: Columns
) -> Generator[Made, None, None]:
    """Read a file and yield the function's result for each batch, in order. The function may run in any thread. Raises
    DataError, which lists at most ten bad cells."""
    with translated_errors(file, f"cannot be read as {format.name}", "fix the table"):
        if format.name == "csv":
            yield from csv.map_batches(function, file, format, columns)
        else:
            yield from map(function, _FORMATS[format.name].read(file, format, columns))
