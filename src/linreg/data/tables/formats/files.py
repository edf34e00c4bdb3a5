"""Files of tables, local and remote, and standard input, opened as streams of bytes. The content decides how a file is
decompressed."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from linreg.data.tables.formats.batch import Span
from linreg.data.tables.formats.errors import unreadable
from linreg.data.tables.remote import Remote, head_of, open_anywhere, open_stream
from linreg.errors import DataError, UsageError

BUFFER_BYTES = 2**21
MOST_HEADER = 2**22  # characters
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # suffixes


class StandardInput:
    """Standard input, which can be read only once. Its first line is read at once, to detect the format."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = stream.readline(MOST_HEADER)
        if self.head.startswith((b"PAR1", b"ARROW1")):  # these are read from their end
            self.head += stream.read()

    def __str__(self) -> str:
        return "standard input"

    def open(self) -> IO[bytes]:
        """Open it from its beginning."""
        return rejoined(self.head, self.stream)


class _Rejoined(io.RawIOBase):
    """The head and the rest of a stream as one stream."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self.head, self.rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self.head[: len(buffer)] or self.rest.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)


def rejoined(head: bytes, rest: Any) -> IO[bytes]:
    """Return the bytes that were read from a stream, and the rest of it, as one stream."""
    return io.BufferedReader(_Rejoined(head, rest), BUFFER_BYTES)


Stored = Path | Remote  # can be read again
File = Stored | StandardInput


def standard_input() -> StandardInput:
    """Open standard input. Raises UsageError if it is closed."""
    if sys.stdin is None:
        raise UsageError("--input -: standard input is closed; pipe a table in, or name a file")
    return StandardInput(sys.stdin.buffer)


def open_bytes(file: File) -> Any:
    """Open a file as a Python stream, decompressed. Raises DataError for an archive of several files."""
    if isinstance(file, StandardInput):
        return file.open()
    how = compression(file)
    if how == "zip":
        return _open_member(file)
    if how == "zstd":
        return rejoined(b"", pa.CompressedInputStream(_plain(file), "zstd"))
    source = file if isinstance(file, Path) else rejoined(b"", open_stream(file, BUFFER_BYTES))
    match how:
        case "gzip":
            return gzip.open(source, "rb")
        case "bz2":
            return bz2.open(source, "rb")
        case "xz":
            return lzma.open(source, "rb")
    return file.open("rb") if isinstance(file, Path) else source


def _open_member(file: Stored) -> IO[bytes]:
    """Open the only file in a zip archive."""
    try:
        archive = zipfile.ZipFile(file if isinstance(file, Path) else open_anywhere(file))
    except NotImplementedError as error:
        raise DataError(f"{file}: cannot be unpacked: {error}; unpack it") from None
    names = [info.filename for info in archive.infolist() if not info.is_dir() and "__MACOSX" not in info.filename]
    if len(names) != 1:
        listed = ", ".join(names[:5]) or "none"
        raise DataError(f"{file}: must be an archive of one table, got {len(names)} ({listed}); unpack it")
    try:
        return archive.open(names[0])
    except (NotImplementedError, RuntimeError) as error:  # another method, or a password
        raise DataError(f"{file}: cannot be unpacked: {error}; unpack it") from None


def open_native(file: File) -> Any:
    """Open a file as an arrow stream. At exit, arrow's threads can still read it after the interpreter is gone."""
    if isinstance(file, StandardInput):
        return pa.BufferReader(file.open().read())
    how = compression(file)
    if not how and isinstance(file, Remote):
        return open_anywhere(file)
    return _open_stream(file, how)


def _open_stream(file: Stored, how: str) -> Any:
    """Open a file that is compressed in some way as an arrow stream."""
    if how in ("xz", "zip"):
        return pa.PythonFile(open_bytes(file), "r")
    return pa.CompressedInputStream(_plain(file), how) if how else _plain(file)


def _plain(file: Stored) -> Any:
    """Open a file as an arrow stream, as it is."""
    return pa.OSFile(str(file), "rb") if isinstance(file, Path) else open_stream(file)


def open_utf8(file: File, encoding: str) -> Any:
    """Open a text file as an arrow stream of its bytes in UTF-8."""
    if isinstance(file, StandardInput):
        stream = pa.PythonFile(file.open(), "r")
    else:
        stream = _open_stream(file, compression(file))
    return pa.transcoding_input_stream(stream, encoding, "utf-8")


def open_span(file: File, span: Span) -> Any:
    """Open some bytes of a file in UTF-8 as an arrow stream."""
    return pa.PythonFile(_Bytes(Path(str(file)), span), "r")


class _Bytes(io.RawIOBase):
    """Some bytes of a file."""

    def __init__(self, file: Path, span: Span) -> None:
        self.stream, self.left = file.open("rb"), span.stop - span.start
        self.stream.seek(span.start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n_read = self.stream.readinto(memoryview(buffer)[: self.left])
        self.left -= n_read
        return n_read

    def close(self) -> None:
        self.stream.close()
        super().close()


def read_head(file: Stored, n_bytes: int) -> bytes:
    """Read the first bytes of a file, decompressed. Raises DataError."""
    try:
        with open_bytes(file) as stream:
            return bytes(stream.read(n_bytes))
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise unreadable(file, error) from None


def compression(file: Stored) -> str:
    """Return how a file is compressed, by its first bytes; an empty text if it is not."""
    head = first_bytes(file, 6)
    return next((how for magic, how in _MAGIC.items() if head.startswith(magic)), "")


def first_bytes(file: Stored, n_bytes: int) -> bytes:
    """Read the first bytes of a file, as they are. Raises OSError, DataError."""
    if isinstance(file, Remote):
        return head_of(file, n_bytes)
    with file.open("rb") as stream:
        return stream.read(n_bytes)
