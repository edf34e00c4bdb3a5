"""The format and columns that a reader receives, and the batches that it yields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 2**15
MOST_COLUMNS = 100_000

Made = TypeVar("Made")


@dataclass(frozen=True)
class Format:
    """The name of a file format and its options. Only CSV uses delimiter, decimal and encoding."""

    name: str
    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    missing_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read: as numbers, as text, and unchanged."""

    numbers: Sequence[str]
    texts: Sequence[str]
    others: Sequence[str]

    @property
    def all(self) -> list[str]:
        """Every name, once."""
        return list(dict.fromkeys([*self.numbers, *self.texts, *self.others]))


@dataclass(frozen=True)
class Batch:
    """Some rows. numbers: arrays (n_rows,), NaN for a gap; texts: arrow arrays, null for a gap; others: arrow arrays as
    the file has them."""

    n_rows: int
    numbers: Mapping[str, NDArray[np.float64]]
    texts: Mapping[str, Any]
    others: Mapping[str, Any]
