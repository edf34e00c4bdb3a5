"""Recognition of numbers and dates as people write them, in cells of unknown notation. `linreg init` uses it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from linreg.data.tables.cells import SPACES, is_float, parse_dates, parse_numbers
from linreg.data.tables.formats.batch import Numbers

GAP_MARKERS = (
    *("?", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "-nan", "null", "NULL", "Null", "None", "<NA>", "NaT", "-", "--"),
    *("–", "—", ".", "..", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "inf", "-inf", "Inf", "-Inf"),
    *("Infinity", "-Infinity", "+inf", "1.#INF", "-1.#INF", "1.#IND", "-1.#IND", "1.#QNAN"),
)
DATE_FORMATS = (
    *("", "%d.%m.%Y", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y"),
    *("%y-%m-%d", "%d-%m-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y", "%Y.%m.%d"),
)
TIMES = ("", " %H:%M", " %H:%M:%S")
_CURRENCY = re.compile(r"[A-Z]{2,3}|Rs|kr|Fr")
_CURRENCIES = "$€£¥₹₽₩₺₪₫฿¢"
_UNIT = re.compile(r"[^\W\d_]{1,8}[²³]?|[%‰°$€£¥₹₽₩₺₪₫฿¢]|°[CF]|[^\W\d_]{1,4}/[^\W\d_]{1,4}[²³]?")
MOST_AFFIXES = 4  # signs and units in a column
_NUMBER = re.compile(
    rf"(\()?([^\d.,()+\-\u2212]{{0,8}})([-+\u2212]?)\s*([^\d.,()+\-\u2212]{{0,8}}?)"
    rf"([\d][\d.,'\u2019{SPACES}]*|[.,]\d+)([eEdD][-+]?\d{{1,3}})?([^\d.,()+\-][^\d()]{{0,11}})?(-)?(\))?"
)


def is_written_number(cell: str) -> bool:
    """Return whether a cell is a number in some notation, without a unit of letters."""
    match = _NUMBER.fullmatch(cell.strip())
    affixes = "" if match is None else (match[2] or "") + (match[4] or "") + (match[7] or "")
    return match is not None and not any(char.isalpha() for char in affixes)


def recognise(columns: Iterable[Sequence[str]]) -> Numbers:
    """Return the notation with which the texts of columns become numbers; the plain one if it is not one for all."""
    found = [parts for cells in columns if (parts := _parts(cells))]
    digits = [digit for column in found for digit, *_ in column]
    decimal, thousands = _signs(digits)
    strip = sorted({affix for column in found for _, affixes, _ in column for affix in affixes})
    accounting = any(negative for column in found for *_, negative in column)
    return Numbers(decimal, thousands, tuple(strip), accounting)


def _parts(cells: Sequence[str]) -> list[tuple[str, list[str], bool]]:
    """Split the cells of a column into digits, the signs beside them, and whether a bracket is a minus. Returns nothing
    if some are not numbers, or all are plain."""
    parts = []
    for cell in cells:
        match = _NUMBER.fullmatch(cell.strip())
        if match is None or bool(match[1]) != bool(match[9]):
            return []
        before, after = (text.strip(SPACES + "\t") for text in ((match[2] or "") + (match[4] or ""), match[7] or ""))
        if any(char.isalpha() for char in before) and not _CURRENCY.fullmatch(before):
            return []  # such as Room 12
        affixes = [before, after]
        parts.append((match[5].strip(SPACES), [affix for affix in affixes if affix], bool(match[1] or match[8])))
    kinds = Counter(affix for _, affixes, _ in parts for affix in affixes)
    currencies = [affix for affix in kinds if affix in _CURRENCIES or _CURRENCY.fullmatch(affix)]
    if len(currencies) > 1 or 0 < kinds["%"] < len(parts):  # numbers of different units
        return []
    letters = [affix for affix in kinds if any(char.isalpha() for char in affix)]
    is_code = bool(letters) and kinds[letters[0]] < len(parts)  # a unit is at each number, unlike the letters of a code
    if len(kinds) > MOST_AFFIXES or len(letters) > 1 or is_code or not all(map(_UNIT.fullmatch, kinds)):
        return []
    return [] if all(is_float(digits) and not affixes and not minus for digits, affixes, minus in parts) else parts


def _signs(digits: Iterable[str]) -> tuple[str, str]:
    """Return the decimal sign and the sign between groups of digits."""
    decimals: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    either: Counter[str] = Counter()
    for text in digits:
        signs = ["'" if sign == "\u2019" else " " if sign in SPACES else sign for sign in re.findall(r"\D", text)]
        if len(set(signs)) > 1:
            decimals[signs[-1]] += 1
            groups.update(signs[:-1])
        elif len(signs) > 1 or (signs and signs[0] in " '"):
            groups[signs[0]] += 1
        elif signs:
            is_group = re.fullmatch(r"\d{1,3}\D\d{3}", text) and not text.startswith("0")
            (either if is_group else decimals)[signs[0]] += 1
    decimal = max(decimals, key=lambda sign: decimals[sign]) if decimals else "."
    if not decimals and groups["."]:
        decimal = ","
    if not decimals and not groups and either["."]:  # 1.137 alone is plain
        return ".", "," if either[","] else ""
    undecided = [sign for sign in either if sign != decimal]
    thousands = max(groups, key=lambda sign: groups[sign]) if groups else undecided[0] if undecided else ""
    return decimal, thousands if thousands != decimal else ""


def are_numbers(cells: Sequence[str], numbers: Numbers) -> bool:
    """Return whether all cells are numbers in a notation."""
    return not np.isnan(parse_numbers(pa.array(cells, pa.string()), numbers)).any()


def date_formats(cells: Sequence[str]) -> list[str]:
    """Return the formats of `strptime` with which all cells are dates, the empty one for ISO 8601."""
    if not cells or not all(re.search(r"\d", cell) and len(cell.strip()) >= 6 for cell in cells):
        return []
    formats = [date + time for date in DATE_FORMATS for time in (TIMES if date else ("",))]
    has_century = {len(cell) > 0 for cell in (re.findall(r"(?<!\d)\d{4}(?!\d)", cell) for cell in cells)}
    formats = [format for format in formats if has_century == {"%y" not in format}]
    return [format for format in formats if _are_all_dates(cells[:3], format) and _are_all_dates(cells, format)]


def _are_all_dates(cells: Sequence[str], format: str) -> bool:
    try:
        parsed = parse_dates(pa.array(cells, pa.string()), format)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return not np.isnan(parsed).any()
