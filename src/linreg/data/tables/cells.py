"""Cells of text: which of them are numbers, and which gaps.

By pyarrow.compute, whose import takes a tenth of a second and 9 MB; a table of numbers alone is read without it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def is_float(text: str) -> bool:
    """Say whether Python takes a text for a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def are_wrong(cells: Any, decimal: str = ".") -> NDArray[np.bool_]:
    """Say of each cell whether it is neither a gap nor a number."""
    return np.asarray(pc.fill_null(pc.invert(_are_numbers(cells, decimal)), False).to_numpy(zero_copy_only=False))


def _are_numbers(cells: Any, decimal: str = ".") -> Any:
    """Say of each cell whether it is a finite number in plain decimal notation; null where it is null."""
    point = "\\" + decimal if decimal in ".+*?^$|" else decimal
    pattern = rf"^[-+]?([0-9]+{point}?[0-9]*|{point}[0-9]+)([eE][-+]?[0-9]{{1,3}})?$"
    plain = pc.match_substring_regex(cells, pattern)
    big = pc.match_substring_regex(cells, r"[eE]\+?[0-9]{3}$")  # may be more than a float64 holds
    if not pc.any(big).as_py():
        return plain
    finite = [cell is None or not is_float(cell) or math.isfinite(float(cell)) for cell in cells.to_pylist()]
    return pc.and_(plain, pa.array(finite))


def parse_numbers(cells: Any, decimal: str) -> NDArray[np.float64]:
    """Give cells of text as numbers (n,), NaN where there is none that a table may hold."""
    bare = without_blanks(cells)
    found = to_numbers(pc.if_else(_are_numbers(bare, decimal), bare, None), decimal)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)


def to_numbers(cells: Any, decimal: str) -> Any:
    """Turn cells of text into numbers, null for a null. Raises arrow's ArrowInvalid for what is none."""
    return pc.cast(pc.replace_substring(cells, decimal, "."), pa.float64())


def without_blanks(cells: Any) -> Any:
    """Take the blanks off both ends of each cell."""
    return pc.utf8_trim(cells, characters=" \t")


def with_gaps(cells: Any, missing_values: Sequence[str]) -> Any:
    """Turn the values that stand for a gap into null."""
    gap = pc.is_in(cells, value_set=pa.array(["", *missing_values], cells.type))
    return pc.if_else(gap, pa.scalar(None, cells.type), cells)
