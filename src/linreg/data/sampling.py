"""Some rows of many, chosen in a pass over blocks. Diagnostics and importance use it."""

import numpy as np
from numpy.typing import NDArray

SEED = 0  # of a sample

Floats = NDArray[np.float64]


class LowestRows:
    """The rows with the lowest keys, in ascending order of them, however the rows are cut into blocks. keys (n,); rows
    (n, width): at most `most`."""

    def __init__(self, most: int, width: int) -> None:
        self.most, self.keys, self.rows = most, np.zeros(0), np.zeros((0, width))

    def add(self, keys: Floats, rows: Floats) -> None:
        """Add rows (n, width) with their keys (n,)."""
        keys, rows = np.concatenate([self.keys, keys]), np.concatenate([self.rows, rows])
        order = np.argsort(keys, kind="stable")[: self.most]
        self.keys, self.rows = keys[order], rows[order]


class Sample:
    """A random sample of rows without replacement, the same each time."""

    def __init__(self, most: int, width: int) -> None:
        self.n_rows = 0
        self._lowest, self._random = LowestRows(most, width), np.random.default_rng(SEED)

    def add(self, rows: Floats) -> None:
        """Add rows (n, width)."""
        self.n_rows += len(rows)
        self._lowest.add(self._random.random(len(rows)), rows)

    @property
    def rows(self) -> Floats:
        """The sample (at most `most`, width), in a random order."""
        return self._lowest.rows
