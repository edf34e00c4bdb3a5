"""The robust covariance of a checkpoint's coefficients: `inspect --robust`, in one pass over its training rows."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linreg.data.preprocessing import rows_as_data_errors
from linreg.data.rows import Rows, chosen_blocks
from linreg.data.split import TRAIN, Parts
from linreg.data.transform import Recode
from linreg.errors import DataError, UsageError, suggest
from linreg.exact.inference import Covariance, no_covariance
from linreg.exact.robust import CLUSTER, HC, LeverageError, Sandwich
from linreg.experiment.loaded import LoadedModel, open_own_parts, weight_divisor

ROWS = 2**14  # at once


def robust_covariance(path: str | Path, kind: str) -> Covariance:
    """Return a covariance of the coefficients of a checkpoint that holds without equal variances of the residuals.

    kind: HC0, HC1, HC2, HC3, or cluster=COLUMN. Raises UsageError, CheckpointError, and DataError if the data of the
    checkpoint has changed or is gone, or does not have this covariance.
    """
    name, column = parse_kind(kind)
    model = LoadedModel(path, device="cpu")
    fit = model.saved.fit
    if fit is None:
        raise UsageError(f"--robust: {path} has no least-squares optimum; it needs a linear model and the loss mse")
    reason = no_covariance(fit)
    if reason is not None:
        raise UsageError(f"--robust: {path}: {reason}")
    rows, parts = open_own_parts(model, path)
    groups = None if column is None else _groups(rows, parts, column)
    sandwich = Sandwich(fit, name, n_groups=None if groups is None else int(groups.max()) + 1)
    _add_rows(sandwich, model, rows, parts, groups)
    return sandwich.covariance(column)


def parse_kind(kind: str) -> tuple[str, str | None]:
    """Return the name of a covariance and its column. Raises UsageError."""
    name, equals, column = kind.partition("=")
    if name == CLUSTER and column:
        return name, column
    if name in HC and not equals:
        return name, None
    if name == CLUSTER:
        raise UsageError(f"--robust {kind}: no column; write for instance cluster=plant")
    raise UsageError(f"--robust {kind}: {suggest(name, [*HC, f'{CLUSTER}=COLUMN'])}")


def _groups(rows: Rows, parts: Parts, column: str) -> NDArray[np.int64]:
    """Return the number of the group of each row (n_rows,), counted among the training rows; -1 for other rows. Raises
    UsageError, DataError."""
    try:
        values = rows.column(column).values
    except ValueError as error:
        raise UsageError(f"--robust {CLUSTER}={column}: {str(error).removeprefix('by: ')}") from None
    training = np.flatnonzero(parts.codes == TRAIN)
    weight = rows.weight()
    if weight is not None:
        training = training[weight[training] > 0]
    groups = np.full(parts.n_rows, -1)
    groups[training] = np.unique(values[training], return_inverse=True)[1]
    if groups.max() < 1:
        raise DataError(f"--robust {CLUSTER}={column}: the training rows are one group; use a column with several")
    return groups


def _add_rows(
    sandwich: Sandwich, model: LoadedModel, rows: Rows, parts: Parts, groups: NDArray[np.int64] | None
) -> None:
    """Add the training rows, or those with a group, to a covariance. Raises DataError."""
    recode, divisor = Recode(model.features, rows), weight_divisor(sandwich.fit, rows, parts.mask)
    for block, positions in chosen_blocks(rows, parts.codes == TRAIN if groups is None else groups >= 0):
        x, y, weight = recode(block), block.y, None if block.weight is None else block.weight / divisor
        own = None if groups is None else groups[positions]
        for first in range(0, len(x), ROWS):
            some = slice(first, first + ROWS)
            with rows_as_data_errors(model.preprocessing, x, y, block.where):
                design, targets = model.design(x[some]), model.targets(y[some])
            try:
                sandwich.add(
                    design, targets, None if weight is None else weight[some], None if own is None else own[some]
                )
            except LeverageError as error:
                raise DataError(
                    f"--robust {sandwich.name}: {block.where(first + error.row)} has the leverage 1 (it alone "
                    "determines a coefficient), so its residual says nothing; use HC0 or HC1"
                ) from None
