"""The formats of tables, each read in batches of rows with memory for a few of them."""

import codecs
import csv as python_csv
import gzip
import io
import json
import math
import re
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from linreg.data.tables.slices import Recoded, slices
from linreg.errors import DataError, UsageError, shorten, show
from linreg.system.memory import refuse_beyond_memory
from linreg.system.threads import in_order

BLOCK_BYTES = 2**21
BLOCK_ROWS = 2**15
MOST_CELLS = 10  # bad cells told at once
MOST_HEADER = 2**22
MOST_COLUMNS = 100_000


@dataclass(frozen=True)
class Format:
    """How a file is to be read."""

    name: str
    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read: as numbers, as text, and just as they are to be handed on."""

    numbers: Sequence[str]
    texts: Sequence[str]
    others: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """Some rows. numbers: (n,) each, NaN for a gap; texts: null for a gap."""

    n_rows: int
    numbers: Mapping[str, NDArray[np.float64]]
    texts: Mapping[str, Any]
    others: Mapping[str, Any]


class StandardInput:
    """What comes through a pipe: it can be read once. Its first line is read at once, to tell what it is."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = stream.readline(MOST_HEADER)
        if self.head.startswith(b"PAR1"):  # its end has to be read first
            self.head += stream.read()

    def __str__(self) -> str:
        return "standard input"

    def open(self) -> IO[bytes]:
        """Open it from its beginning."""
        return io.BufferedReader(_Rejoined(self.head, self.stream), BLOCK_BYTES)


class _Rejoined(io.RawIOBase):
    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.head[: len(buffer)] or self.rest.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)


File = Path | StandardInput
Reader = Callable[[File, Format, Columns], Iterator[Batch]]
Made = TypeVar("Made")


def column_names(file: File, format: Format) -> list[str]:
    """Read the names of a file's columns. Raises DataError."""
    try:
        names = _NAMES[format.name](file, format)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or _line(error)}; name another file") from None
    except _UNREADABLE as error:
        what = _with_remedy(error, "mend it, or name another file")
        raise DataError(f"{file}: not a {format.name} file that can be read: {what}") from None
    if not names:
        raise DataError(f"{file}: empty; a table begins with the names of its columns")
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{file}: {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{file}: two columns are called {show(twice[0])}; rename one")
    return names


def batches(file: File, format: Format, columns: Columns) -> Generator[Batch, None, None]:
    """Read a file. Raises DataError, with at most ten of the cells that are wrong."""
    return made_of_batches(file, format, columns, lambda batch: batch)


def made_of_batches(
    file: File, format: Format, columns: Columns, make: Callable[[Batch], Made]
) -> Generator[Made, None, None]:
    """Read a file, and give what `make` makes of each batch, maybe in the thread that reads it. Raises DataError."""
    try:
        if format.name == "csv":
            yield from _read_csv(file, format, columns, make)
        else:
            yield from map(make, _READERS[format.name](file, format, columns))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or _line(error)}; name another file") from None
    except _UNREADABLE as error:
        what = _with_remedy(error, "mend the table")
        raise DataError(f"{file}: cannot be read as {format.name}: {what}") from None


def refuse_cells(problems: Sequence[str]) -> None:
    """Raise a DataError with the first ten of the problems, if there are any."""
    if problems:
        more = len(problems) - MOST_CELLS
        raise DataError(*problems[:MOST_CELLS], *(["and more cells like these"] if more > 0 else []))


# What the libraries raise for a file that is not what its name says, or is damaged.
_UNREADABLE = (
    *(pa.ArrowException, ValueError, LookupError, EOFError, OverflowError),
    *(python_csv.Error, zlib.error, zipfile.BadZipFile),
)


# CSV


def _csv_names(file: File, format: Format) -> list[str]:
    encoding = "utf-8-sig" if format.encoding.lower() in ("utf-8", "utf8") else format.encoding
    with _open(file) as binary, io.TextIOWrapper(binary, encoding=encoding, newline="") as text:
        try:
            names = next(python_csv.reader(_header_lines(text), delimiter=format.delimiter), [])
        except UnicodeDecodeError:
            raise DataError(f"{file}: not text in {format.encoding}; set encoding, or name another file") from None
        except python_csv.Error as error:
            raise DataError(f"{file}: its header cannot be read: {error}; name a table in CSV") from None
    if any("\0" in name for name in names):  # after such a header arrow passes over a row
        raise DataError(f"{file}: a NUL in its header; save the table as text")
    return names


