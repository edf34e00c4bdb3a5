"""Profile of a table whose content is unknown: its format and columns. `linreg init` writes a spec from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from linreg.data.tables.column import Column
from linreg.data.tables.dialect import with_dialect
from linreg.data.tables.formats import Batch, Columns, Format, batches
from linreg.data.tables.paths import common_columns, files_of, first_file, format_of
from linreg.errors import DataError, UsageError, suggest

MOST_ROWS = 100_000  # profiled
_GZIP_RATIO = 4  # of CSV, typically


@dataclass(frozen=True)
class Profile:
    """The profile of a table's first rows.

    n_profiled: their number; n_blocks, n_read: the blocks read for them, and the rows of those; n_rows: the rows of
    the table, an estimate if it is partial; is_partial: whether the table has more rows than those profiled.
    """

    path: str
    format: Format
    columns: Mapping[str, Column]
    n_profiled: int
    n_blocks: int
    n_read: int
    n_rows: int
    is_partial: bool


def profile(path: str, *, delimiter: str | None, missing_values: Sequence[str], targets: Sequence[str]) -> Profile:
    """Read and profile the first rows of a table. Raises DataError; UsageError for an unknown target."""
    format, files = _open(path, delimiter, missing_values)
    names = common_columns(files, format)
    for target in targets:
        if target not in names:
            raise UsageError(f"--target {target}: {path} has no column {target!r}; {suggest(target, names)}")
    columns = {name: Column(name) for name in names}
    n_profiled = n_blocks = n_read = n_bytes = 0
    for batch in _batches(files, format, names):
        n_blocks, n_read = n_blocks + 1, n_read + batch.n_rows
        for name, column in columns.items():
            cells = batch.others[name].slice(0, MOST_ROWS - n_profiled)
            column.add(cells, format)
            n_bytes += cells.nbytes - 3 * len(cells)  # in CSV: without arrow's offsets (4 bytes), with a comma (1)
        n_profiled = min(n_read, MOST_ROWS)
        if n_read > MOST_ROWS:
            break
    if n_profiled < 2:
        rows = "one row" if n_profiled else "no rows below the header"
        raise DataError(f"{path}: {rows}; a table needs at least two, one for training and one for validation")
    n_rows = n_profiled
    if n_read > MOST_ROWS and format.name == "csv":
        size = sum(file.stat().st_size * (_GZIP_RATIO if file.suffix == ".gz" else 1) for file in files)
        n_rows = max(n_profiled + 1, round(n_profiled * size / n_bytes))
    elif n_read > MOST_ROWS:  # one column is fast to read
        n_rows = sum(batch.n_rows for batch in _batches(files, format, names[:1]))
    markers = [marker for column in columns.values() if column.is_number for marker in column.markers]
    format = replace(format, missing_values=tuple(dict.fromkeys([*missing_values, *markers])))
    for column in columns.values():
        column.settle(format.missing_values)
    return Profile(path, format, columns, n_profiled, n_blocks, n_read, n_rows, n_read > MOST_ROWS)


def _open(path: str, delimiter: str | None, missing_values: Sequence[str]) -> tuple[Format, list[Path]]:
    """Return the format and the files of a path. Raises DataError, UsageError."""
    first = first_file(Path(path))
    format = format_of(first) if first.is_file() else Format("csv")  # files_of reports a missing file
    format = replace(format, missing_values=tuple(missing_values))
    files = files_of(path, format)
    if format.name == "csv":
        return with_dialect(format, files[0], delimiter), files
    if format.name == "jsonl":
        raise DataError(f"{path}: a spec cannot read jsonl; save the table as CSV or Parquet")
    if delimiter is not None:
        raise UsageError(f"--delimiter: {path}: {format.name} has none; remove it")
    return format, files


def _batches(files: Sequence[Path], format: Format, names: Sequence[str]) -> Iterator[Batch]:
    return (batch for file in files for batch in batches(file, format, Columns((), (), names)))
