"""The file formats of tables. `reading` and `profile` read every table through these functions."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from linreg.data.tables.formats import csv, excel, feather, jsonl, numpy, parquet, sqlite
from linreg.data.tables.formats.batch import MOST_COLUMNS, Batch, Columns, Format, Layout, Made, Numbers, Span
from linreg.data.tables.formats.csv import canonical_name
from linreg.data.tables.formats.errors import translated_errors
from linreg.data.tables.formats.files import File, StandardInput, Stored, compression, standard_input
from linreg.errors import DataError, show

__all__ = [
    "Batch", "Columns", "File", "Format", "Layout", "Numbers", "Span", "StandardInput", "Stored", "batches",
    "canonical_name", "column_names", "map_batches", "spans_of", "standard_input",
]  # fmt: skip

_FORMATS = {
    "csv": csv, "parquet": parquet, "feather": feather, "jsonl": jsonl, "sqlite": sqlite, "excel": excel, "npz": numpy,
    "npy": numpy,
}  # fmt: skip


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names of a file: without blanks around them, in Unicode's composed form. Raises DataError."""
    return list(_names(file, format))


def _names(file: File, format: Format) -> dict[str, str]:
    """Return the names of the columns in the file, by their canonical form."""
    with translated_errors(file, f"not a readable {format.name} file", "fix it, or name another file"):
        names: list[str] = _FORMATS[format.name].column_names(file, format)
    if not names:
        raise DataError(f"{file}: empty; a table needs a header with column names")
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file}: {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    canonical = [canonical_name(name) for name in names]
    duplicates = [name for name, count in Counter(canonical).items() if count > 1]
    if duplicates:
        same = [name for name, form in zip(names, canonical, strict=True) if form == duplicates[0]]
        forms = f" (written {', '.join(map(ascii, same[:3]))})" if len(set(same)) > 1 else ""
        raise DataError(f"{file}: duplicate column {show(duplicates[0])}{forms}; rename one")
    return dict(zip(canonical, names, strict=True))


def batches(file: File, format: Format, columns: Columns) -> Generator[Batch, None, None]:
    """Read a file in batches of rows. Raises DataError, which lists at most ten bad cells."""
    return map_batches(lambda batch: batch, file, format, columns)


def map_batches(
    function: Callable[[Batch], Made],
    file: File,
    format: Format,
    columns: Columns,
    span: Span | None = None,
    first: int = 0,
) -> Generator[Made, None, None]:
    """Read a file and yield the function's result for each batch, in order. The function may run in any thread. span: a
    part of it, of `spans_of`, which begins with row `first`. Raises DataError, which lists at most ten bad cells."""
    with translated_errors(file, f"cannot be read as {format.name}", "fix the table"):
        if format.name == "csv":  # its reader renames columns itself
            yield from csv.map_batches(function, file, format, columns, span)
            return
        names = _names(file, format)
        read = _FORMATS[format.name].read
        place = (span, first) if span is not None else ()
        for batch in read(file, format, _renamed(columns, names), *place):
            yield function(_with_names(batch, columns, names))


def spans_of(file: File, format: Format) -> Sequence[Span | None]:
    """Return the parts of a file that can be read by themselves; None for the whole file, if it has none. Raises
    DataError."""
    has_spans = format.name == "parquet" or (format.name == "csv" and isinstance(file, Path))
    if isinstance(file, StandardInput) or not has_spans:
        return [None]
    with translated_errors(file, f"not a readable {format.name} file", "fix it, or name another file"):
        found: Sequence[Span] = [] if compression(file) else _FORMATS[format.name].spans(file, format)
        return found or [None]


def _renamed(columns: Columns, names: Mapping[str, str]) -> Columns:
    """Return the columns by their names in the file."""

    def in_file(part: Sequence[str]) -> list[str]:
        return [names.get(name, name) for name in part]

    parts = (columns.numbers, columns.texts, columns.others, columns.dates)
    return Columns(*map(in_file, parts))


def _with_names(batch: Batch, columns: Columns, names: Mapping[str, str]) -> Batch:
    """Return a batch by the canonical names of its columns."""
    if all(names.get(name, name) == name for name in columns.all):
        return batch
    return replace(
        batch,
        numbers={name: batch.numbers[names[name]] for name in [*columns.numbers, *columns.dates]},
        texts={name: batch.texts[names[name]] for name in columns.texts},
        others={name: batch.others[names[name]] for name in columns.others},
    )
