"""Quotes in CSV text that arrow does not notice: those without an end, which swallow the rows up to the next quote, and
those after a blank."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

NO_END, SWALLOWS = "a quote that has no end", "a quote that swallows rows"
_BLANKS = r"[\s\p{Z}]"
_AFTER_BLANK = rf'(?s)^{_BLANKS}+"((?:[^"]|"")*)"{_BLANKS}*$'
_SEVERAL_LINES = re.compile(rb'"[^"]*\n[^"]*\n[^"]*(?:"|\Z)')


def refuse_swallowed_rows(text: Any, n_rows: int, n_columns: int, delimiter: str) -> None:
    """Raise arrow's ArrowInvalid if a quote in a slice of CSV, which arrow parsed into n_rows, swallows rows."""
    content = text.to_pybytes()
    if b'"' not in content:
        return
    if content.count(b'"') % 2 and _is_open(content, delimiter):
        raise pa.ArrowInvalid(NO_END)
    may_swallow = content.count(b"\n") > n_rows and _SEVERAL_LINES.search(content) is not None
    if may_swallow and any(swallows(row, n_columns, delimiter) for row in _rows(content, delimiter)):
        raise pa.ArrowInvalid(SWALLOWS)


def unquoted(cells: Any) -> Any:
    """Remove the quotes around a text that follow a blank, as in `1, "usa"`; arrow keeps them as a part of the cell."""
    content = cells.buffers()[-1]
    if content is None or b'"' not in content.to_pybytes():
        return cells
    import pyarrow.compute as pc  # imports slowly, and most tables have no such cell

    inner = pc.replace_substring(pc.replace_substring_regex(cells, _AFTER_BLANK, r"\1"), '""', '"')
    return pc.if_else(pc.match_substring_regex(cells, _AFTER_BLANK), inner, cells)


def swallows(row: Sequence[str], n_columns: int, delimiter: str) -> bool:
    """Return whether a cell of a row has lines that look like rows: several lines with n_columns cells each."""
    for cell in row:
        inner = [line for line in cell.split("\n")[1:-1] if line.strip()]
        enough = {2: 4, 3: 2}.get(n_columns, 1)  # a sentence may have a comma or two
        cells_of = csv.reader(inner, delimiter=delimiter)
        if n_columns > 1 and len(inner) >= enough and all(len(cells) == n_columns for cells in cells_of):
            return True
    return False


def _is_open(content: bytes, delimiter: str) -> bool:
    """Return whether CSV text ends within quotes."""
    try:
        for _ in csv.reader(_lines(content), delimiter=delimiter, skipinitialspace=True, strict=True):
            pass
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _rows(content: bytes, delimiter: str) -> Any:
    return csv.reader(_lines(content), delimiter=delimiter, skipinitialspace=True)


def _lines(content: bytes) -> Any:
    return io.StringIO(content.decode("utf-8", errors="replace"), newline="")
