"""CSV, parsed by arrow in slices of whole rows, in threads. Bad files are read again to find the bad cells."""

import csv as python_csv
import io
import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from linreg.data.tables.formats.batch import Batch, Columns, Format, Made, Span
from linreg.data.tables.formats.errors import MOST_PROBLEMS, bad_cell, bad_date, first_line, refuse, text_column
from linreg.data.tables.formats.files import MOST_HEADER, File, StandardInput, open_bytes, open_span, open_utf8
from linreg.data.tables.formats.lines import (
    below,
    is_regular,
    is_sep_line,
    lines_of_table,
    regular,
    rows,
    written_delimiter,
)
from linreg.data.tables.formats.quotes import NO_END, SWALLOWS, refuse_swallowed_rows, swallows, unquoted
from linreg.data.tables.formats.typed import to_numpy, with_gaps
from linreg.data.tables.slices import slices
from linreg.errors import DataError
from linreg.system.threads import map_in_threads

log = logging.getLogger("linreg")

BLOCK_BYTES = 2**21
SPAN_BYTES = 2**23  # that a process reads by themselves
ROW_NAME = "row_name"  # of the first column, if the header has no name for it
MOST_SEP = 64  # characters of Excel's first line
MOST_LINES = 1  # of a row, as a rule


def column_names(file: File, format: Format) -> list[str]:
    """Read the header. Raises DataError."""
    return _names(file, format)[0]


def _names(file: File, format: Format) -> tuple[list[str], list[str]]:
    """Return the names of the columns, and those of all cells of a row: an empty one after a trailing delimiter."""
    row, layout = first_row(file, format), format.layout
    if any("\0" in name for name in row):  # arrow would skip a row after such a header
        raise DataError(f"{file}: a NUL byte in the header; save the table as text")
    if layout.trailing_delimiter and row and (not row[-1].strip() or not layout.header):
        row = row[:-1]
    names = [canonical_name(name) for name in row] if layout.header else [f"c{i + 1}" for i in range(len(row))]
    if layout.row_names and layout.header:
        names = [ROW_NAME, *names]
    return names, [*names, *[""] * layout.trailing_delimiter]


def first_row(file: File, format: Format) -> list[str]:
    """Read the first row, below the lines to skip. Raises DataError."""
    encoding = "utf-8-sig" if format.encoding.lower() in ("utf-8", "utf8") else format.encoding
    with open_bytes(file) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        try:
            lines = lines_of_table(_header_lines(text), format)
            if not is_regular(format):
                return next(rows(lines, format), [])
            return next(python_csv.reader(lines, delimiter=format.delimiter), [])
        except UnicodeDecodeError:
            raise DataError(f"{file}: not text in {format.encoding}; set encoding, or name another file") from None
        except UnicodeError as error:  # UTF-16 without its mark
            raise DataError(f"{file}: {error}; set encoding") from None
        except python_csv.Error as error:
            raise DataError(f"{file}: the header cannot be read: {error}; name a CSV file") from None


def _n_lines_above(file: File, format: Format) -> int:
    """Return the number of lines above the table: Excel's `sep=` line and the lines to skip."""
    with open_bytes(file) as stream, io.TextIOWrapper(stream, format.encoding, errors="replace") as text:
        return format.layout.skip_lines + bool(is_sep_line(text.readline(MOST_SEP)))


def canonical_name(name: str) -> str:
    """Return a column name without blanks around it, in Unicode's composed form."""
    return unicodedata.normalize("NFC", name.strip())


def map_batches(
    function: Callable[[Batch], Made], file: File, format: Format, columns: Columns, span: Span | None = None
) -> Generator[Made, None, None]:
    """Read a file and yield the function's result for each batch. span: only these bytes. Raises DataError.

    Numbers are parsed directly if they are plain. If arrow refuses a cell or a row, the rest is read as text.
    """
    is_plain = format.numbers.is_plain and not isinstance(file, StandardInput)
    types = dict.fromkeys(columns.numbers, pa.float64() if is_plain else pa.string())
    types |= dict.fromkeys([*columns.dates, *columns.texts, *columns.others], pa.string())

    def convert(batch: Any) -> tuple[int, Made]:
        return len(batch), function(_batch(format, columns, batch))

    first = 0
    try:
        with closing(_parsed(file, format, types, convert, span=span)) as parsed:  # stops the threads after an error
            for n_rows, made in parsed:
                yield made
                first += n_rows
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        if isinstance(file, StandardInput):
            raise DataError(f"{file}: after row {first}: {first_line(error)}; fix the table") from None
        if str(error) in (NO_END, SWALLOWS):
            _refuse_ragged_rows(file, format, is_open=str(error) == NO_END)
        _refuse_bad_cells(file, format, columns, span)
        yield from map(function, _read_as_text(file, format, columns, span, skip=first))


def _header_lines(text: IO[str]) -> Iterator[str]:
    """Read lines, at most MOST_HEADER characters of them."""
    remaining = MOST_HEADER
    while line := text.readline(remaining + 1):
        remaining -= len(line)
        if remaining < 0:
            raise python_csv.Error(f"more than {MOST_HEADER:,} characters, or an unclosed quote")
        yield line


