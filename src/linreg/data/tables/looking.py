"""Looking at a table that nothing is known of: its format, and what each of its columns holds."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linreg.data.tables.cells import parse_numbers
from linreg.data.tables.formats import Columns, Format, batches
from linreg.data.tables.formats.files import read_head
from linreg.data.tables.paths import common_columns, files_of, first_file, format_of
from linreg.errors import DataError, UsageError, suggest

MOST_ROWS = 100_000  # looked at
MOST_DISTINCT = 1_000  # values of a column that are told apart
GAP_MARKERS = ("?", "NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "-")
DELIMITERS = ",;\t|"
_ROW_NUMBER = re.compile(r"(unnamed: 0|index|idx|id|.*_id|row|no|nr)?", re.IGNORECASE)


@dataclass
class Column:
    """What the rows looked at so far say of a column. markers: cells, just as they stand, that may mean a gap; counts:
    how often each of the first MOST_DISTINCT values comes; share_distinct: of the values of the first block."""

    name: str
    unusable: str = ""  # arrow's type, where it is neither number nor text
    n_gaps: int = 0
    n_numbers: int = 0
    n_texts: int = 0
    stray: str = ""
    markers: Counter[str] = field(default_factory=Counter)
    counts: Counter[Any] = field(default_factory=Counter)
    many: bool = False
    share_distinct: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    whole: bool = True
    by_one: bool = True  # each value is the one before it, plus 1
    numbers_hash: Any = field(default_factory=blake2b)
    texts_hash: Any = field(default_factory=blake2b)

    def add(self, cells: Any, format: Format) -> None:
        """Look at the cells of a block, an array of arrow's."""
        kind = cells.type
        if pa.types.is_dictionary(kind):
            cells, kind = cells.cast(kind.value_type), kind.value_type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            cells = pc.fill_null(cells, "")
            cells = pc.if_else(pc.is_in(cells, value_set=pa.array(format.missing_values, kind)), "", cells)
            values = parse_numbers(cells, format.decimal)
            others = cells.filter(pa.array(np.isnan(values)))
            texts = cells.to_pylist()
        elif any(is_kind(kind) for is_kind in _NUMBERS):
            values = (cells.cast(pa.uint8()) if pa.types.is_boolean(kind) else cells).cast(pa.float64(), safe=False)
            values = np.array(values.to_numpy(zero_copy_only=False))
            values[np.isin(values, parse_numbers(pa.array(format.missing_values, pa.string()), "."))] = np.nan
            infinite = np.isinf(values)
            others = pa.array(np.where(infinite, values.astype(str), "")[infinite | np.isnan(values)], pa.string())
            texts = [None if np.isnan(value) else value for value in values.tolist()]
            values[infinite] = np.nan
        elif pa.types.is_null(kind):
            self.n_gaps += len(cells)
            return
        else:
            self.unusable = str(kind)
            return
        known = values[~np.isnan(values)]
        if len(known):
            self.by_one &= bool((np.diff(known) == 1).all()) and (not self.n_numbers or known[0] == self.maximum + 1)
            self.minimum, self.maximum = min(self.minimum, known.min()), max(self.maximum, known.max())
            self.whole &= bool((known == np.floor(known)).all())
            self.n_numbers += len(known)
        for cell, count in Counter(others.to_pylist()).items():
            if not cell:
                self.n_gaps += count
            elif cell.strip() in ("", *GAP_MARKERS):
                self.markers[cell if format.name == "csv" else cell.strip()] += count
            else:
                self.n_texts += count
                self.stray = self.stray or cell
        found = Counter(value for value in texts if value != "" and value is not None)
        self.share_distinct = self.share_distinct or len(found) / max(found.total(), 1)
        for value, count in found.items():
            if value in self.counts or len(self.counts) < MOST_DISTINCT:
                self.counts[value] += count
            else:
                self.many = True
        self.numbers_hash.update(values.tobytes())
        self.texts_hash.update("".join(f"{text!r}," for text in texts).encode())

    def settle(self, missing_values: Iterable[str]) -> None:
        """Turn the markers that do mean a gap into gaps, and those that do not into text."""
        for cell, count in self.markers.items():
            if cell in missing_values:
                self.n_gaps += count
                self.counts.pop(cell, None)
            else:
                self.n_texts += count
        self.markers = Counter()

    @property
    def is_number(self) -> bool:
        """Whether every cell is a number or may be a gap."""
        return self.n_numbers > 0 and not self.n_texts

    @property
    def is_category(self) -> bool:
        """Whether it is text of few values."""
        few = not self.many and len(self.counts) <= 50 and 2 * len(self.counts) < self.n_known
        return self.n_texts > 0 and few

    @property
    def n_known(self) -> int:
        """How many cells are no gap."""
        return self.n_numbers + self.n_texts

    @property
    def content(self) -> tuple[bool, bytes]:
        """What two columns have in common if they hold the same."""
        return self.is_number, (self.numbers_hash if self.is_number else self.texts_hash).digest()

    def useless(self) -> str:
        """Say why it is no feature; empty if it may be one."""
        distinct = f"more than {MOST_DISTINCT:,}" if self.many else f"{len(self.counts):,}"
        if self.unusable:
            return f"holds {self.unusable}, neither numbers nor text"
        if not self.n_known:
            return "nothing but gaps"
        if self.minimum == self.maximum if self.is_number else len(self.counts) == 1 and not self.many:
            return "constant"
        if self.n_known < 5 < self.n_known + self.n_gaps:
            return f"nearly nothing but gaps: {self.n_known} values"
        if self.is_number:
            named = self.by_one and _ROW_NUMBER.fullmatch(self.name.strip())
            return "identifier: it numbers the rows" if named else ""
        if self.is_category:
            return ""
        if self.n_texts < 0.1 * self.n_numbers:
            hint = "mend it, or add it to missing_values, and remove this line"
            cells = "1 cell" if self.n_texts == 1 else f"{self.n_texts:,} cells"
            return f"numbers, but for {cells} such as {short(self.stray)}; {hint}"
        return f"{'identifier' if self.share_distinct > 0.9 else 'text'}, {distinct} distinct values"

    def facts(self, *, is_target: bool) -> str:
        """Say what it holds."""
        distinct = f"more than {MOST_DISTINCT:,} distinct" if self.many else f"{len(self.counts):,} distinct"
        gaps = f"{self.n_gaps:,} gap{'s' * (self.n_gaps != 1)}" if self.n_gaps else "no gaps"
        if self.is_number:
            few = self.whole and 2 < len(self.counts) <= 12 and 2 * len(self.counts) < self.n_known
            hint = "; if they are names, not amounts, put it in categorical" if few and not is_target else ""
            kind = "number, whole" if self.whole else "number"
            return f"{kind}, {self.minimum:.6g} to {self.maximum:.6g}, {distinct}, {gaps}{hint}"
        if self.is_category:
            most = ", ".join(f"{short(value)} ({count:,})" for value, count in self.counts.most_common(3))
            return f"category, {distinct}, {gaps}; most often {most}"
        return f"{self.useless().partition(';')[0]}, {gaps}"