def _header_lines(text: IO[str]) -> Iterator[str]:
    """Read lines, and no more of them than a header may have."""
    left = MOST_HEADER
    while line := text.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise python_csv.Error(f"more than {MOST_HEADER:,} characters, or a quote that never ends")
        yield line


def _read_csv(file: File, format: Format, columns: Columns, make: Callable[[Batch], Made]) -> Iterator[Made]:
    """Read numbers straight from the text; what arrow refuses is looked at again, to say where it stands."""
    texts = dict.fromkeys([*columns.texts, *columns.others])
    types = {name: pa.string() for name in texts} | {
        name: pa.float64() for name in columns.numbers if name not in texts
    }

    def counted(batch: Any) -> tuple[int, Made]:
        return len(batch), make(_csv_batch(format, columns, batch))

    first = 0
    try:
        with closing(_csv_stream(file, format, types, counted)) as stream:  # or its threads outlive an error
            for n_rows, made in stream:
                yield made
                first += n_rows
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        if isinstance(file, Path):
            _refuse_bad_rows(file, format, columns)
            yield from map(make, _read_csv_as_text(file, format, columns, skip=first))
        else:
            raise DataError(f"{file}: after row {first}: {_line(error)}; mend the table") from None


def _read_csv_as_text(file: File, format: Format, columns: Columns, *, skip: int) -> Iterator[Batch]:
    """Read the rows after the first ones with every cell as text: gaps with blanks around them are found that way."""
    types = dict.fromkeys([*columns.numbers, *columns.texts, *columns.others], pa.string())
    with closing(_csv_stream(file, format, types, lambda batch: batch)) as stream:
        for batch in stream:
            if len(batch) > skip:
                yield _csv_batch(format, columns, batch.slice(skip))
            skip = max(0, skip - len(batch))


def _csv_batch(format: Format, columns: Columns, batch: Any) -> Batch:
    numbers = {}
    for name in columns.numbers:
        column = batch[name]
        if pa.types.is_string(column.type):  # it is to be handed on as well
            column = _as_strict_numbers(column, format)
        numbers[name] = values = _to_numpy(column)
        if np.count_nonzero(np.isfinite(values)) != len(values) - column.null_count:
            raise pa.ArrowInvalid("a value that is not finite")
    return Batch(
        len(batch),
        numbers,
        {name: _with_gaps(batch[name], format) for name in columns.texts},
        {name: batch[name] for name in columns.others},
    )


def _to_numpy(column: Any) -> NDArray[np.float64]:
    """Give a column of float64, NaN for a null. Arrow's own `to_numpy` would import pandas where that is installed, and
    take its 45 MB."""
    validity, content = column.buffers()
    values = np.frombuffer(content, np.float64, len(column), 8 * column.offset) if len(column) else np.empty(0)
    if column.null_count:
        bits = np.frombuffer(validity, np.uint8)
        valid = np.unpackbits(bits, bitorder="little")[column.offset : column.offset + len(column)]
        values = np.where(valid, values, np.nan)
    return values


def _as_strict_numbers(column: Any, format: Format) -> Any:
    """Give cells of text as numbers, null for a gap. Raises arrow's ArrowInvalid."""
    from linreg.data.tables.cells import to_numbers, without_blanks

    return to_numbers(_with_gaps(without_blanks(column), format), format.decimal)


def _with_gaps(cells: Any, format: Format) -> Any:
    from linreg.data.tables.cells import with_gaps  # imports much, and a table of numbers alone has no use for it

    return with_gaps(cells, format.missing_values)


