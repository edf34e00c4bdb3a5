"""Cells of text: which are numbers, dates or gaps, and the canonical form of a category.

Importing pyarrow.compute takes 0.1 s and 9 MB. A CSV table of plain numbers without errors is read without it.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from linreg.data.tables.formats.batch import Numbers

SPACES = "\u0020\u00a0\u2007\u2009\u202f"  # between groups of digits
_MINUS = "\u2212"
_FORTRAN = r"^([-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+))[dD]([-+]?[0-9]{1,3})$"
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")
_FRACTION = re.compile(r"(-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9])0*")
YEAR_1000 = -354_285  # in days since 1970
DAY = 86_400_000_000  # microseconds


def is_float(text: str) -> bool:
    """Return whether Python parses a text as a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def are_wrong(cells: Any, numbers: Numbers) -> NDArray[np.bool_]:
    """Return for each cell (n,) whether it is neither null nor a finite number."""
    wrong = pc.invert(_are_numbers(plain(cells, numbers), numbers.decimal))
    return np.asarray(pc.fill_null(wrong, False).to_numpy(zero_copy_only=False))


def _are_numbers(cells: Any, decimal: str) -> Any:
    """Return for each plain cell whether it is a finite number in decimal notation; null for null."""
    point = re.escape(decimal)
    pattern = rf"^[-+]?([0-9]+{point}?[0-9]*|{point}[0-9]+)([eE][-+]?[0-9]{{1,3}})?$"
    decimals = pc.match_substring_regex(cells, pattern)
    large = pc.match_substring_regex(cells, r"[eE]\+?[0-9]{3}$")  # may overflow float64
    if not pc.any(large).as_py():
        return decimals
    finite = [cell is None or not is_float(cell) or math.isfinite(float(cell)) for cell in cells.to_pylist()]
    return pc.and_(decimals, pa.array(finite))


def parse_numbers(cells: Any, numbers: Numbers) -> NDArray[np.float64]:
    """Parse cells as numbers (n,), NaN for a cell that is not a finite number."""
    cells = plain(cells, numbers)
    parsed = _cast(pc.if_else(_are_numbers(cells, numbers.decimal), cells, None), numbers.decimal)
    return np.asarray(parsed.to_numpy(zero_copy_only=False), dtype=np.float64)


def to_numbers(cells: Any, numbers: Numbers) -> Any:
    """Parse cells as float64, null for null. Raises arrow's ArrowInvalid for other text."""
    cells = plain(cells, numbers)
    if not pc.all(_are_numbers(cells, numbers.decimal)).as_py():
        raise pa.ArrowInvalid("a cell that is not a finite number")
    return _cast(cells, numbers.decimal)


def _cast(cells: Any, decimal: str) -> Any:
    return pc.cast(cells if decimal == "." else pc.replace_substring(cells, decimal, "."), pa.float64())


def plain(cells: Any, numbers: Numbers) -> Any:
    """Return cells in plain decimal notation, with the decimal sign of the numbers; other text as it is.

    Truth values are 1 and 0, as in typed formats."""
    cells = without_blanks(cells)
    if numbers.is_plain and pc.all(_are_numbers(cells, numbers.decimal)).as_py():
        return cells
    cells = pc.replace_substring(cells, _MINUS, "-")
    cells = pc.replace_substring_regex(cells, _FORTRAN, r"\1e\2")
    cells = pc.replace_substring_regex(cells, "^(?i:true)$", "1")
    cells = pc.replace_substring_regex(cells, "^(?i:false)$", "0")
    if numbers.is_plain:
        return cells
    cells = _without(cells, numbers.strip)
    if numbers.accounting:
        cells = pc.replace_substring_regex(cells, r"^\(\s*([^-+()].*?)\s*\)$", r"-\1")
        cells = pc.replace_substring_regex(cells, r"^([0-9].*?)\s*-$", r"-\1")
        cells = _without(cells, numbers.strip)
    return _ungrouped(cells, numbers) if numbers.thousands else cells


def _without(cells: Any, texts: Sequence[str]) -> Any:
    """Remove texts at both ends of numbers, with the spaces beside them. A sign may be before or after the text."""
    if not texts:
        return cells
    any_of = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    space = f"[{SPACES}]*"
    cells = pc.replace_substring_regex(cells, rf"^([-+]?){space}(?:{any_of}){space}([-+]?)", r"\1\2")
    return pc.replace_substring_regex(cells, rf"{space}(?:{any_of})$", "")


