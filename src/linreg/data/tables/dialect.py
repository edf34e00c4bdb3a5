"""Detection of how a CSV file is written: encoding, delimiter, header, and lines that are not rows."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from linreg.data.tables.formats import Format, Layout, Stored, canonical_name
from linreg.data.tables.formats.files import read_head
from linreg.data.tables.formats.lines import BLANKS, is_regular, is_sep_line
from linreg.data.tables.formats.lines import rows as rows_of
from linreg.data.tables.notation import GAP_MARKERS, is_written_number

HEAD_BYTES = 2**18
DELIMITERS = ",;\t|"
COMMENTS = ("#", "%", "//")
_ERRORS = tuple(marker for marker in GAP_MARKERS if marker.startswith("#"))
REGULAR = 0.9  # share of the rows with the same number of cells


@dataclass(frozen=True)
class _Lines:
    """The lines at the beginning of a file, with the delimiter of Excel's `sep=` line, if there is one."""

    text: list[str]
    delimiter: str


def with_dialect(format: Format, file: Stored, delimiter: str | None, targets: Sequence[str]) -> Format:
    """Return the format with all that the beginning of a file shows. targets: names that a header would have."""
    text, encoding = _decoded(read_head(file, HEAD_BYTES))
    lines = text.splitlines(keepends=True)
    sep = is_sep_line(lines[0]) if lines else ""
    lines = lines[bool(sep) :]
    comment = _comment(lines)
    format = replace(format, encoding=encoding, layout=Layout(comment=comment))
    delimiter = delimiter or sep or _delimiter(format, lines)
    format = replace(format, delimiter=delimiter)
    rows = _rows(lines, format)
    if not rows:
        return format
    n_above = _n_above(rows)
    skip_lines = _n_lines_above(lines, format, rows, n_above)
    rows = rows[n_above:]
    header = _has_header(rows, targets)
    return replace(format, layout=_layout(rows, header=header, comment=comment, skip_lines=skip_lines))


def _decoded(head: bytes) -> tuple[str, str]:
    """Return the text of whole lines, and its encoding."""
    if encoding := _utf_16(head):
        text = head[: len(head) // 2 * 2].decode(encoding, "ignore")
    else:
        whole = head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1]
        try:
            return whole.decode("utf-8-sig"), "utf-8"
        except UnicodeDecodeError:
            # a reader reports a binary file; Windows has signs such as € where latin-1 has control characters
            encoding = "utf-8" if b"\0" in whole else "cp1252" if re.search(rb"[\x80-\x9f]", whole) else "latin-1"
            text = whole.decode("latin-1" if encoding == "utf-8" else encoding, "replace")
    return (text if len(head) < HEAD_BYTES else text[: text.rfind("\n") + 1]), encoding


def _utf_16(head: bytes) -> str:
    """Return the name of UTF-16 if bytes are in it, with its mark or without; else an empty text."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    half = len(head) // 2
    for name, place in (("utf-16-le", 1), ("utf-16-be", 0)):  # of a plain character one byte is NUL
        if half > 4 and head[place::2].count(0) > 0.9 * half and not head[1 - place :: 2].count(0):
            return name
    return ""


def _comment(lines: Sequence[str]) -> str:
    """Return the beginning of comment lines, or an empty text without any."""
    kept = [line.strip() for line in lines if line.strip()]
    if any(line.startswith(_ERRORS) for line in kept):  # an error of Excel begins a row
        return "# " if any(line.startswith("# ") for line in kept) else ""
    for sign in COMMENTS:
        marked = [line.startswith(sign) for line in kept]
        if not any(marked) or all(marked):
            continue
        is_header = sum(marked) == 1 and marked[0] and _n_signs(kept[0]) == _n_signs(kept[1]) > 0
        if not is_header and (marked[0] or sum(marked) < 0.1 * len(kept)):
            return sign
    return ""


def _n_signs(line: str) -> int:
    return sum(line.count(sign) for sign in DELIMITERS)


def _rows(lines: Sequence[str], format: Format) -> list[list[str]]:
    try:
        return [row for row in rows_of(iter(lines), format) if row]
    except csv.Error:  # a reader reports it
        return []


def _delimiter(format: Format, lines: Sequence[str]) -> str:
    """Return the delimiter with which most rows have the same number of cells, and as many cells as possible."""
    regular = {sign: _regularity(_rows(lines, replace(format, delimiter=sign))) for sign in [*DELIMITERS, BLANKS]}
    best = max(DELIMITERS, key=lambda sign: regular[sign])
    if format.delimiter == "\t" and any("\t" in line for line in lines):  # the suffix is .tsv
        return "\t"
    by_blanks = regular[BLANKS]
    is_better = regular[best][0] < REGULAR or (best == "\t" and by_blanks[1] > regular[best][1])
    return BLANKS if by_blanks[0] >= REGULAR and is_better else best


def _regularity(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Return the share of the rows with the most frequent number of cells, and that number."""
    width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
    return (count / len(rows), width) if width > 1 else (0.0, 0)


def _n_above(rows: Sequence[Sequence[str]]) -> int:
    """Return the number of rows above the header: titles, which have fewer cells than the table."""
    share, width = _regularity(rows)
    if share < REGULAR / 2:
        return 0
    first = next(number for number, row in enumerate(rows) if len(row) >= width - 1)
    return first if all(len([cell for cell in row if cell]) <= max(1, width - 2) for row in rows[:first]) else 0


def _n_lines_above(lines: Sequence[str], format: Format, rows: Sequence[Sequence[str]], n_above: int) -> int:
    """Return the number of lines of the first rows, with the blank lines below each."""
    n_lines = 0
    if n_above:
        n_lines = next(n for n in range(1, len(lines)) if len(_rows(lines[n:], format)) == len(rows) - n_above)
    while is_regular(format) and not lines[n_lines].strip():
        n_lines += 1
    return n_lines


def _has_header(rows: Sequence[Sequence[str]], targets: Sequence[str]) -> bool:
    """Return whether the first row has names: one of the targets, or no number where the rows below have numbers."""
    first, rest = rows[0], rows[1:100]
    if any(canonical_name(cell) in targets for cell in first) or not rest:
        return True
    numeric = [cell for cell in first if is_written_number(cell)]
    if not numeric:
        return True
    years = [int(cell) for cell in numeric if re.fullmatch(r"(1[5-9]|20)[0-9]{2}", cell.strip())]
    if len(years) > 1 and len(years) == len(numeric) and years == list(range(years[0], years[0] + len(years))):
        return True
    for position, cell in enumerate(first):
        below = [row[position] for row in rest if position < len(row)]
        is_number = all(is_written_number(value) or value.strip() in ("", *GAP_MARKERS) for value in below)
        if is_number and not is_written_number(cell) and cell.strip() not in ("", *GAP_MARKERS):
            return True
    return False


def _layout(rows: Sequence[Sequence[str]], *, header: bool, comment: str, skip_lines: int) -> Layout:
    below = rows[1:] if header and len(rows) > 1 else rows
    width = Counter(map(len, below)).most_common(1)[0][0]
    is_longer = header and width == len(rows[0]) + 1
    ends_empty = all(not row[-1].strip() for row in below if len(row) == width)
    trailing = width > 1 and ends_empty and (is_longer or not header or not rows[0][-1].strip())
    return Layout(header, skip_lines, comment, trailing, is_longer and not trailing)