_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)


@dataclass(frozen=True)
class Look:
    """What a look at a table found. looked: rows looked at; n_blocks, n_read: the blocks that were read for them, and
    the rows in those; n_rows: rows of the whole table, about, if there are `more`."""

    path: str
    format: Format
    columns: Mapping[str, Column]
    looked: int
    n_blocks: int
    n_read: int
    n_rows: int
    more: bool


def look_at(path: str, *, delimiter: str | None, missing_values: Sequence[str], targets: Sequence[str]) -> Look:
    """Read the first rows of a table, block by block. Raises DataError; UsageError for a target that is not there."""
    first = first_file(Path(path))
    format = format_of(first) if first.is_file() else Format("csv")  # files_of reports a missing file
    format = replace(format, missing_values=tuple(missing_values))
    files = files_of(path, format)
    if format.name == "csv":
        format = _sniffed(files[0], format, delimiter)
    elif delimiter is not None or format.name == "jsonl":
        what = f"{path}: {format.name}"
        if format.name == "jsonl":
            raise DataError(f"{what} is not what a spec can read; save the table as CSV or Parquet")
        raise UsageError(f"--delimiter: {what} has none; remove it")
    names = common_columns(files, format)
    for target in targets:
        if target not in names:
            raise UsageError(f"--target {target}: {path} has no column {target!r}; {suggest(target, names)}")
    columns = {name: Column(name) for name in names}
    looked, n_blocks, n_read, n_bytes, more = 0, 0, 0, 0, False
    blocks = (batch for file in files for batch in batches(file, format, Columns((), (), names)))
    for batch in blocks:
        n_blocks, n_read = n_blocks + 1, n_read + batch.n_rows
        more = n_read > MOST_ROWS
        for name, column in columns.items():
            cells = batch.others[name].slice(0, MOST_ROWS - looked)
            column.add(cells, format)
            n_bytes += (cells.nbytes - 3 * len(cells)) if format.name == "csv" else 0  # offsets of 4; a comma of 1
        looked = min(n_read, MOST_ROWS)
        if more:
            break
    if looked < 2:
        rows = "one row" if looked else "no rows, only the names of columns"
        raise DataError(f"{path}: {rows}; a table needs at least two, one to train on and one to validate with")
    n_rows = looked
    if more and format.name == "csv":
        size = sum(file.stat().st_size * (4 if file.suffix == ".gz" else 1) for file in files)  # a usual ratio
        n_rows = max(looked + 1, round(looked * size / n_bytes))
    elif more:  # a column of its own is soon read
        n_rows = sum(b.n_rows for file in files for b in batches(file, format, Columns((), (), names[:1])))
    numeric = [column for column in columns.values() if column.is_number]
    markers = [marker for column in numeric for marker in column.markers]
    format = replace(format, missing_values=tuple(dict.fromkeys([*missing_values, *markers])))
    for column in columns.values():
        column.settle(format.missing_values)
    return Look(path, format, columns, looked, n_blocks, n_read, n_rows, more)


