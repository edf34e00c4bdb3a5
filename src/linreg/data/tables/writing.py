"""Output tables of a prediction, written in blocks of rows. A file appears only when it is complete."""

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from linreg.errors import DataError, StorageError, UsageError
from linreg.system.files import new_file


class Output(Protocol):
    """A writer of blocks of columns by name. Any thread may encode a block; `write` takes them in order."""

    def ready(self, columns: Mapping[str, Any]) -> Any:
        """Encode a block."""

    def write(self, ready: Any) -> None:
        """Write an encoded block."""


@contextmanager
def open_output(path: Path | None) -> Iterator[Output]:
    """Open a file for blocks in the format of its suffix (.csv, .csv.gz, .parquet, .jsonl), or stdout for CSV. The file
    appears at the end. Raises StorageError, UsageError."""
    if path is None:
        writer = _Csv(sys.stdout.buffer)
        yield writer
        writer.close()
        return
    make = next((make for ending, make in _WRITERS.items() if path.name.lower().endswith(ending)), None)
    if make is None:
        raise UsageError(f"--output {path}: unknown file type; the name must end with one of {', '.join(_WRITERS)}")
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; name a file in it")
    with new_file(path) as raw, ExitStack() as stack:
        stream = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, 0)) if path.name.lower().endswith(".gz") else raw
        writer = make(stream)
        try:
            yield writer
        finally:
            writer.close()


class _Csv:
    """CSV. A number is the shortest decimal that reads back as the same number; text is quoted only if necessary."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.begun = False

    def ready(self, columns: Mapping[str, Any]) -> tuple[list[str], Any]:
        table = _table({name: _flat(column) for name, column in columns.items()})
        texts = [column for column in table.columns if pa.types.is_string(column.type)]
        special = any(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py() for column in texts)
        options = csv.WriteOptions(include_header=False, quoting_style="needed" if special else "none")
        buffer = pa.BufferOutputStream()
        csv.write_csv(table, buffer, options)
        return table.schema.names, buffer.getvalue()

    def write(self, ready: tuple[list[str], Any]) -> None:
        names, text = ready
        if not self.begun:
            self.stream.write((",".join(map(_quoted, names)) + "\n").encode())
            self.begun = True
        self.stream.write(text)

    def close(self) -> None:
        self.stream.flush()


class _Kept:
    """A stream that stays open when arrow closes it."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self.write, self.flush = stream.write, stream.flush

    def close(self) -> None:
        self.flush()


class _Parquet:
    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.writer: Any = None

    def ready(self, columns: Mapping[str, Any]) -> Any:
        return _table(columns)

    def write(self, table: Any) -> None:
        if self.writer is None:
            self.writer = parquet.ParquetWriter(pa.PythonFile(_Kept(self.stream), "w"), table.schema)
        try:
            table = table.cast(self.writer.schema)
        except (pa.ArrowException, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"a column of --keep changes its type: {reason}; write .csv or .jsonl") from None
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _JsonLines:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def ready(self, columns: Mapping[str, Any]) -> bytes:
        lists = {name: _plain(column) for name, column in columns.items()}
        rows = zip(*lists.values(), strict=True)
        lines = [json.dumps(dict(zip(lists, row, strict=True)), ensure_ascii=False) for row in rows]
        return "".join(line + "\n" for line in lines).encode()

    def write(self, ready: bytes) -> None:
        self.stream.write(ready)

    def close(self) -> None:
        self.stream.flush()


_WRITERS: dict[str, Callable[[Any], Any]] = {
    ".csv": _Csv,
    ".csv.gz": _Csv,
    ".parquet": _Parquet,
    ".jsonl": _JsonLines,
}


def _flat(column: Any) -> Any:
    """Return a column for CSV, with lists and other nested values as JSON."""
    if not isinstance(column, pa.Array) or pa.types.is_primitive(column.type) or pa.types.is_string(column.type):
        return column
    values = column.to_pylist()
    texts = [value if isinstance(value, str | None) else json.dumps(value, default=str) for value in values]
    return pa.array(texts, pa.string())


def _table(columns: Mapping[str, Any]) -> Any:
    return pa.table(
        {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    )


def _plain(column: Any) -> list[Any]:
    if isinstance(column, pa.Array):
        return [value if isinstance(value, int | float | str | None) else str(value) for value in column.to_pylist()]
    return [float(str(value)) for value in np.asarray(column)]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(char in name for char in ',"\r\n') else name
