"""The lines of a CSV file: those above the table are skipped, and irregular ones are rewritten as plain CSV.

`csv` reads a regular file as it is. A file with comments or white space between its columns, or one that arrow cannot
read, passes through `regular`.
"""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO, Any

from linreg.data.tables.formats.batch import Format
from linreg.data.tables.formats.files import MOST_HEADER, rejoined

BLANKS = " "  # as delimiter: any white space
_SEP = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's first line
_END_OF_FILE = "\x1a"  # of DOS
_CELL = re.compile(r'"((?:[^"]|"")*)"|(\S+)')


def is_regular(format: Format) -> bool:
    """Return whether rows can be parsed as they are."""
    return not format.layout.comment and format.delimiter != BLANKS


def is_sep_line(line: str) -> str:
    """Return the delimiter in Excel's first line `sep=;`, or an empty text for another line."""
    match = _SEP.fullmatch(line.lstrip("\ufeff"))
    return match[1] if match else ""


def below(stream: Any, n_lines: int) -> Any:
    """Return a stream of UTF-8 without its first lines; the stream itself if there are none, which is fastest."""
    head = b""
    while head.count(b"\n") < n_lines and (chunk := stream.read(2**16)) and len(head) < MOST_HEADER:
        head += chunk
    for _ in range(n_lines):
        head = head.partition(b"\n")[2]
    return rejoined(head, stream) if n_lines else stream


def lines_of_table(lines: Iterator[str], format: Format) -> Iterator[str]:
    """Return the lines below Excel's `sep=` line and the lines to skip."""
    first = next(lines, "")
    above = [] if is_sep_line(first) else [first]
    return islice(chain(above, lines), format.layout.skip_lines, None)


def rows(lines: Iterator[str], format: Format) -> Iterator[list[str]]:
    """Read rows from lines of text, without comment lines. A blank line below the first row is an empty row: in a
    single column it is a gap. Raises csv.Error."""
    if format.delimiter == BLANKS:
        for line in _kept(lines, format):
            if cells := _CELL.findall(line):
                yield [quoted.replace('""', '"') if word == "" else word for quoted, word in cells]
        return
    chooser, begun = _Chooser(lines, format), False
    for row in csv.reader(chooser, delimiter=format.delimiter, skipinitialspace=True):
        chooser.at_row, begun = True, begun or bool(row)
        if begun:
            yield row


class _Chooser:
    """Yields lines. Where a row may begin it leaves out comment lines and empties blank ones; within quotes both are
    data."""

    def __init__(self, lines: Iterator[str], format: Format) -> None:
        self.lines, self.format, self.at_row = lines, format, True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(_kept(self.lines, self.format)) if self.at_row else next(self.lines)
        self.at_row = False
        return line


def _kept(lines: Iterator[str], format: Format) -> Iterator[str]:
    comment = format.layout.comment
    for line in lines:
        text = line.strip()
        if text != _END_OF_FILE and not (comment and text.startswith(comment)):
            yield line if text else "\n"


def regular(stream: Any, format: Format) -> IO[bytes]:
    """Rewrite a stream of UTF-8 as plain CSV, with the delimiter of the format or commas instead of white space."""
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    return io.BufferedReader(_Rewritten(rows(text, format), written_delimiter(format)), 2**16)


def written_delimiter(format: Format) -> str:
    """Return the delimiter of `regular`."""
    return "," if format.delimiter == BLANKS else format.delimiter


class _Rewritten(io.RawIOBase):
    """Rows as a stream of CSV."""

    def __init__(self, rows: Iterator[list[str]], delimiter: str) -> None:
        self.rows, self.waiting = rows, b""
        self.text = io.StringIO()
        self.writer = csv.writer(self.text, delimiter=delimiter, lineterminator="\n")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self.waiting) < len(buffer) and (row := next(self.rows, None)) is not None:
            self.writer.writerow(row)
            if self.text.tell() >= 2**16:
                self._flush()
        self._flush()
        chunk, self.waiting = self.waiting[: len(buffer)], self.waiting[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _flush(self) -> None:
        self.waiting += self.text.getvalue().encode()
        self.text.seek(0)
        self.text.truncate()