def _csv_stream(
    file: File, format: Format, types: Mapping[str, Any], make: Callable[[Any], Made]
) -> Generator[Made, None, None]:
    """Parse the columns of a file, slice by slice in threads; give what `make` makes of each of arrow's batches."""
    names = column_names(file, format)
    parse_options = csv.ParseOptions(
        delimiter=format.delimiter,
        newlines_in_values=True,
        ignore_empty_lines=len(names) > 1,  # in a single column such a line is a gap
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
        return [make(batch) for batch in table.to_batches()]

    with _open_utf8(file, format.encoding) as stream:
        texts = enumerate(slices(stream, BLOCK_BYTES, format.delimiter))
        with closing(in_order(parse, texts, pa.cpu_count())) as parsed:
            for made in parsed:
                yield from made
    pa.default_memory_pool().release_unused()  # arrow would keep some slices' worth for the next file


def _refuse_bad_rows(file: Path, format: Format, columns: Columns) -> None:
    """Look for what is wrong in a file, and raise a DataError for it."""
    from linreg.data.tables.cells import are_wrong, without_blanks

    names = [name for name in columns.numbers if name not in columns.texts]
    bad: list[tuple[int, str, str]] = []
    sound: set[str] = set()
    first = 0
    try:
        types = dict.fromkeys([*names, *columns.texts], pa.string())
        with closing(_csv_stream(file, format, types, lambda batch: batch)) as stream:
            for batch in stream:
                for name in names:
                    cells = _with_gaps(without_blanks(batch[name]), format)
                    wrong = are_wrong(cells, format.decimal)
                    rows = np.nonzero(wrong)[0][: MOST_CELLS + 1]
                    bad += [(first + int(row), name, cells[int(row)].as_py()) for row in rows]
                    if not wrong.all():
                        sound.add(name)
                first += len(batch)
                if len(bad) > 100 * MOST_CELLS:
                    break
    except pa.ArrowInvalid as error:
        if "Expected" in str(error):
            _refuse_ragged_rows(file, format)
        encoding = "UTF8" in str(error)
        remedy = "set encoding: latin-1, or whatever it is written in" if encoding else "mend the table"
        raise DataError(f"{file}: after row {first}: {_line(error)}; {remedy}") from None
    often = Counter(column for _, column, _ in bad)
    texts = [name for name in names if name not in sound and often[name] > 1]
    of_text = [
        f"{file}: column {name!r} is text, such as {show(next(cell for _, column, cell in bad if column == name))}; "
        "put it in categorical, or in exclude"
        for name in texts
    ]
    cells = sorted(item for item in bad if item[1] not in texts)
    refuse_cells([*of_text, *(_bad_cell(file, *item) for item in cells)])


def _refuse_ragged_rows(file: Path, format: Format) -> None:
    """Raise a DataError that names the rows that have more or fewer columns than the header."""
    problems = []
    n_columns = len(column_names(file, format))
    with _open(file) as binary, io.TextIOWrapper(binary, format.encoding, errors="replace", newline="") as text:
        rows = (row for row in python_csv.reader(text, delimiter=format.delimiter) if row)
        for number, row in enumerate(rows):
            if len(row) != n_columns:
                what = f"{_columns(len(row))}, and the header has {n_columns}"
                problems.append(f"{file}: row {number}: {what}; mend it, or set delimiter")
    refuse_cells(problems)


def _columns(number: int) -> str:
    return f"{number} column" if number == 1 else f"{number} columns"


def _bad_cell(file: File, row: int, name: str, cell: str) -> str:
    from linreg.data.tables.cells import is_float

    digits = re.fullmatch(
        r"\s*[-+]?[0-9.,]+(?:[eE][-+]?[0-9]+)?\s*|\s*[-+]?(?:inf(?:inity)?|nan)\s*", cell, re.IGNORECASE
    )
    what = "is not finite" if digits and is_float(cell) else "is not a number"
    hint = "mend it, or add it to missing_values if it stands for a gap"
    if "," in cell and cell.count(",") == 1:
        hint = "set decimal: ',' if that is the decimal sign, or mend it"
    return f"{file}: row {row + 1}, column {name!r}: {show(cell)} {what}; {hint}"


# Arrow's types, of Parquet


def _parquet_names(file: File, format: Format) -> list[str]:
    from pyarrow import parquet

    with _open_native(file) as stream:
        return list(parquet.ParquetFile(stream).schema_arrow.names)


def _read_parquet(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    from pyarrow import parquet

    with _open_native(file) as stream:
        table = parquet.ParquetFile(stream)
        wanted = list(dict.fromkeys([*columns.numbers, *columns.texts, *columns.others]))
        first = 0
        for batch in table.iter_batches(batch_size=BLOCK_ROWS, columns=wanted):
            yield _typed_batch(file, format, columns, {name: batch[name] for name in wanted}, len(batch), first)
            first += len(batch)


def _typed_batch(
    file: File, format: Format, columns: Columns, found: Mapping[str, Any], n_rows: int, first: int
) -> Batch:
    problems: list[str] = []
    numbers = {name: _as_numbers(file, format, name, found[name], first, problems) for name in columns.numbers}
    refuse_cells(problems)
    texts = {name: _as_texts(format, found[name]) for name in columns.texts}
    return Batch(n_rows, numbers, texts, {name: found[name] for name in columns.others})


def _as_numbers(
    file: File, format: Format, name: str, column: Any, first: int, problems: list[str]
) -> NDArray[np.float64]:
    """Give a typed column as numbers, NaN for a gap; adds what cannot be one to the problems."""
    from linreg.data.tables.cells import are_wrong, is_float, parse_numbers, without_blanks

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        cells = _with_gaps(without_blanks(column), format)
        wrong = are_wrong(cells)
        if wrong.any() and wrong.sum() == len(cells) - cells.null_count:
            problems.append(
                f"{file}: column {name!r} is text, such as {show(cells.drop_null()[0].as_py())}; put it in "
                "categorical, or in exclude"
            )
            return np.full(len(column), np.nan)
        problems += [_bad_cell(file, first + int(row), name, cells[int(row)].as_py()) for row in np.nonzero(wrong)[0]]
        return parse_numbers(cells, ".")
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise DataError(f"{file}: column {name!r} holds {column.type}, not numbers; put it in exclude")
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = _to_numpy(column.cast(pa.float64(), safe=False))
    for text in format.missing_values:
        if is_float(text):
            values = np.where(values == float(text), np.nan, values)
    problems += [_bad_cell(file, first + int(row), name, str(values[row])) for row in np.nonzero(np.isinf(values))[0]]
    return values


def _as_texts(format: Format, column: Any) -> Any:
    """Give a typed column as text: 3 and 3.0 are the same category, as they are in JSON."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        values = column.to_pylist()
        texts = [None if v is None or math.isnan(v) else str(int(v)) if v.is_integer() else repr(v) for v in values]
        return _with_gaps(pa.array(texts, pa.string()), format)
    return _with_gaps(column.cast(pa.string()), format)


# NumPy's files


def _arrays(file: File) -> dict[str, NDArray[Any]]:
    """Open the arrays of a `.npy` or `.npz`, each under the names of its columns."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that nothing else comes of
            return _loaded(file)
    except (TypeError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(_line(error)) from None  # as NumPy and zipfile have it of what is damaged


def _loaded(file: File) -> dict[str, NDArray[Any]]:
    with _open(file) as stream:
        if isinstance(file, Path):  # a .npy is mapped: to look at its columns is not to read it
            if stream.read(2) == b"PK":  # a .npz, whatever its name
                _refuse_bomb(file)
            found = np.load(file, allow_pickle=False, mmap_mode="r")
        else:
            found = np.load(io.BytesIO(stream.read()), allow_pickle=False)
        if isinstance(found, np.ndarray):
            if found.dtype.names and found.ndim == 1:
                return {name: found[name] for name in found.dtype.names}
            return _columns_of("x", found)
        columns: dict[str, NDArray[Any]] = {}
        with found:
            for name in found.files:
                more = _columns_of(name, found[name])
                twice = [column for column in more if column in columns]
                if twice:
                    raise ValueError(f"two of its arrays make a column {twice[0]!r}; rename one")
                columns |= more
    return columns


def _refuse_bomb(file: Path) -> None:
    """Refuse a .npz whose arrays are not what they say, differ in rows, or are more than memory holds, before any of
    them is read. Raises DataError, ValueError."""
    lengths: dict[str, int] = {}
    n_bytes = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
            size = math.prod(shape) * dtype.itemsize
            if size > member.file_size:
                raise ValueError(f"array {show(member.filename)} has less than the {size:,} bytes that it says")
            n_bytes += size
            lengths[member.filename.removesuffix(".npy")] = shape[0] if shape else 0
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{shorten(name)} has {length}" for name, length in lengths.items())
        raise DataError(f"{file}: its arrays differ in rows: {said}; save arrays of one length")
    refuse_beyond_memory(n_bytes)


def _columns_of(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if array.ndim == 1 and not array.dtype.names:
        return {name: array}
    if array.ndim != 2 or array.dtype.names:
        raise ValueError(f"array {name!r} has {array.ndim} dimensions; it must have rows, or rows and columns")
    if array.shape[1] > MOST_COLUMNS:
        raise ValueError(f"array {name!r} has {array.shape[1]:,} columns; at most {MOST_COLUMNS:,} are read")
    if array.shape[1] == 1 and name != "x":
        return {name: array[:, 0]}
    return {f"{name}{i + 1}" if array.shape[1] > 1 else name: array[:, i] for i in range(array.shape[1])}


def _numpy_names(file: File, format: Format) -> list[str]:
    return list(_arrays(file))


def _read_numpy(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    arrays = _arrays(file)
    n_rows = len(next(iter(arrays.values())))
    for first in range(0, n_rows, BLOCK_ROWS):
        part = {name: _to_arrow(array[first : first + BLOCK_ROWS]) for name, array in arrays.items()}
        yield _typed_batch(file, format, columns, part, min(BLOCK_ROWS, n_rows - first), first)


def _to_arrow(array: NDArray[Any]) -> Any:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return pa.array(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))


# JSON lines


def _jsonl_names(file: File, format: Format) -> list[str]:
    with _open(file) as stream:
        head = stream.readline()
    return list(_parse_line(file, 1, head)) if head.strip() else []


def _read_jsonl(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    wanted = list(dict.fromkeys([*columns.numbers, *columns.texts, *columns.others]))
    rows: list[dict[str, Any]] = []
    first = 0
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                rows.append(_parse_line(file, number, line))
            if len(rows) == BLOCK_ROWS:
                yield _jsonl_batch(file, format, columns, wanted, rows, first)
                first += len(rows)
                rows = []
    if rows:
        yield _jsonl_batch(file, format, columns, wanted, rows, first)


def _jsonl_batch(
    file: File, format: Format, columns: Columns, wanted: Sequence[str], rows: list[dict[str, Any]], first: int
) -> Batch:
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name in wanted:
        values = [row.get(name) for row in rows]
        if name in columns.numbers:
            for row, value in enumerate(values):
                if isinstance(value, str) and (not value.strip() or value in format.missing_values):
                    values[row] = None
                elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                    problems.append(_bad_cell(file, first + row, name, json.dumps(value)))
                    values[row] = None
            found[name] = pa.array(values, pa.float64(), from_pandas=False, safe=False)
        elif name in columns.texts:
            found[name] = pa.array([_category(value) for value in values], pa.string())
        else:
            found[name] = pa.array([json.dumps(v) if isinstance(v, dict | list) else v for v in values])
    refuse_cells(problems)
    return _typed_batch(file, format, columns, found, len(rows), first)


def _category(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _parse_line(file: File, number: int, line: bytes) -> dict[str, Any]:
    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not a number")

    try:
        row = json.loads(line, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number}: not JSON: {_line(error)}; write one object a line") from None
    if not isinstance(row, dict):
        raise DataError(f'{file}: line {number}: not an object; write one a line, such as {{"x": 0.2}}')
    return row


_NAMES: dict[str, Callable[[File, Format], list[str]]] = {
    "csv": _csv_names,
    "parquet": _parquet_names,
    "npz": _numpy_names,
    "npy": _numpy_names,
    "jsonl": _jsonl_names,
}
_READERS: dict[str, Reader] = {
    "parquet": _read_parquet,
    "npz": _read_numpy,
    "npy": _read_numpy,
    "jsonl": _read_jsonl,
}


def _open_native(file: File) -> Any:
    """Open a file for arrow's own threads: one of Python's would need the interpreter, which may be gone at exit."""
    if isinstance(file, StandardInput):
        return pa.BufferReader(file.open().read())
    stream = pa.OSFile(str(file), "rb")
    return pa.CompressedInputStream(stream, "gzip") if file.name.lower().endswith(".gz") else stream


def _open(file: File) -> Any:
    """Open the bytes of a file, those of a compressed one as they were."""
    if isinstance(file, StandardInput):
        return file.open()
    return gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")


def _open_utf8(file: File, encoding: str) -> Any:
    """Open a text as bytes in UTF-8."""
    if codecs.lookup(encoding).name == "utf-8":
        return file.open() if isinstance(file, StandardInput) else _open_native(file)
    return Recoded(io.TextIOWrapper(_open(file), encoding, newline=""))


def _line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _with_remedy(error: BaseException, remedy: str) -> str:
    """Say what an error says, and what would do, unless it says so itself."""
    line = _line(error).rstrip(".")
    return line if "; " in line else f"{line}; {remedy}"


def head(file: Path, n_bytes: int) -> bytes:
    """Read the beginning of a file, of a compressed one as it was. Raises DataError."""
    try:
        with _open(file) as stream:
            return bytes(stream.read(n_bytes))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read: {_line(error)}; name another file") from None


def standard_input() -> StandardInput:
    """Open what is piped in. Raises UsageError if nothing can be."""
    if sys.stdin is None:
        raise UsageError("--input -: standard input is closed; pipe a table in, or name a file")
    return StandardInput(sys.stdin.buffer)
