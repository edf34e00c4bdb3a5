"""One pass over the data of a model: its metrics on each part, points for a chart, and the worst rows."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linreg.data.rows import Rows, places, select
from linreg.data.sampling import LowestRows, Sample
from linreg.data.sources import Block
from linreg.data.split import Parts
from linreg.data.transform import Recode
from linreg.experiment.loaded import LoadedModel, open_own_parts
from linreg.experiment.metrics import Metrics
from linreg.experiment.selection import PARTS

MOST_DOTS = 1_000
MOST_ROWS = 10


@dataclass(frozen=True)
class OfPart:
    """Metrics of a part, by target: of the model, of the exact optimum (None without one), and the root mean squared
    error of predicting the mean of the training part. n_weighted: the points with a weight above 0."""

    n_points: int
    n_weighted: int
    model: list[dict[str, float | None]]
    optimum: list[dict[str, float | None]] | None
    mean_rmse: list[float]


@dataclass(frozen=True)
class Worst:
    """A row with a large error. where: its file and row; values: of its features, as in the table."""

    target: str
    where: str
    y: float
    yhat: float
    values: Mapping[str, str | float | None]


@dataclass(frozen=True)
class Measured:
    """What a report says about the data. parts: by name, in the order training, validation, test; main: the part that
    speaks for the model: test, else validation, else training; y, yhat (n, n_targets): some of its points; others: the
    numbers of rows that calibrate intervals, and of those without a use; weight: the column that weights the metrics,
    or None."""

    parts: dict[str, OfPart]
    main: str
    y: NDArray[np.float64]
    yhat: NDArray[np.float64]
    worst: list[Worst]
    others: dict[str, int]
    weight: str | None

    @property
    def key(self) -> str:
        """The main part as `select` takes it: `train`, `val` or `test`."""
        return next(key for key, (name, _) in PARTS.items() if name == self.main)


def measure_parts(model: LoadedModel) -> Measured:
    """Measure a model on the data that it was trained on. Raises DataError if the data is missing or has changed."""
    rows, parts = open_own_parts(model, model.saved.path)
    recode, n_targets = Recode(model.features, rows), len(rows.target_names)
    own = {name: Metrics(n_targets) for name, code in PARTS.values() if (parts.codes == code).any()}
    optimum = {name: Metrics(n_targets) for name in own} if _has_optimum(model) else {}
    main, n_weighted, weight = list(own)[-1], dict.fromkeys(own, 0), None
    sample = Sample(MOST_DOTS, 2 * n_targets)
    worst = [LowestRows(MOST_ROWS, 3 + len(model.features)) for _ in range(n_targets)]
    for name, numbers, block in _by_part(rows, parts):
        x = recode(block)
        errors = model.errors(x, block.y, block.where)
        own[name].add(block.y, errors, block.weight)
        n_weighted[name] += len(block.y) if block.weight is None else int(np.count_nonzero(block.weight))
        if block.weight is not None:
            weight = str(model.spec.data.source.params.get("sample_weight", "the data"))
        if optimum:
            optimum[name].add(block.y, block.y - _optimum(model, x), block.weight)
        if name == main:
            yhat = block.y - errors
            sample.add(np.hstack([block.y, yhat]))
            for target, found in enumerate(worst):
                kept = np.column_stack([numbers, block.y[:, target], yhat[:, target], x])
                found.add(-np.abs(errors[:, target]), kept)
    train = own["training"]
    of_parts = {
        name: OfPart(
            n_points=one.n_samples,
            n_weighted=n_weighted[name],
            model=one.by_target(),
            optimum=optimum[name].by_target() if optimum else None,
            mean_rmse=np.sqrt(one.total / one.weight + (one.mean - train.mean) ** 2).tolist(),
        )
        for name, one in own.items()
    }
    sizes = {"calibration part": parts.calibration, "not used": parts.unused}
    others = {name: len(numbers) for name, numbers in sizes.items() if numbers is not None and len(numbers)}
    where = places(rows, [int(number) for found in worst for number in found.rows[:, 0]])
    listed = [row for target, found in enumerate(worst) for row in _worst(target, found, where, model)]
    y, yhat = np.split(sample.rows, 2, axis=1)
    return Measured(of_parts, main, y, yhat, listed, others, weight)


def _has_optimum(model: LoadedModel) -> bool:
    """Return whether a trained model has an optimum to be compared with: that of its loss, mse, without a penalty."""
    return model.saved.fit is not None and not model.saved.fit["exact"]


def _optimum(model: LoadedModel, x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Predict by the exact optimum for inputs (N, n_features): (N, n_targets), in the units of the targets."""
    assert model.saved.fit is not None
    return model.restored(model.design(x) @ model.saved.fit["coefficients"].numpy())


def _by_part(rows: Rows, parts: Parts) -> Iterator[tuple[str, NDArray[np.int64], Block]]:
    """Read the rows of all parts in blocks, each after the name of its part and the numbers of its rows."""
    first = 0
    for block in rows.blocks():
        codes = parts.codes[first : first + len(block.x)]
        for name, code in PARTS.values():
            mask = codes == code
            if mask.any():
                yield name, first + np.flatnonzero(mask), select(block, mask)
        first += len(codes)


def _worst(target: int, found: LowestRows, where: Mapping[int, str], model: LoadedModel) -> list[Worst]:
    """Return the rows with the largest errors of a target, the worst first. found: number, y and yhat, then x."""
    name = model.saved.target_names[target]
    return [Worst(name, where[int(row[0])], row[1], row[2], _values_of(model, row[3:])) for row in found.rows]


def _values_of(model: LoadedModel, x: NDArray[np.floating]) -> dict[str, str | float | None]:
    """Return the features of a row as in the table: a category by its name, a gap as None."""
    values: dict[str, str | float | None] = {}
    for feature, value in zip(model.features, x.tolist(), strict=True):
        is_gap = math.isnan(value)
        if feature.categories is None:
            values[feature.name] = None if is_gap else _date(value) if feature.name in model.dates else value
        else:
            is_known = not is_gap and 0 <= int(value) < len(feature.categories)
            values[feature.name] = feature.categories[int(value)] if is_known else None
    return values


def _date(days: float) -> str:
    """Return days since 1970 as a date."""
    return str(np.datetime64(0, "D") + np.timedelta64(round(days), "D"))
