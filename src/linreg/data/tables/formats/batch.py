"""The format and columns that a reader receives, and the batches that it yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 2**15
MOST_COLUMNS = 100_000

Made = TypeVar("Made")


@dataclass(frozen=True)
class Numbers:
    """How numbers are written as text. thousands: the sign between groups of digits, a space for every kind of space;
    strip: texts before or after a number, such as units; accounting: whether (12) and 12- are negative."""

    decimal: str = "."
    thousands: str = ""
    strip: tuple[str, ...] = ()
    accounting: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether only the decimal sign differs from Python's notation."""
        return not (self.thousands or self.strip or self.accounting)


@dataclass(frozen=True)
class Layout:
    """The lines of a CSV file. header: whether the first row has the names of the columns; skip_lines: lines above it;
    comment: the beginning of lines to skip; trailing_delimiter: whether rows end with a delimiter; row_names: whether
    the header has no name for the first column, as R writes it."""

    header: bool = True
    skip_lines: int = 0
    comment: str = ""
    trailing_delimiter: bool = False
    row_names: bool = False


@dataclass(frozen=True)
class Format:
    """The name of a file format and its options. Only CSV uses delimiter, encoding and layout; table and query select
    the rows of a database or a workbook; date_format is that of `strptime`, by default ISO 8601."""

    name: str
    delimiter: str = ","
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = ()
    numbers: Numbers = field(default_factory=Numbers)
    layout: Layout = field(default_factory=Layout)
    date_format: str = ""
    table: str = ""
    query: str = ""


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read: as numbers, as text, unchanged, and as dates."""

    numbers: Sequence[str]
    texts: Sequence[str]
    others: Sequence[str]
    dates: Sequence[str] = ()

    @property
    def all(self) -> list[str]:
        """Every name, once."""
        return list(dict.fromkeys([*self.numbers, *self.dates, *self.texts, *self.others]))


@dataclass(frozen=True)
class Span:
    """A part of a file: bytes of a CSV file that end with a row, or row groups of Parquet. n_rows: its number of rows,
    if that is known without reading them."""

    start: int
    stop: int
    n_rows: int | None = None

    def until(self, last: "Span | None") -> "Span":
        """Return the part from here to the end of a later one."""
        return self if last is None else Span(self.start, last.stop)


@dataclass(frozen=True)
class Batch:
    """Some rows. numbers: arrays (n_rows,), NaN for a gap, dates in days since 1970-01-01; texts, others: arrow arrays
    as the file has them; skipped: the positions before which rows of the file were left out."""

    n_rows: int
    numbers: Mapping[str, NDArray[np.float64]]
    texts: Mapping[str, Any]
    others: Mapping[str, Any]
    skipped: Sequence[int] = ()