def _parsed(
    file: File,
    format: Format,
    types: Mapping[str, Any],
    function: Callable[[Any], Made],
    *,
    rewrites: bool = False,
    span: Span | None = None,
) -> Generator[Made, None, None]:
    """Parse the columns in `types`. Yields the function's result for each of arrow's batches.

    rewrites: whether the lines are rewritten as plain CSV, as always for an irregular format; span: only these bytes of
    a regular file."""
    names, cells = _names(file, format)
    rewrites = rewrites or not is_regular(format)
    delimiter = written_delimiter(format) if rewrites else format.delimiter
    parse_options = csv.ParseOptions(
        delimiter=delimiter,
        newlines_in_values=True,
        ignore_empty_lines=len(names) > 1,  # in a single column an empty line is a gap
    )
    trailing = {"": pa.null()} if format.layout.trailing_delimiter else {}  # null: a value there is an error
    convert_options = csv.ConvertOptions(
        column_types={**types, **trailing},
        include_columns=[*types, *trailing],
        null_values=["", *format.missing_values],
        decimal_point=format.numbers.decimal,
    )

    is_begin = span is None or span.start == 0

    def parse(numbered: tuple[int, Any]) -> list[Made]:
        number, text = numbered
        options = csv.ReadOptions(
            use_threads=False,
            block_size=len(text),
            column_names=cells,
            skip_rows_after_names=int(number == 0 and format.layout.header and is_begin),
        )
        table = csv.read_csv(pa.BufferReader(text), options, parse_options, convert_options)
        refuse_swallowed_rows(text, len(table), len(cells), delimiter)
        return [function(batch) for batch in table.to_batches()]

    with open_utf8(file, format.encoding) if span is None else open_span(file, span) as stream:
        body = below(stream, _n_lines_above(file, format) if is_begin else 0)
        texts = enumerate(slices(regular(body, format) if rewrites else body, BLOCK_BYTES, delimiter))
        with closing(map_in_threads(parse, texts, pa.cpu_count())) as parsed:
            for made in parsed:
                yield from made
    pa.default_memory_pool().release_unused()  # arrow would keep the memory of some slices


def spans(file: Path, format: Format) -> list[Span]:
    """Cut a regular file in UTF-8 into parts of about SPAN_BYTES that end with a row; it has none if its lines are to
    be rewritten or recoded, or cannot be read."""
    if format.encoding.lower() not in ("utf-8", "utf8") or not is_regular(format):
        return []
    found, start = [], 0
    with open_utf8(file, format.encoding) as stream, suppress(pa.ArrowInvalid):
        for text in slices(stream, SPAN_BYTES, format.delimiter):
            found.append(Span(start, start + len(text)))
            start += len(text)
    return found if start == file.stat().st_size else []


def _parsed_as_text(file: File, format: Format, names: list[str], span: Span | None) -> Generator[Any, None, None]:
    """Parse some columns without converting a cell. Yields arrow's batches."""
    types = dict.fromkeys(names, pa.string())
    return _parsed(file, format, types, lambda batch: batch, rewrites=True, span=span)


def _read_as_text(file: File, format: Format, columns: Columns, span: Span | None, *, skip: int) -> Iterator[Batch]:
    """Read the rows after the first `skip` ones, and convert numbers from text."""
    with closing(_parsed_as_text(file, format, columns.all, span)) as parsed:
        for batch in parsed:
            if len(batch) > skip:
                rest = batch.slice(skip)
                repeats = _repeats_header(rest, columns)
                if repeats.any():
                    log.warning("%s: skipped rows that repeat the header: %d", file, repeats.sum())
                kept = _batch(format, columns, rest.filter(pa.array(~repeats)))
                yield replace(kept, skipped=(np.flatnonzero(repeats) - np.arange(repeats.sum())).tolist())
            skip = max(0, skip - len(batch))


def _repeats_header(batch: Any, columns: Columns) -> NDArray[np.bool_]:
    """Return for each row whether it repeats the header: each cell is the name of its column, also of a number."""
    from linreg.data.tables.cells import are_names

    return are_names(batch.schema.names, batch.columns) if columns.numbers else np.zeros(len(batch), dtype=bool)


def _batch(format: Format, columns: Columns, batch: Any) -> Batch:
    """Convert one of arrow's batches. Raises arrow's ArrowInvalid for a cell that is not a finite number."""
    numbers = {}
    for name in columns.numbers:
        column = batch[name]
        if pa.types.is_string(column.type):  # it is among the texts or others, too
            from linreg.data.tables.cells import to_numbers, without_blanks

            column = to_numbers(with_gaps(without_blanks(column), format), format.numbers)
        numbers[name] = values = to_numpy(column)
        if np.count_nonzero(np.isfinite(values)) != len(values) - column.null_count:
            raise pa.ArrowInvalid("a value that is not finite")
    for name in columns.dates:
        from linreg.data.tables.cells import parse_dates, without_blanks

        numbers[name] = parse_dates(with_gaps(without_blanks(batch[name]), format), format.date_format)
    others = {name: batch[name] for name in columns.others}
    return Batch(len(batch), numbers, {name: unquoted(batch[name]) for name in columns.texts}, others)


