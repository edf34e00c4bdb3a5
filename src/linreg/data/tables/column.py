"""Profile of a column whose content is unknown: number, category or useless, and its facts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from linreg.data.tables.cells import canonical, parse_numbers
from linreg.data.tables.formats import Format, Numbers
from linreg.data.tables.formats.quotes import unquoted
from linreg.data.tables.formats.typed import as_float64, decoded, is_number, is_text, to_numpy
from linreg.data.tables.notation import GAP_MARKERS, date_formats

MOST_DISTINCT = 1_000  # values of a column that are counted
MOST_CATEGORIES = 50
_ROW_NUMBER = re.compile(r"(unnamed: 0|index|idx|id|.*_id|row|no|nr)?", re.IGNORECASE)


@dataclass
class Column:
    """The profile of a column after the cells so far.

    unusable: the type in arrow, if it is neither number nor text; stray: the first text; markers: the number of cells
    that may mark a gap, by text; counts: the number of cells by value, for the first MOST_DISTINCT values; is_many:
    whether there are more values; share_distinct: distinct values / values in the first block; is_by_one: whether each
    value is the one before it plus 1; date_formats: those with which all its texts are dates.
    """

    name: str
    unusable: str = ""
    n_gaps: int = 0
    n_numbers: int = 0
    n_texts: int = 0
    stray: str = ""
    markers: Counter[str] = field(default_factory=Counter)
    counts: Counter[Any] = field(default_factory=Counter)
    is_many: bool = False
    share_distinct: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    is_whole: bool = True
    is_by_one: bool = True
    date_formats: list[str] = field(default_factory=list)
    numbers_hash: Any = field(default_factory=blake2b)
    texts_hash: Any = field(default_factory=blake2b)

    def add(self, cells: Any, format: Format) -> None:
        """Add the cells of a block, an arrow array."""
        cells = decoded(cells)
        if pa.types.is_null(cells.type):
            self.n_gaps += len(cells)
            return
        if pa.types.is_date(cells.type) or pa.types.is_timestamp(cells.type):
            cells = cells.cast(pa.string())
        if not is_text(cells.type) and not is_number(cells.type):
            self.unusable = str(cells.type)
            return
        numbers, texts, values = (_parsed if is_text(cells.type) else _converted)(cells, format)
        self._add_numbers(numbers[~np.isnan(numbers)])
        self._add_texts(texts, format)
        self._add_values(values)
        self.numbers_hash.update(numbers.tobytes())
        self.texts_hash.update("".join(f"{value!r}," for value in values).encode())

    def _add_numbers(self, numbers: NDArray[np.float64]) -> None:
        if len(numbers):
            follows = not self.n_numbers or numbers[0] == self.maximum + 1
            self.is_by_one &= bool((np.diff(numbers) == 1).all()) and follows
            self.minimum, self.maximum = min(self.minimum, numbers.min()), max(self.maximum, numbers.max())
            self.is_whole &= bool((numbers == np.floor(numbers)).all())
            self.n_numbers += len(numbers)

    def _add_texts(self, texts: Iterable[str], format: Format) -> None:
        for cell, count in Counter(texts).items():
            if not cell:
                self.n_gaps += count
            elif cell.strip() in ("", *GAP_MARKERS):
                self.markers[cell if format.name == "csv" else cell.strip()] += count
            else:
                self.n_texts += count
                self.stray = self.stray or cell

    def _add_values(self, values: Iterable[Any]) -> None:
        counts = Counter(value for value in values if value != "" and value is not None)
        self.share_distinct = self.share_distinct or len(counts) / max(counts.total(), 1)
        for value, count in counts.items():
            if value in self.counts or len(self.counts) < MOST_DISTINCT:
                self.counts[value] += count
            else:
                self.is_many = True

    def settle(self, missing_values: Iterable[str]) -> None:
        """Count the markers among the missing values as gaps, and the others as text."""
        for cell, count in self.markers.items():
            if cell in missing_values:
                self.n_gaps += count
                self.counts.pop(cell, None)
            else:
                self.n_texts += count
        self.markers = Counter()
        if self.n_texts and not self.n_numbers:
            self.date_formats = date_formats([str(value) for value in self.counts])

    @property
    def is_number(self) -> bool:
        """Whether every cell is a number or may be a gap."""
        return self.n_numbers > 0 and not self.n_texts

    @property
    def is_category(self) -> bool:
        """Whether the column is text with few distinct values."""
        if self.date_formats:
            return False
        few = not self.is_many and len(self.counts) <= MOST_CATEGORIES and 2 * len(self.counts) < self.n_known
        return self.n_texts > 0 and few

    @property
    def n_known(self) -> int:
        """The number of cells that are not gaps."""
        return self.n_numbers + self.n_texts

    @property
    def content(self) -> tuple[bool, bytes]:
        """A key that is equal for two columns with the same content."""
        return self.is_number, (self.numbers_hash if self.is_number else self.texts_hash).digest()

    def useless(self) -> str:
        """Return the reason why the column cannot be a feature, or an empty text."""
        if self.unusable:
            return f"type {self.unusable}, neither numbers nor text"
        if not self.n_known:
            return "only gaps"
        if self.minimum == self.maximum if self.is_number else len(self.counts) == 1 and not self.is_many:
            return "constant"
        if self.n_known < 5 < self.n_known + self.n_gaps:
            return f"almost only gaps: {self.n_known} values"
        if self.is_number:
            is_id = self.is_by_one and _ROW_NUMBER.fullmatch(self.name.strip())
            return "identifier: it numbers the rows" if is_id else ""
        if self.is_category or self.date_formats:
            return ""
        if self.n_texts < 0.1 * self.n_numbers:
            hint = "fix it or add it to missing_values, then remove this line"
            cells = "1 cell" if self.n_texts == 1 else f"{self.n_texts:,} cells"
            return f"numbers except {cells}, such as {short(self.stray)}; {hint}"
        if self.n_texts < self.n_numbers:
            return f"{self.n_numbers:,} numbers and {self.n_texts:,} other cells, such as {short(self.stray)}"
        return f"{'identifier' if self.share_distinct > 0.9 else 'text'}, {self._n_distinct} distinct values"

    def facts(self, *, is_target: bool) -> str:
        """Describe the content."""
        distinct = f"{self._n_distinct} distinct"
        gaps = f"{self.n_gaps:,} gap{'s' * (self.n_gaps != 1)}" if self.n_gaps else "no gaps"
        if self.is_number:
            few = self.is_whole and 2 < len(self.counts) <= 12 and 2 * len(self.counts) < self.n_known
            hint = "; if the numbers are codes, put it in categorical" if few and not is_target else ""
            kind = "whole number" if self.is_whole else "number"
            return f"{kind}, {self.minimum:.6g} to {self.maximum:.6g}, {distinct}, {gaps}{hint}"
        if self.date_formats:
            first, last = min(self.counts), max(self.counts)
            return f"date, {distinct}, {gaps}, such as {short(first)} and {short(last)}"
        if self.is_category:
            most = ", ".join(f"{short(value)} ({count:,})" for value, count in self.counts.most_common(3))
            return f"category, {distinct}, {gaps}; most frequent: {most}"
        return f"{self.useless().partition(';')[0]}, {gaps}"

    @property
    def _n_distinct(self) -> str:
        return f"more than {MOST_DISTINCT:,}" if self.is_many else f"{len(self.counts):,}"


def _parsed(cells: Any, format: Format) -> tuple[NDArray[np.float64], Sequence[str], Sequence[Any]]:
    """Return cells of text as numbers (n,), the cells that are not numbers, and all values. A gap is NaN and empty."""
    cells = pc.fill_null(unquoted(cells) if format.name == "csv" else cells, "")
    cells = pc.if_else(pc.is_in(cells, value_set=pa.array(format.missing_values, cells.type)), "", cells)
    numbers = parse_numbers(cells, format.numbers)
    return numbers, cells.filter(pa.array(np.isnan(numbers))).to_pylist(), [canonical(c) for c in cells.to_pylist()]


def _converted(cells: Any, format: Format) -> tuple[NDArray[np.float64], Sequence[str], Sequence[Any]]:
    """Do the same for cells of numbers. An infinite number is text."""
    numbers = to_numpy(as_float64(cells)).copy()
    numbers[np.isin(numbers, parse_numbers(pa.array(format.missing_values, pa.string()), Numbers()))] = np.nan
    infinite = np.isinf(numbers)
    texts = np.where(infinite, numbers.astype(str), "")[infinite | np.isnan(numbers)].tolist()
    values = [None if np.isnan(number) else number for number in numbers.tolist()]
    numbers[infinite] = np.nan
    return numbers, texts, values


def short(text: object) -> str:
    """Return a cell or a name on one line, quoted if it would be hard to read."""
    plain = str(text)
    cut = plain if len(plain) <= 40 else plain[:40] + "…"
    return cut if plain.strip() == plain != "" and plain.isprintable() else ascii(cut)