def _ungrouped(cells: Any, numbers: Numbers) -> Any:
    """Remove the signs between groups of three digits, or of two and three as in India."""
    sign = {" ": f"[{SPACES}]", "'": "['\u2019]"}.get(numbers.thousands, re.escape(numbers.thousands))
    point = re.escape(numbers.decimal)
    grouped = rf"^[-+]?[0-9]{{1,3}}({sign}[0-9]{{2,3}})*{sign}[0-9]{{3}}({point}[0-9]*)?([eE][-+]?[0-9]+)?$"
    return pc.if_else(pc.match_substring_regex(cells, grouped), pc.replace_substring_regex(cells, sign, ""), cells)


def without_blanks(cells: Any) -> Any:
    """Strip white space from both ends of each cell."""
    return pc.utf8_trim_whitespace(cells)


def with_gaps(cells: Any, missing_values: Sequence[str]) -> Any:
    """Replace empty cells and missing values by nulls."""
    is_gap = pc.is_in(cells, value_set=pa.array(["", *missing_values], cells.type))
    return pc.if_else(is_gap, pa.scalar(None, cells.type), cells)


def are_names(names: Sequence[str], columns: Sequence[Any]) -> NDArray[np.bool_]:
    """Return for each row of columns of text whether each cell is the name of its column."""
    same = [
        pc.fill_null(pc.equal(without_blanks(column), name), False) for name, column in zip(names, columns, strict=True)
    ]
    masks = [np.asarray(cells.to_numpy(zero_copy_only=False), dtype=bool) for cells in same]
    return np.asarray(np.logical_and.reduce(masks))


def canonical(text: str) -> str:
    """Return the form of a category or a column name that is the same in every file format: without white space around
    it, in Unicode's composed form (NFC), numbers without trailing zeros, truth values in lower case. Quotes are
    a part of the text: the reader has removed those around it."""
    text = unicodedata.normalize("NFC", text.strip())
    for pattern in (_WHOLE, _FRACTION):
        if match := pattern.fullmatch(text):
            return "0" if match[1] == "-0" else match[1]
    return text.lower() if text.lower() in ("true", "false") else text


def parse_dates(cells: Any, date_format: str) -> NDArray[np.float64]:
    """Parse text as days since 1970-01-01 (n,), in UTC, NaN for null. Raises arrow's ArrowInvalid for other text.

    date_format: of `strptime`; by default ISO 8601."""
    cells = without_blanks(cells)
    if date_format:
        parsed = days(pc.strptime(cells, date_format, "us"))
        if "%Y" in date_format and (parsed < YEAR_1000).any():
            raise pa.ArrowInvalid("a year of less than four digits")
        return parsed
    cells = pc.replace_substring_regex(
        cells, r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(Z?)$", r"\1 \2:00\3"
    )
    return days(_timestamps(cells))


def _timestamps(cells: Any) -> Any:
    has_zone = pc.match_substring_regex(cells, r"(Z|[-+][0-9]{2}:?[0-9]{2})$")
    has_time = pc.match_substring(cells, ":")
    zoned = pc.and_(has_zone, has_time)
    if pc.any(zoned).as_py():
        aware = pc.if_else(zoned, cells, pc.if_else(has_time, pc.binary_join_element_wise(cells, "Z", ""), None))
        plain_days = pc.if_else(has_time, None, cells)
        first = pc.cast(aware, pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
        return pc.coalesce(first, pc.cast(plain_days, pa.timestamp("us")))
    return pc.cast(cells, pa.timestamp("us"))


def days(times: Any) -> NDArray[np.float64]:
    """Return arrow dates or timestamps as days since 1970-01-01 (n,), NaN for null."""
    if pa.types.is_date32(times.type):
        return np.asarray(times.cast(pa.int32()).cast(pa.float64()).to_numpy(zero_copy_only=False))
    whole = times.cast(pa.timestamp("us", getattr(times.type, "tz", None)), safe=False).cast(pa.int64())
    return np.asarray(whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)) / DAY


def are_dates(cells: Any, date_format: str) -> NDArray[np.bool_]:
    """Return for each cell (n,) whether it is null or a date."""
    encoded = cells.dictionary_encode()
    wrong = [cell for cell in encoded.dictionary.to_pylist() if not _is_date(cell, date_format)]
    return np.asarray(pc.invert(pc.is_in(cells, value_set=pa.array(wrong, cells.type))).to_numpy(zero_copy_only=False))


def _is_date(cell: str, date_format: str) -> bool:
    try:
        parse_dates(pa.array([cell], pa.string()), date_format)
    except pa.ArrowInvalid:
        return False
    return True
