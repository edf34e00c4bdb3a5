"""The rows that `evaluate` measures a model on: a part of its own data, or a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linreg.data.rows import Rows, chosen_blocks
from linreg.data.sources import Block, Points
from linreg.data.split import TEST, TRAIN, VAL
from linreg.data.tables.remote import place_of
from linreg.errors import DataError, UsageError, suggest
from linreg.experiment.loaded import LoadedModel, open_like, open_own_parts

PARTS = {"train": ("training", TRAIN), "val": ("validation", VAL), "test": ("test", TEST)}


@dataclass(frozen=True)
class Selection:
    """Some rows, which can be read again. name: of the part, or the path of the table; points: the rows with others;
    mask: of its rows (n_rows,), None for a table as a whole; is_training: whether the model was fitted to them."""

    name: str
    points: Points
    mask: NDArray[np.bool_] | None
    is_training: bool

    def __str__(self) -> str:
        return self.name if self.mask is None else f"{self.name} part"

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], Block]]:
        """Read the rows in blocks, with their numbers (n,) among the points."""
        if isinstance(self.points, Rows):
            for block, numbers in chosen_blocks(self.points, self.mask):
                yield np.arange(numbers.start, numbers.stop) if isinstance(numbers, slice) else numbers, block
            return
        first = 0
        for block in self.points.blocks():
            yield np.arange(first, first + len(block.x)), block
            first += len(block.x)


def select(model: LoadedModel, *, part: str | None = None, data: str | Path | None = None) -> Selection:
    """Open a part of the data of a model, or a table with its columns.

    part: `train`, `val` or `test`; by default the validation part, or the training part without one. Raises UsageError,
    and DataError for data that has changed."""
    if part is not None and data is not None:
        raise UsageError(f"--part {part}: --data measures a table as a whole; remove one")
    if data is not None:
        missing = model.saved.preprocessing["missing"]
        points: Points = open_like(model, data, targets=model.saved.target_names, missing=missing)
        return Selection(str(place_of(data)), points, None, is_training=False)
    if part is not None and part not in PARTS:
        raise UsageError(f"--part {part}: {suggest(part, PARTS)}")
    rows, parts = open_own_parts(model, model.saved.path)
    key = part or ("train" if parts.val is None else "val")
    if getattr(parts, key) is None:
        setting = {"val": "train_ratio below 1", "test": "test_ratio"}[key]
        raise UsageError(f"--part {key}: the split has no such part; train with data.split.{setting}")
    name, code = PARTS[key]
    return Selection(name, rows, parts.codes == code, is_training=code == TRAIN)


@dataclass(frozen=True)
class Order:
    """The order of selected rows in time. times: of all points (n_rows,), None if the rows are in their order; reason:
    why there is no order, else None."""

    times: NDArray[np.float64] | None = None
    reason: str | None = None


def order_of(model: LoadedModel, selection: Selection) -> Order:
    """Return the order of rows that the split of a model says: that of the table, or of a column of times."""
    rule, name = model.spec.data.split.rule
    if rule == "order":
        return Order()
    if rule != "time" or name is None:
        return Order(reason="only a split by order or by a column of times says that rows have an order")
    try:
        column = selection.points.column(name)
    except ValueError:
        return Order(reason=f"{selection} has no column {name!r}")
    except DataError as error:
        return Order(reason=str(error))
    if not column.is_number:
        return Order(reason=f"column {name!r} has neither numbers nor dates")
    if selection.mask is not None and selection.mask[len(column.values) :].any():
        return Order(reason="a separate file has no common order with the table")
    return Order(column.values)
