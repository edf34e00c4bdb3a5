"""Files of tables and standard input, opened as streams of bytes. Files that end with `.gz` are decompressed."""

import gzip
import io
import sys
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from linreg.data.tables.formats.errors import unreadable
from linreg.errors import UsageError

BUFFER_BYTES = 2**21
MOST_HEADER = 2**22  # characters


class StandardInput:
    """Standard input, which can be read only once. Its first line is read at once, to detect the format."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = stream.readline(MOST_HEADER)
        if self.head.startswith(b"PAR1"):  # Parquet is read from its end
            self.head += stream.read()

    def __str__(self) -> str:
        return "standard input"

    def open(self) -> IO[bytes]:
        """Open it from its beginning."""
        return io.BufferedReader(_Rejoined(self.head, self.stream), BUFFER_BYTES)


class _Rejoined(io.RawIOBase):
    """The head and the rest of a stream as one stream."""

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


def standard_input() -> StandardInput:
    """Open standard input. Raises UsageError if it is closed."""
    if sys.stdin is None:
        raise UsageError("--input -: standard input is closed; pipe a table in, or name a file")
    return StandardInput(sys.stdin.buffer)


def open_bytes(file: File) -> Any:
    """Open a file as a Python stream."""
    if isinstance(file, StandardInput):
        return file.open()
    return gzip.open(file, "rb") if _is_compressed(file) else file.open("rb")


def open_native(file: File) -> Any:
    """Open a file as an arrow stream. At exit, arrow's threads can still read it after the interpreter is gone."""
    if isinstance(file, StandardInput):
        return pa.BufferReader(file.open().read())
    stream = pa.OSFile(str(file), "rb")
    return pa.CompressedInputStream(stream, "gzip") if _is_compressed(file) else stream


def open_utf8(file: File, encoding: str) -> Any:
    """Open a text file as an arrow stream of its bytes in UTF-8."""
    stream = pa.PythonFile(file.open(), "r") if isinstance(file, StandardInput) else open_native(file)
    return pa.transcoding_input_stream(stream, encoding, "utf-8")


def read_head(file: Path, n_bytes: int) -> bytes:
    """Read the first bytes of a file, decompressed. Raises DataError."""
    try:
        with open_bytes(file) as stream:
            return bytes(stream.read(n_bytes))
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, error) from None


def _is_compressed(file: Path) -> bool:
    return file.name.lower().endswith(".gz")
