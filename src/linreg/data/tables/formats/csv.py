"""CSV, parsed by arrow in slices of whole rows, in threads. Bad files are read again to find the bad cells."""

import csv as python_csv
import io
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from linreg.data.tables.formats.batch import Batch, Columns, Format, Made
from linreg.data.tables.formats.errors import MOST_PROBLEMS, bad_cell, first_line, refuse, text_column
from linreg.data.tables.formats.files import MOST_HEADER, File, open_bytes, open_utf8
from linreg.data.tables.formats.typed import to_numpy, with_gaps
from linreg.data.tables.slices import slices
from linreg.errors import DataError
from linreg.system.threads import map_in_threads

BLOCK_BYTES = 2**21


def column_names(file: File, format: Format) -> list[str]:
    """Read the header. Raises DataError."""
    encoding = "utf-8-sig" if format.encoding.lower() in ("utf-8", "utf8") else format.encoding
    with open_bytes(file) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        try:
            names = next(python_csv.reader(_header_lines(text), delimiter=format.delimiter), [])
        except UnicodeDecodeError:
            raise DataError(f"{file}: not text in {format.encoding}; set encoding, or name another file") from None
        except python_csv.Error as error:
            raise DataError(f"{file}: the header cannot be read: {error}; name a CSV file") from None
    if any("\0" in name for name in names):  # arrow would skip a row after such a header
        raise DataError(f"{file}: a NUL byte in the header; save the table as text")
    return names


def map_batches(
    function: Callable[[Batch], Made], file: File, format: Format, columns: Columns
) -> Generator[Made, None, None]:
    """Read a file and yield the function's result for each batch. Raises DataError.

    Numbers are parsed directly. If arrow refuses a cell, the rest is read as text: a gap may have blanks around it.
    """
    types = dict.fromkeys(columns.numbers, pa.float64()) | dict.fromkeys([*columns.texts, *columns.others], pa.string())

    def convert(batch: Any) -> tuple[int, Made]:
        return len(batch), function(_batch(format, columns, batch))

    first = 0
    try:
        with closing(_parsed(file, format, types, convert)) as parsed:  # stops the threads after an error
            for n_rows, made in parsed:
                yield made
                first += n_rows
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        if not isinstance(file, Path):
            raise DataError(f"{file}: after row {first}: {first_line(error)}; fix the table") from None
        _refuse_bad_cells(file, format, columns)
        yield from map(function, _read_as_text(file, format, columns, skip=first))


def _header_lines(text: IO[str]) -> Iterator[str]:
    """Read lines, at most MOST_HEADER characters of them."""
    remaining = MOST_HEADER
    while line := text.readline(remaining + 1):
        remaining -= len(line)
        if remaining < 0:
            raise python_csv.Error(f"more than {MOST_HEADER:,} characters, or an unclosed quote")
        yield line


def _parsed(
    file: File, format: Format, types: Mapping[str, Any], function: Callable[[Any], Made]
) -> Generator[Made, None, None]:
    """Parse the columns in `types`. Yields the function's result for each of arrow's batches."""
    names = column_names(file, format)
    parse_options = csv.ParseOptions(
        delimiter=format.delimiter,
        newlines_in_values=True,
        ignore_empty_lines=len(names) > 1,  # in a single column an empty line is a gap
    )
    convert_options = csv.ConvertOptions(
        column_types=types,
        include_columns=list(types),
        null_values=["", *format.missing_values],
        decimal_point=format.decimal,
    )

    def parse(numbered: tuple[int, Any]) -> list[Made]:
        number, text = numbered
        options = csv.ReadOptions(
            use_threads=False,
            block_size=len(text),
            column_names=names,
            skip_rows_after_names=int(number == 0),  # the header
        )
        table = csv.read_csv(pa.BufferReader(text), options, parse_options, convert_options)
        return [function(batch) for batch in table.to_batches()]

    with open_utf8(file, format.encoding) as stream:
        texts = enumerate(slices(stream, BLOCK_BYTES, format.delimiter))
        with closing(map_in_threads(parse, texts, pa.cpu_count())) as parsed:
            for made in parsed:
                yield from made
    pa.default_memory_pool().release_unused()  # arrow would keep the memory of some slices