def _sniffed(file: Path, format: Format, delimiter: str | None) -> Format:
    """Tell encoding, delimiter and decimal sign from the beginning of a file in CSV."""
    beginning = read_head(file, 2**18)
    whole = beginning if len(beginning) < 2**18 else beginning[: beginning.rfind(b"\n") + 1]
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = "utf-8" if b"\0" in whole else "latin-1"  # no text, or in UTF-16, is told where the table is read
        text, format = whole.decode("latin-1"), replace(format, encoding=encoding)
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda char: _regularity(_rows(text, char)))
        if format.delimiter == "\t" and "\t" in text:  # as the file is called
            delimiter = "\t"
    if delimiter == ",":
        return replace(format, delimiter=delimiter)
    cells = [cell.strip() for row in _rows(text, delimiter) for cell in row]
    commas, points = (sum(bool(re.fullmatch(rf"[-+]?\d*{sign}\d+", cell)) for cell in cells) for sign in (",", r"\."))
    return replace(format, delimiter=delimiter, decimal="," if commas > points else ".")


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:  # told where the table is read
        return []


def _regularity(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Tell how like a table rows are: what share of them has the columns of the header, and how many those are."""
    width = len(rows[0]) if rows else 0
    return (sum(len(row) == width for row in rows) / len(rows), width) if width > 1 else (0.0, 0)


def short(text: object) -> str:
    """Show a cell or a name on one line, in quotes where it would be hard to read without."""
    plain = str(text)
    cut = plain if len(plain) <= 40 else plain[:40] + "…"
    return cut if plain.strip() == plain != "" and plain.isprintable() else ascii(cut)
