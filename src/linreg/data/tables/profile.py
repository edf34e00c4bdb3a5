"""Profile of a table whose content is unknown: its format and columns. `linreg init` writes a spec from it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from linreg.data.tables.cells import are_names
from linreg.data.tables.column import Column
from linreg.data.tables.dialect import with_dialect
from linreg.data.tables.formats import Batch, Columns, Format, Numbers, Stored, batches, canonical_name
from linreg.data.tables.formats.files import COMPRESSED
from linreg.data.tables.formats.typed import decoded, is_text
from linreg.data.tables.notation import GAP_MARKERS, recognise
from linreg.data.tables.paths import common_columns, files_of, first_file, format_of
from linreg.data.tables.remote import Remote, size_of
from linreg.errors import DataError, UsageError, suggest

MOST_ROWS = 100_000  # profiled
MOST_READ = 5_000  # rows, to recognise the notation of numbers
_COMPRESSION = 4  # of CSV, typically


@dataclass(frozen=True)
class Profile:
    """The profile of a table's first rows.

    targets: the names of the target columns; n_profiled: the number of rows; n_blocks, n_read: the blocks read for
    them, and the rows of those; n_rows: the rows of the table, an estimate if it is partial; is_partial: whether the
    table has more rows than those profiled.
    """

    path: str
    targets: list[str]
    format: Format
    columns: Mapping[str, Column]
    n_profiled: int
    n_blocks: int
    n_read: int
    n_rows: int
    is_partial: bool


def profile(path: str, *, delimiter: str | None, missing_values: Sequence[str], targets: Sequence[str]) -> Profile:
    """Read and profile the first rows of a table. Raises DataError; UsageError for an unknown target."""
    targets = [canonical_name(target) for target in targets]
    format, files = _open(path, delimiter, missing_values, targets)
    names = common_columns(files, format)
    targets = [_found(target, names, path, header=format.layout.header) for target in targets]
    format = replace(format, numbers=_numbers(files, format, names))
    columns = {name: Column(name) for name in names}
    n_profiled = n_blocks = n_read = n_bytes = 0
    for batch in _batches(files, format, names):
        n_blocks, n_read = n_blocks + 1, n_read + batch.n_rows
        kept = None
        if format.name == "csv" and format.layout.header:
            kept = pa.array(~are_names(list(batch.others), list(batch.others.values())))
        for name, column in columns.items():
            cells = batch.others[name].slice(0, MOST_ROWS - n_profiled)
            cells = cells if kept is None else cells.filter(kept.slice(0, MOST_ROWS - n_profiled))
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
        size = sum(_size(file) * (_COMPRESSION if file.suffix in COMPRESSED else 1) for file in files)
        n_rows = max(n_profiled + 1, round(n_profiled * size / n_bytes))
    elif n_read > MOST_ROWS:  # one column is fast to read
        n_rows = sum(batch.n_rows for batch in _batches(files, format, names[:1]))
    markers = [marker for column in columns.values() if column.is_number for marker in column.markers]
    format = replace(format, missing_values=tuple(dict.fromkeys([*missing_values, *markers])))
    for column in columns.values():
        column.settle(format.missing_values)
    return Profile(path, targets, format, columns, n_profiled, n_blocks, n_read, n_rows, n_read > MOST_ROWS)


def _found(target: str, names: Sequence[str], path: str, *, header: bool) -> str:
    """Return the column of a target; without a header also by its number. Raises UsageError."""
    if target in names:
        return target
    if not header and target.isdecimal() and 1 <= int(target) <= len(names):
        return names[int(target) - 1]
    hint = suggest(target, names)
    if not header:
        hint = f"the first row has numbers, so the columns are {names[0]} to {names[-1]}; name one of them"
    raise UsageError(f"--target {target}: {path} has no column {target!r}; {hint}")


def _size(file: Stored) -> int:
    """Return the size of a file in bytes; 0 for one of a web server that does not send it."""
    return size_of(file) or 0 if isinstance(file, Remote) else file.stat().st_size


def _numbers(files: Sequence[Stored], format: Format, names: Sequence[str]) -> Numbers:
    """Return how numbers are written in the first rows."""
    first = next(_batches(files, format, names), None)
    if first is None:
        return format.numbers
    columns = [column for column in map(decoded, first.others.values()) if is_text(column.type)]
    gaps = {"", *GAP_MARKERS, *format.missing_values}
    cells = [
        [cell for cell in column.slice(0, MOST_READ).to_pylist() if cell and cell.strip() not in gaps]
        for column in columns
    ]
    return recognise([column for column in cells if column])


def _open(
    path: str, delimiter: str | None, missing_values: Sequence[str], targets: Sequence[str]
) -> tuple[Format, list[Stored]]:
    """Return the format and the files of a path. Raises DataError, UsageError."""
    first = first_file(path)
    format = Format("csv") if first is None else format_of(first)  # files_of reports a missing file
    format = replace(format, missing_values=tuple(missing_values))
    files = files_of(path, format)
    if format.name == "csv":
        return with_dialect(format, files[0], delimiter, targets), files
    if delimiter is not None:
        raise UsageError(f"--delimiter: {path}: {format.name} has none; remove it")
    return format, files


def _batches(files: Sequence[Stored], format: Format, names: Sequence[str]) -> Iterator[Batch]:
    return (batch for file in files for batch in batches(file, format, Columns((), (), names)))
