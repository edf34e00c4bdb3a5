"""Permutation importance: how much worse a metric becomes when the values of a column are shuffled among the rows.

Source: L. Breiman, Random forests (2001), section 10; A. Fisher, C. Rudin and F. Dominici, All models are wrong, but
many are useful (2019), for any model.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.sampling import Sample
from linreg.data.transform import Recode
from linreg.errors import DataError, UsageError, suggest
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.metrics import Metrics
from linreg.experiment.selection import Selection

METRICS = ("mse", "rmse", "mae", "r2")
MOST_ROWS = 100_000
MOST_VALUES = 2**25  # of the rows in memory
SEED = 0  # of the permutations


@dataclass(frozen=True)
class ColumnImportance:
    """A column of the table. mean: the increase of the metric, or the decrease of r2, over the repeats; std: its
    standard deviation, None for one repeat; values: of each repeat."""

    name: str
    mean: float
    std: float | None
    values: list[float]


@dataclass(frozen=True)
class Importance:
    """The importance of the columns of a table, the largest first. rows: which they are; n_rows: of them that were
    used; n_selected: all of them; value: of the metric, the mean over targets, as the rows are."""

    rows: str
    is_training: bool
    n_rows: int
    n_selected: int
    metric: str
    value: float
    repeats: int
    columns: list[ColumnImportance]

    def described(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def permutation_importance(
    model: LoadedModel,
    selection: Selection,
    *,
    repeats: int = 10,
    metric: str | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Importance:
    """Return the importance of each column of the table on selected rows, which are read once.

    The values of a column are permuted before the preprocessing, so all that derives from it changes together. Every
    column has the same permutations, which are the same each time. Of many rows, a sample of at most MOST_ROWS is used.
    metric: `mse`, `rmse`, `mae` or `r2`; by default `mae` for the loss mae, else `rmse`. report: called after each
    column with the number of columns that are done, and of all. Raises UsageError, DataError.
    """
    if metric is not None and metric not in METRICS:
        raise UsageError(f"--metric {metric}: {suggest(metric, METRICS)}")
    metric = metric or ("mae" if model.spec.loss.name == "mae" else "rmse")
    rows = _Rows(model, selection, metric)
    value = rows.measure()
    generators = [np.random.default_rng([SEED, repeat]) for repeat in range(repeats)]
    orders = [generator.permutation(len(rows.x)) for generator in generators]
    sign = -1 if metric == "r2" else 1
    columns: list[ColumnImportance] = []
    names = model.saved.feature_names
    for position, name in enumerate(names):
        values = [sign * (rows.measure(position, order) - value) for order in orders]
        spread = float(np.std(values, ddof=1)) if repeats > 1 else None
        columns.append(ColumnImportance(name, float(np.mean(values)), spread, values))
        if report is not None:
            report(len(columns), len(names))
    columns.sort(key=lambda column: -column.mean)
    sizes = (len(rows.x), rows.n_selected)
    return Importance(str(selection), selection.is_training, *sizes, metric, value, repeats, columns)


class _Rows:
    """Selected rows in memory, or a sample of them, on which a metric is measured."""

    def __init__(self, model: LoadedModel, selection: Selection, metric: str) -> None:
        self.model, self.metric = model, metric
        self.n_targets = len(model.saved.target_names)
        n_features = len(model.saved.feature_names)
        width = n_features + self.n_targets + 1
        recode, sample = Recode(model.features, selection.points), Sample(min(MOST_ROWS, MOST_VALUES // width), width)
        for _, block in selection.blocks():
            weight = np.ones(len(block.x)) if block.weight is None else block.weight
            sample.add(np.column_stack([recode(block), block.y, weight]))
        self.x, self.y, self.weight = (
            np.ascontiguousarray(part) for part in np.split(sample.rows, [n_features, width - 1], axis=1)
        )
        self.n_selected = sample.n_rows

    def measure(self, position: int | None = None, order: NDArray[np.int64] | None = None) -> float:
        """Return the metric, with the values of the column at a position in another order. Raises DataError."""
        if position is None or order is None:
            return self._measured("a row")
        values = self.x[:, position].copy()
        self.x[:, position] = values[order]
        measured = self._measured(f"a row with another value of {self.model.saved.feature_names[position]!r}")
        self.x[:, position] = values
        return measured

    def _measured(self, where: str) -> float:
        metrics = Metrics(self.n_targets)
        errors = self.model.errors(self.x, self.y, lambda _: f"importance: {where}")
        metrics.add(self.y, errors, self.weight[:, 0])
        values = [by_target[self.metric] for by_target in metrics.by_target()]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            raise DataError(f"--metric {self.metric}: a target does not vary; use rmse or mae")
        return float(np.mean(known))
