"""Errors of the readers: bad cells by file, row and column, and the errors of the libraries as DataError."""

import csv
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from linreg.errors import DataError, show

MOST_PROBLEMS = 10  # listed in one error

# The libraries raise these for a file that is damaged or of another format.
_UNREADABLE = (
    *(pa.ArrowException, ValueError, LookupError, EOFError, OverflowError),
    *(csv.Error, zlib.error, zipfile.BadZipFile),
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
    reason = getattr(error, "strerror", None) or first_line(error)
    return DataError(f"{file}: cannot be read: {reason}; name another file")


def refuse(problems: Sequence[str]) -> None:
    """Raise a DataError with the first ten problems, if there are any."""
    if problems:
        rest = ["and more cells like these"] if len(problems) > MOST_PROBLEMS else []
        raise DataError(*problems[:MOST_PROBLEMS], *rest)


def bad_cell(file: object, row: int, name: str, cell: str) -> str:
    """Describe a cell that is not a finite number. row: counted from 0."""
    from linreg.data.tables.cells import is_float  # only after an error

    what = "is not finite" if _NUMBER.fullmatch(cell) and is_float(cell) else "is not a number"
    hint = "fix it, or add it to missing_values if it marks a gap"
    if cell.count(",") == 1:
        hint = "set decimal: ',' if the comma is the decimal sign, or fix it"
    return f"{file}: row {row + 1}, column {name!r}: {show(cell)} {what}; {hint}"


def text_column(file: object, name: str, cell: str) -> str:
    """Describe a column of text that should have numbers."""
    return f"{file}: column {name!r} is text, such as {show(cell)}; put it in categorical or exclude"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return str(error).partition("\n")[0] or type(error).__name__