def _refuse_bad_cells(file: File, format: Format, columns: Columns, span: Span | None = None) -> None:
    """Raise a DataError that lists the bad cells of a file, if there are any. span: only if they are among these
    bytes."""
    if span is not None:
        try:
            _refuse_bad_cells_of(file, format, columns, span)
        except DataError:  # again, to find the numbers of their rows in the file
            _refuse_bad_cells_of(file, format, columns, None)
            raise
        return
    _refuse_bad_cells_of(file, format, columns, None)


def _refuse_bad_cells_of(file: File, format: Format, columns: Columns, span: Span | None) -> None:
    names = [name for name in [*columns.numbers, *columns.dates] if name not in columns.texts]
    cells: list[tuple[int, str, str]] = []  # row, column, text
    numeric: set[str] = set()  # columns with a number, a date or a gap
    first = 0
    try:
        with closing(_parsed_as_text(file, format, columns.all, span)) as parsed:
            for batch in parsed:
                header = _repeats_header(batch, columns)
                for name in names:
                    found, all_bad = _bad_cells(batch[name], format, header, is_date=name in columns.dates)
                    cells += [(first + row, name, cell) for row, cell in found]
                    if not all_bad:
                        numeric.add(name)
                first += len(batch)
                if len(cells) > 100 * MOST_PROBLEMS:
                    break
    except pa.ArrowInvalid as error:
        if "Expected" in str(error) or "quote" in str(error):
            _refuse_ragged_rows(file, format)
        if "to null" in str(error):
            raise DataError(
                f"{file}: after row {first}: a cell after the last delimiter; remove trailing_delimiter"
            ) from None
        wrong_encoding = "UTF8" in str(error)
        hint = "set encoding to that of the file, such as latin-1" if wrong_encoding else "fix the table"
        raise DataError(f"{file}: after row {first}: {first_line(error)}; {hint}") from None
    n_bad = Counter(name for _, name, _ in cells)
    texts = [name for name in names if name not in numeric and n_bad[name] > 1 and name not in columns.dates]
    examples = {name: cell for _, name, cell in reversed(cells)}
    problems = [text_column(file, name, examples[name], format) for name in texts]
    problems += [
        bad_date(file, *cell, format) if cell[1] in columns.dates else bad_cell(file, *cell, format)
        for cell in sorted(cells)
        if cell[1] not in texts
    ]
    refuse(problems)


def _bad_cells(
    column: Any, format: Format, header: NDArray[np.bool_], *, is_date: bool
) -> tuple[list[tuple[int, str]], bool]:
    """Return the first bad cells of a column with their rows, and whether all its cells are bad. header: the rows that
    repeat the header."""
    from linreg.data.tables.cells import are_dates, are_wrong, without_blanks

    cells = with_gaps(without_blanks(column), format)
    wrong = ~are_dates(cells, format.date_format) if is_date else are_wrong(cells, format.numbers)
    rows = np.nonzero(wrong & ~header)[0][: MOST_PROBLEMS + 1].tolist()
    return [(row, cells[row].as_py()) for row in rows], bool((wrong | header).all())


def _refuse_ragged_rows(file: File, format: Format, *, is_open: bool = False) -> None:
    """Raise a DataError that lists the rows whose length differs from that of the header, and quotes without an end."""
    problems, last = [], ""
    n_columns, layout = len(_names(file, format)[1]), format.layout
    with open_bytes(file) as stream, io.TextIOWrapper(stream, format.encoding, errors="replace", newline="") as text:
        counted = _Counted(text)
        number, begin = int(not layout.header), 1
        for row in rows(lines_of_table(counted, format), format):
            end = counted.n_lines
            if not row:
                begin = end + 1
                continue
            if len(row) != n_columns and number > 0:
                what = f"expected {n_columns} columns, got {len(row)}"
                if end > begin + MOST_LINES:
                    what += f"; a quote begins on line {begin} and has no end before line {end}"
                if len(row) == n_columns + 1 and not row[-1].strip():
                    what += "; rows end in a delimiter: set trailing_delimiter: true"
                problems.append(f"{file}: row {number}: {what}; fix it, or set delimiter")
            last = f"{file}: row {number}: a quote begins on line {begin} and has no end"
            if len(row) == n_columns and swallows(row, n_columns, written_delimiter(format)):
                problems.append(f"{last} before line {end}; fix it")
            number, begin = number + 1, end + 1
            if len(problems) > MOST_PROBLEMS:
                break
    refuse(problems or ([f"{last}; fix it"] if is_open else []))


class _Counted:
    """Lines, counted."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines, self.n_lines = iter(lines), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.n_lines += 1
        return line
