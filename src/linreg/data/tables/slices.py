"""CSV text in slices of whole rows, which can be parsed independently."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MOST_ROW_BYTES = 2**24
PIECE = 2**16  # bytes searched at once, to stay in the processor's caches


def slices(stream: Any, n_bytes: int, delimiter: str) -> Iterator[Any]:
    """Read a stream of UTF-8 into arrow buffers of about n_bytes, each of which ends with a row. Raises arrow's
    ArrowInvalid for a row of more than MOST_ROW_BYTES."""
    rest: Any = np.empty(0, np.uint8)
    more, ended = n_bytes, False
    while not ended:
        buffer = pa.allocate_buffer(len(rest) + more)  # arrow's threads must not touch Python's memory
        text: Any = np.frombuffer(buffer, np.uint8)
        text[: len(rest)] = rest
        n_read = _fill(stream, memoryview(text)[len(rest) :])
        ended = n_read < more
        text = text[: len(rest) + n_read]
        cut = len(text) if ended else end_of_rows(text, delimiter)
        if cut:
            yield buffer.slice(0, cut)
        elif len(text) > MOST_ROW_BYTES:
            raise pa.ArrowInvalid(f"a row of more than {MOST_ROW_BYTES:,} bytes, or an unclosed quote")
        rest, more = text[cut:], n_bytes if cut else 2 * len(text)


def end_of_rows(text: NDArray[np.uint8], delimiter: str) -> int:
    """Return where the last complete row of a text (n_bytes,) ends, or 0 if there is none. A row begins the text."""
    starts = range(0, len(text), PIECE)
    if any(b'"' in text[start : start + PIECE].tobytes() for start in starts):
        rows = _rows(delimiter).match(text.data)
        return rows.end() if rows else 0
    for start in reversed(starts):
        if (place := text[start : start + PIECE].tobytes().rfind(b"\n")) >= 0:
            return start + place + 1
    return text.tobytes().rfind(b"\r", 0, -1) + 1  # a final \r may belong to \r\n


def _rows(delimiter: str) -> re.Pattern[bytes]:
    """Match rows as arrow reads them: only a quote at the beginning of a cell opens a quoted text."""
    sign = re.escape(delimiter.encode())
    cell = rb'(?:"[^"]*+")*+(?:[^"%b\r\n][^%b\r\n]*+)?+' % (sign, sign)
    return re.compile(rb"(?:(?:%b%b)*+%b(?:\r?\n|\r(?!\n|\Z)))++" % (cell, sign, cell))


def _fill(stream: Any, view: memoryview) -> int:
    """Read into a view until it is full or the stream ends. Returns the number of bytes."""
    done = 0
    while done < len(view) and (n_read := stream.readinto(view[done:])):
        done += n_read
    return done
