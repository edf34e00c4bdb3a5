"""Errors of the readers: bad cells by file, row and column, and the errors of the libraries as DataError."""

import csv
import lzma
import math
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from linreg.data.tables import remote
from linreg.data.tables.formats.batch import Format, Numbers
from linreg.errors import DataError, show

MOST_PROBLEMS = 10  # listed in one error

# The libraries raise these for a file that is damaged or of another format.
_UNREADABLE = (
    *(pa.ArrowException, ValueError, LookupError, EOFError, OverflowError),
    *(csv.Error, zlib.error, zipfile.BadZipFile, lzma.LZMAError, sqlite3.Error),
)
_NUMBER = re.compile(r"\s*[-+]?[0-9.,]+(?:[eE][-+]?[0-9]+)?\s*|\s*[-+]?(?:inf(?:inity)?|nan)\s*", re.IGNORECASE)


@contextmanager
def translated_errors(file: object, what: str, remedy: str) -> Iterator[None]:
    """Raise a library's error as DataError: what failed, the reason, and the remedy unless the reason has one."""
    try:
        yield
    except OSError as error:
        raise unreadable(file, error) from None
    except _UNREADABLE as error:
        reason = first_line(error).rstrip(".")
        raise DataError(f"{file}: {what}: {reason if '; ' in reason else f'{reason}; {remedy}'}") from None


def unreadable(file: object, error: BaseException) -> DataError:
    """Make the error for a file that the system cannot read."""
    if isinstance(file, remote.Remote) and isinstance(error, OSError):
        return remote.unreadable(file, error)
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{file}: cannot be read: {reason}; name another file")


def refuse(problems: Sequence[str]) -> None:
    """Raise a DataError with the first ten problems, if there are any."""
    if problems:
        rest = ["and more cells like these"] if len(problems) > MOST_PROBLEMS else []
        raise DataError(*problems[:MOST_PROBLEMS], *rest)


def bad_cell(file: object, row: int, name: str, cell: str, format: Format) -> str:
    """Describe a cell that is not a finite number. row: counted from 0."""
    from linreg.data.tables.cells import is_float  # only after an error

    is_infinite = _NUMBER.fullmatch(cell) and is_float(cell) and not math.isfinite(float(cell))
    what = "is not finite" if is_infinite else "is not a number"
    hint = _written(cell, format.numbers) or "fix it, or add it to missing_values if it marks a gap"
    return f"{file}: row {row + 1}, column {name!r}: {show(cell)} {what}; {hint}"


def bad_date(file: object, row: int, name: str, cell: str, format: Format) -> str:
    """Describe a cell that is not a date. row: counted from 0."""
    wanted = f"a date as {format.date_format}" if format.date_format else "a date as 2024-05-31 or 2024-05-31 18:30"
    return f"{file}: row {row + 1}, column {name!r}: {show(cell)} is not {wanted}; fix it, or set date_format"


def text_column(file: object, name: str, cell: str, format: Format) -> str:
    """Describe a column of text that should have numbers."""
    hint = _written(cell, format.numbers) or "put a feature in categorical or exclude"
    return f"{file}: column {name!r} is text, such as {show(cell)}; {hint}"


def _written(cell: str, numbers: Numbers) -> str:
    """Return how to declare the notation of a cell, or an empty text if it does not look like a number."""
    match = re.fullmatch(r"\(?([^\d.,()+-]*)[-+]?\s*(\d[\d.,'\s]*)([^\d.,()]*)\)?", cell.strip())
    if not match:
        return ""
    before, digits, after = (part.strip() for part in match.groups())
    signs = [sign for sign in dict.fromkeys(re.findall(r"[.,'\s]", digits)) if sign != numbers.decimal]
    declared = []
    if len(signs) == 1 and digits.count(signs[0]) == 1 and not re.search(r"\D\d{3}$", digits) and signs[0] in ".,":
        declared.append(f"decimal: {signs[0]!r}")
    elif signs == [","] and digits.count(",") == 1 and "." not in digits:
        return "set decimal: ',', or numbers: {thousands: ','}, whichever the comma is"
    elif signs:
        declared.append(f"thousands: {signs[0]!r}")
        declared += [f"decimal: {signs[1]!r}"] if len(signs) > 1 else []
    affixes = [affix for affix in (before, after) if affix]
    if affixes:
        declared.append(f"strip: {affixes}")
    if cell.strip().startswith("("):
        declared.append("accounting: true")
    if len(declared) == 1 and declared[0].startswith("decimal"):
        return f"set {declared[0]} if it is the decimal sign, or fix it"
    return f"set numbers: {{{', '.join(declared)}}}" if declared else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return str(error).partition("\n")[0] or type(error).__name__
