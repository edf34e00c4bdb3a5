"""Text in CSV, cut into slices of whole rows, so that each can be parsed for itself."""

import io
import re
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MOST_ROW_BYTES = 2**24
RECODED = 2**16  # characters at once
PIECE = 2**16  # bytes that are copied to be searched, and so stay in the near caches


def slices(stream: Any, n_bytes: int, delimiter: str) -> Iterator[Any]:
    """Read a stream of UTF-8 to its end in arrow's own buffers of about n_bytes, each ending where a row does. Raises
    arrow's ArrowInvalid for a row without an end."""
    rest: Any = np.empty(0, np.uint8)
    more, ended = n_bytes, False
    while not ended:
        buffer = pa.allocate_buffer(len(rest) + more)  # arrow's, for its threads never touch what is Python's
        text: Any = np.frombuffer(buffer, np.uint8)
        text[: len(rest)] = rest
        n_read = _fill(stream, memoryview(text)[len(rest) :])
        ended = n_read < more
        text = text[: len(rest) + n_read]
        cut = len(text) if ended else end_of_rows(text, delimiter)
        if cut:
            yield buffer.slice(0, cut)
        elif len(text) > MOST_ROW_BYTES:
            raise pa.ArrowInvalid(f"a row of more than {MOST_ROW_BYTES:,} bytes, or a quote that never ends")
        rest, more = text[cut:], n_bytes if cut else 2 * len(text)


def end_of_rows(text: NDArray[np.uint8], delimiter: str) -> int:
    """Say where the last whole row of a text (n_bytes,) ends that begins with one; 0 if there is none."""
    starts = range(0, len(text), PIECE)
    if any(b'"' in text[start : start + PIECE].tobytes() for start in starts):
        found = _rows(delimiter).match(text.data)
        return found.end() if found else 0
    for start in reversed(starts):
        if (place := text[start : start + PIECE].tobytes().rfind(b"\n")) >= 0:
            return start + place + 1
    return text.tobytes().rfind(b"\r", 0, -1) + 1  # a last \r may be half of \r\n


def _rows(delimiter: str) -> re.Pattern[bytes]:
    """Match rows as arrow reads them: a quote counts at the beginning of a cell, and from there to its like."""
    sign = re.escape(delimiter.encode())
    cell = rb'(?:"[^"]*+")*+(?:[^"%b\r\n][^%b\r\n]*+)?+' % (sign, sign)
    return re.compile(rb"(?:(?:%b%b)*+%b(?:\r?\n|\r(?!\n|\Z)))++" % (cell, sign, cell))


def _fill(stream: Any, view: memoryview) -> int:
    """Read into a view until it is full or nothing is left; say how many bytes there were."""
    done = 0
    while done < len(view) and (n_read := stream.readinto(view[done:])):
        done += n_read
    return done


class Recoded(io.RawIOBase):
    """A text as a stream of its bytes in UTF-8."""

    def __init__(self, text: IO[str]) -> None:
        self.text, self.rest = text, b""

    def readable(self) -> bool:
        """Say that it is to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; say how many bytes there were, 0 at the end."""
        self.rest = self.rest or self.text.read(RECODED).encode()
        chunk = self.rest[: len(buffer)]
        self.rest = self.rest[len(chunk) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Close the text, too."""
        self.text.close()
        super().close()
