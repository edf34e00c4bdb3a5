"""Sources of generated points, and the classes that every source returns. `tables` has the sources that read files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, NonNegativeFloat, PositiveFloat

from linreg.errors import DataError, suggest
from linreg.registry import Registry
from linreg.system.memory import refuse_beyond_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from linreg.data.shards import Shards
    from linreg.data.split import Column

DATASETS = Registry("source", arguments=(), returns="linreg.data.sources.Points")

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Count = Annotated[int, Field(gt=0, le=10**9)]


@dataclass(frozen=True)
class Block:
    """Some rows of a data set, in its order.

    x: inputs (n, n_features); a gap is NaN, a category is its position in the list of its feature; y: targets
    (n, n_targets); weight: (n,) or None; where: returns the origin of the i-th row of the block, for messages; kept:
    columns for the output of `predict`.
    """

    x: "NDArray[np.floating]"
    y: "NDArray[np.floating]"
    weight: "NDArray[np.floating] | None" = None
    where: Callable[[int], str] = lambda row: f"row {row + 1}"
    kept: Mapping[str, Any] = field(default_factory=dict)


class Points:
    """The points of a data set: the names of the columns, and the rows in blocks, which can be read again and again.

    categories: the list of categories of each categorical feature, complete after all blocks were read. missing: the
    treatment of a gap, `error` (x has none), `mean` or `median`. unseen: the treatment of a category that is not in the
    training part, `error` or `zeros`. sizes: the numbers of rows of the table itself and of the separate files of the
    validation and the test part, after all blocks were read; empty for points without such files. dates: the features
    that are dates, in days since 1970-01-01.
    """

    feature_names: Sequence[str]
    target_names: Sequence[str]
    categories: Mapping[str, Sequence[str]]
    missing: str = "error"
    unseen: str = "error"
    sizes: Sequence[int] = ()
    dates: Sequence[str] = ()

    @property
    def categorical_positions(self) -> list[int]:
        """The positions of the features that are categories."""
        return [position for position, name in enumerate(self.feature_names) if name in self.categories]

    def blocks(self) -> Iterator[Block]:
        """Read the rows."""
        raise NotImplementedError

    def count(self, shards: "Shards") -> Sequence[int]:
        """Return the numbers of rows of the table and of separate files, together with the processes of other
        shards."""
        n_rows = sum(len(block.x) for block in self.blocks())
        return self.sizes or [n_rows]

    def between(self, group: int, rows: range) -> Iterator[Block]:
        """Read some rows in blocks, after `count`. group: 0 for the table, 1 and 2 for the separate files of the
        validation and the test part; rows: their numbers in it."""
        skipped = sum(self.sizes[:group])
        return blocks_between(self.blocks(), range(skipped + rows.start, skipped + rows.stop))

    def column(self, name: str) -> "Column":
        """Return a column, which need not be a feature, for the split. Raises ValueError, and DataError for a gap."""
        return column_of(self, self.blocks(), name)

    def stamp(self) -> list[list[str | int]] | None:
        """Return path, size in bytes and modification time in nanoseconds of each file of the rows; None without
        files."""
        return None


@dataclass(frozen=True)
class Samples(Points):
    """The points of a data set, in arrays.

    x: inputs (n_samples, n_features); y: targets (n_samples, n_targets); weight: of each point (n_samples,), or None.
    The default names are x1, x2, ... and y1, y2, ..., or x and y for a single column.
    """

    x: "NDArray[np.floating]"
    y: "NDArray[np.floating]"
    feature_names: Sequence[str] = ()
    target_names: Sequence[str] = ()
    weight: "NDArray[np.floating] | None" = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: str = "error"
    unseen: str = "error"
    where: Callable[[int], str] = lambda row: f"row {row + 1}"

    def __post_init__(self) -> None:
        for name, letter, array in (("feature_names", "x", self.x), ("target_names", "y", self.y)):
            width = array.shape[1] if getattr(array, "ndim", 0) == 2 else 0  # `refuse_shapes` refuses the rest
            names = list(getattr(self, name))
            if not names:
                names = [letter] if width == 1 else [f"{letter}{i + 1}" for i in range(width)]
            object.__setattr__(self, name, tuple(str(name) for name in names))

    def blocks(self) -> Iterator[Block]:
        """Return all rows as one block."""
        yield Block(self.x, self.y, self.weight, self.where)


def column_of(points: Points, blocks: Iterator[Block], name: str) -> "Column":
    """Return a column of the rows of some blocks, as `Points.column`."""
    import numpy as np

    from linreg.data.split import Column  # imports torch

    names = [*points.feature_names, *points.target_names]
    if name not in names:
        raise ValueError(f"no column {name!r}; {suggest(name, names)}")
    position, parts = names.index(name), []
    for block in blocks:
        is_feature = position < len(points.feature_names)
        column = (block.x if is_feature else block.y)[:, position - len(points.feature_names) * (not is_feature)]
        parts.append(column.astype(np.float64))
        if np.isnan(column).any():
            raise no_part(block.where(int(np.nonzero(np.isnan(column))[0][0])), name)
    return Column(np.concatenate(parts), name not in points.categories)


def blocks_between(blocks: Iterator[Block], rows: range, *, first: int = 0) -> Iterator[Block]:
    """Yield the blocks of some rows, cut to them, and read no further. first: the number of the first row of the
    blocks."""
    for block in blocks:
        start, stop = max(rows.start - first, 0), min(rows.stop - first, len(block.x))
        first += len(block.x)
        if start < stop:
            yield block if stop - start == len(block.x) else _part(block, start, stop)
        if first >= rows.stop:
            return


def _part(block: Block, start: int, stop: int) -> Block:
    """Return some rows of a block."""
    weight = None if block.weight is None else block.weight[start:stop]
    return replace(
        block, x=block.x[start:stop], y=block.y[start:stop], weight=weight, where=lambda row: block.where(start + row)
    )


def no_part(where: str, name: str) -> DataError:
    """Make the error for a row without a value in the column that divides the rows into parts or groups."""
    return DataError(f"{where}, column {name!r}: missing, and it divides the rows; add the value, or remove the row")


def _bytes_drawn(n_samples: int, n_features: int) -> int:
    """Return the bytes for x, y, the products and the noise."""
    return 8 * n_samples * (2 * n_features + 3)


@DATASETS.register("linear")
def linear(
    *,
    n_samples: Count = 100,
    weight: float | Annotated[list[float], Field(min_length=1)] = 2.0,
    bias: float = 1.0,
    noise: NonNegativeFloat = 0.1,
    seed: Seed = 42,
) -> Samples:
    """Points around a line: y = bias + weight * x + noise * standard normal, x uniform in [0, 1).

    A list of weights makes as many features. Drawn by `numpy.random.RandomState(seed)`, x before the noise, as
    the textbook draws them.
    """
    import numpy as np

    weights = np.atleast_1d(np.asarray(weight, dtype=np.float64))
    refuse_beyond_memory(_bytes_drawn(n_samples, len(weights)))
    random = np.random.RandomState(seed)
    x = random.rand(n_samples, len(weights))
    y = bias + (weights * x).sum(axis=1, keepdims=True) + noise * random.randn(n_samples, 1)
    return Samples(x, y)


@DATASETS.register("sine")
def sine(
    *,
    n_samples: Count = 200,
    amplitude: float = 1.0,
    frequency: PositiveFloat = 1.0,
    noise: NonNegativeFloat = 0.1,
    seed: Seed = 42,
) -> Samples:
    """Points around a sine wave: y = amplitude * sin(2 pi frequency x) + noise * standard normal, x in [0, 1)."""
    import numpy as np

    refuse_beyond_memory(_bytes_drawn(n_samples, 1))
    random = np.random.RandomState(seed)
    x = random.rand(n_samples, 1)
    y = amplitude * np.sin(2 * np.pi * frequency * x) + noise * random.randn(n_samples, 1)
    return Samples(x, y)


@DATASETS.register("friedman1")
def friedman1(
    *,
    n_samples: Count = 1000,
    n_features: Annotated[int, Field(ge=5, le=10**6)] = 10,
    noise: NonNegativeFloat = 1.0,
    seed: Seed = 42,
) -> Samples:
    """Friedman's first problem: five of the features matter, two of them only together.

    y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + noise * standard normal, every x uniform in [0, 1).
    Source: J. H. Friedman, Multivariate Adaptive Regression Splines, The Annals of Statistics 19 (1991), eq. 61.
    """
    import numpy as np

    refuse_beyond_memory(_bytes_drawn(n_samples, n_features))
    random = np.random.RandomState(seed)
    x = random.rand(n_samples, n_features)
    curved = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    y = curved + 10 * x[:, 3] + 5 * x[:, 4] + noise * random.randn(n_samples)
    return Samples(x, y[:, None])
