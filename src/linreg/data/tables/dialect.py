"""Detection of the encoding, delimiter and decimal sign of a CSV file."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from linreg.data.tables.formats import Format
from linreg.data.tables.formats.files import read_head

HEAD_BYTES = 2**18
DELIMITERS = ",;\t|"


def with_dialect(format: Format, file: Path, delimiter: str | None) -> Format:
    """Return the format with the encoding, the delimiter (unless given) and the decimal sign of a file's beginning."""
    beginning = read_head(file, HEAD_BYTES)
    lines = beginning if len(beginning) < HEAD_BYTES else beginning[: beginning.rfind(b"\n") + 1]
    try:
        text = lines.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = "utf-8" if b"\0" in lines else "latin-1"  # a reader reports a binary file or UTF-16
        text, format = lines.decode("latin-1"), replace(format, encoding=encoding)
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda char: _regularity(_rows(text, char)))
        if format.delimiter == "\t" and "\t" in text:  # the suffix is .tsv
            delimiter = "\t"
    if delimiter == ",":
        return replace(format, delimiter=delimiter)
    cells = [cell.strip() for row in _rows(text, delimiter) for cell in row]
    commas, points = (sum(bool(re.fullmatch(rf"[-+]?\d*{sign}\d+", cell)) for cell in cells) for sign in (",", r"\."))
    return replace(format, delimiter=delimiter, decimal="," if commas > points else ".")


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:  # a reader reports it
        return []


def _regularity(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Return the share of the rows that have as many columns as the header, and that number of columns."""
    width = len(rows[0]) if rows else 0
    return (sum(len(row) == width for row in rows) / len(rows), width) if width > 1 else (0.0, 0)