def _parsed_as_text(file: File, format: Format, names: list[str]) -> Generator[Any, None, None]:
    """Parse some columns without converting a cell. Yields arrow's batches."""
    return _parsed(file, format, dict.fromkeys(names, pa.string()), lambda batch: batch)


def _read_as_text(file: File, format: Format, columns: Columns, *, skip: int) -> Iterator[Batch]:
    """Read the rows after the first `skip` ones, and convert numbers from text."""
    with closing(_parsed_as_text(file, format, columns.all)) as parsed:
        for batch in parsed:
            if len(batch) > skip:
                yield _batch(format, columns, batch.slice(skip))
            skip = max(0, skip - len(batch))


def _batch(format: Format, columns: Columns, batch: Any) -> Batch:
    """Convert one of arrow's batches. Raises arrow's ArrowInvalid for a cell that is not a finite number."""
    numbers = {}
    for name in columns.numbers:
        column = batch[name]
        if pa.types.is_string(column.type):  # it is among the texts or others, too
            from linreg.data.tables.cells import to_numbers, without_blanks

            column = to_numbers(with_gaps(without_blanks(column), format), format.decimal)
        numbers[name] = values = to_numpy(column)
        if np.count_nonzero(np.isfinite(values)) != len(values) - column.null_count:
            raise pa.ArrowInvalid("a value that is not finite")
    texts = {name: with_gaps(batch[name], format) for name in columns.texts}
    return Batch(len(batch), numbers, texts, {name: batch[name] for name in columns.others})


def _refuse_bad_cells(file: Path, format: Format, columns: Columns) -> None:
    """Raise a DataError that lists the bad cells of a file, if there are any."""
    names = [name for name in columns.numbers if name not in columns.texts]
    cells: list[tuple[int, str, str]] = []  # row, column, text
    numeric: set[str] = set()  # columns with a number or a gap
    first = 0
    try:
        with closing(_parsed_as_text(file, format, list(dict.fromkeys([*names, *columns.texts])))) as parsed:
            for batch in parsed:
                for name in names:
                    found, all_bad = _bad_cells(batch[name], format)
                    cells += [(first + row, name, cell) for row, cell in found]
                    if not all_bad:
                        numeric.add(name)
                first += len(batch)
                if len(cells) > 100 * MOST_PROBLEMS:
                    break
    except pa.ArrowInvalid as error:
        if "Expected" in str(error):
            _refuse_ragged_rows(file, format)
        wrong_encoding = "UTF8" in str(error)
        hint = "set encoding to that of the file, such as latin-1" if wrong_encoding else "fix the table"
        raise DataError(f"{file}: after row {first}: {first_line(error)}; {hint}") from None
    n_bad = Counter(name for _, name, _ in cells)
    texts = [name for name in names if name not in numeric and n_bad[name] > 1]
    examples = {name: cell for _, name, cell in reversed(cells)}
    problems = [text_column(file, name, examples[name]) for name in texts]
    refuse([*problems, *(bad_cell(file, *cell) for cell in sorted(cells) if cell[1] not in texts)])


def _bad_cells(column: Any, format: Format) -> tuple[list[tuple[int, str]], bool]:
    """Return the first bad cells of a column with their rows, and whether all its cells are bad."""
    from linreg.data.tables.cells import are_wrong, without_blanks

    cells = with_gaps(without_blanks(column), format)
    wrong = are_wrong(cells, format.decimal)
    rows = np.nonzero(wrong)[0][: MOST_PROBLEMS + 1].tolist()
    return [(row, cells[row].as_py()) for row in rows], bool(wrong.all())


def _refuse_ragged_rows(file: Path, format: Format) -> None:
    """Raise a DataError that lists the rows whose length differs from that of the header."""
    problems = []
    n_columns = len(column_names(file, format))
    with open_bytes(file) as stream, io.TextIOWrapper(stream, format.encoding, errors="replace", newline="") as text:
        rows = (row for row in python_csv.reader(text, delimiter=format.delimiter) if row)
        for number, row in enumerate(rows):
            if len(row) != n_columns:
                what = f"expected {n_columns} columns, got {len(row)}"
                problems.append(f"{file}: row {number}: {what}; fix it, or set delimiter")
    refuse(problems)
