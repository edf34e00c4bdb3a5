"""The rows of a data set, wherever they are: `ResidentRows`, `MappedRows` and `StreamedRows` share one interface.

The stages of `data.pipeline` read rows through it, so data in memory, in a map and in a stream differ here only.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from linreg.data.dataset import Point
from linreg.data.fingerprint import Fingerprint
from linreg.data.preprocessing import refuse_infinite
from linreg.data.sources import Block, Points
from linreg.data.transform import Transform


class Rows(Points):
    """The points of a source, counted and identified. n_rows: the number of rows; fingerprint: identifies their names
    and values; is_weighted: whether rows have weights."""

    n_rows: int
    fingerprint: str
    is_weighted: bool

    def __init__(self, source: Points) -> None:
        self.source = source
        self.feature_names, self.target_names = tuple(source.feature_names), tuple(source.target_names)
        self.missing, self.unseen = source.missing, source.unseen

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # grows while a table is read
        """The categories of each categorical feature, in the order of their codes in x."""
        return self.source.categories

    def medians(self, mask: NDArray[np.bool_], positions: Sequence[int]) -> NDArray[np.float64]:
        """Return the medians of the features at some positions, gaps left out, over the rows of the mask."""
        columns = np.concatenate([block.x[chosen][:, positions] for block, chosen in masked_blocks(self, mask)])
        return np.array([np.nanmedian(column) for column in columns.T])

    def weight(self) -> NDArray[np.float64] | None:
        """Return the weights of all rows (n_rows,), or None."""
        if not self.is_weighted:
            return None
        return np.concatenate([np.asarray(block.weight, dtype=np.float64) for block in self.blocks()])

    def dataset(self, transform: Transform, where: str) -> Dataset[Point]:
        """Return the rows as the network takes them. Raises DataError for a value that does not fit its dtype."""
        raise NotImplementedError


class StreamedRows(Rows):
    """Rows that stay at their source and are read again in each pass. The first pass counts them."""

    def __init__(self, source: Points, *, where: str) -> None:
        super().__init__(source)
        self.where = where
        fingerprint = Fingerprint(source)
        for block in source.blocks():
            fingerprint.add(block)
            self.is_weighted = block.weight is not None
        self.n_rows, self.fingerprint = fingerprint.n_rows, fingerprint.text()

    def blocks(self) -> Iterator[Block]:
        """Read the rows. Raises DataError for a value that is not finite."""
        for block in self.source.blocks():
            refuse_infinite(block, self.source, self.where)
            yield block


def masked_blocks(points: Points, mask: NDArray[np.bool_]) -> Iterator[tuple[Block, NDArray[np.bool_]]]:
    """Read all rows in blocks, each with its part of the mask (n_rows,)."""
    first = 0
    for block in points.blocks():
        yield block, mask[first : first + len(block.x)]
        first += len(block.x)
