"""`leave_one_out`: the error of an exact model for each row, as if it was solved without that row."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.preprocessing import Preprocessed, Preprocessing
from linreg.data.rows import chosen_blocks
from linreg.data.split import Parts
from linreg.data.transform import Recode
from linreg.errors import DataError, SpecError
from linreg.exact.closed_form import linear_part
from linreg.experiment.data import open_parts
from linreg.experiment.measuring import Measured
from linreg.experiment.solving import Solved, solve_exactly
from linreg.spec.schema import ExperimentSpec

log = logging.getLogger("linreg")

ALONE = 1e-9  # least distance of a leverage from 1


def leave_one_out(spec: ExperimentSpec) -> tuple[Solved, list[Measured]]:
    """Solve a spec on all rows that are not for test, and return the errors of each row without its own influence.

    The residual of a row divided by 1 - leverage is its error by the model of all other rows; preprocessing is learnt
    once, from all rows. Source: R. D. Cook and S. Weisberg, Residuals and Influence in Regression (1982), section 2.2.
    Raises SpecError for a model to which this does not apply, and DataError for a row without which a coefficient is
    not determined."""
    problem = _problem(spec)
    if problem is not None:
        raise SpecError([f"{problem}; use --folds"])
    rows, parts = open_parts(spec)
    train = parts.train if parts.val is None else np.concatenate([parts.train, parts.val])
    whole = replace(parts, train=train, val=None)
    solved = solve_exactly(spec, rows=rows, parts=whole)
    return solved, list(_errors(spec, solved, whole))


def _problem(spec: ExperimentSpec) -> str | None:
    """Describe why leaving out rows one by one does not apply, or return None."""
    if spec.solver != "exact":
        return f"{spec.where('solver')}: --leave-one-out needs solver: exact"
    if spec.penalty is not None:
        return f"{spec.where('penalty')}: --leave-one-out takes no penalty, which would be learnt anew without each row"
    rule, _ = spec.data.split.rule
    if rule not in ("random", "stratify"):
        return f"{spec.where('data', 'split', 'by')}: --leave-one-out leaves out single rows, not by {rule}"
    if spec.data.split.val is not None or spec.data.split.folds is not None:
        key = "val" if spec.data.split.val is not None else "folds"
        return f"{spec.where('data', 'split', key)}: --leave-one-out measures all rows; remove {key}"
    return None


class LeftOut(NamedTuple):
    """Rows of a block, and their errors by the models without them. rows: their numbers (n,); y (n, n_targets): in the
    targets' units; design (n, p), targets and errors (n, n_targets): on the scale of the network; weight: (n,) or
    None."""

    rows: NDArray[np.int64]
    y: NDArray[np.floating]
    design: NDArray[np.float64]
    targets: NDArray[np.float64]
    errors: NDArray[np.float64]
    weight: NDArray[Any] | None


def without_each_row(spec: ExperimentSpec, solved: Solved, parts: Parts, *, instead: str) -> Iterator[LeftOut]:
    """Yield the rows of the training part, in blocks, each with its error by the model of all other rows. Raises
    DataError as `leave_one_out`, with what to use instead."""
    part, fit = linear_part(solved.network), solved.exact.fit
    assert part is not None  # it has been solved
    preprocessing = _preprocessing(solved)
    coefficients, inverse = fit["coefficients"].numpy(), fit["inverse"].numpy()
    recode = Recode(solved.features, solved.rows)
    for block, positions in chosen_blocks(solved.rows, parts.mask):
        x = torch.from_numpy(np.ascontiguousarray(recode(block), dtype=np.float64))
        y = torch.from_numpy(np.ascontiguousarray(block.y, dtype=np.float64))
        with torch.no_grad():
            if preprocessing is not None:
                x, y = preprocessing(x), preprocessing.scaled(y)
        design, targets = part.design(x), y.numpy()
        leverage = ((design @ inverse) ** 2).sum(axis=1) * (1.0 if block.weight is None else block.weight)
        _refuse_alone(leverage, block, spec.where("data", "source"), instead)
        errors = (targets - design @ coefficients) / (1 - leverage)[:, None]
        numbers = np.arange(positions.start, positions.stop) if isinstance(positions, slice) else positions
        yield LeftOut(numbers, np.array(block.y), design, targets, errors, block.weight)


def _errors(spec: ExperimentSpec, solved: Solved, parts: Parts) -> Iterator[Measured]:
    preprocessing = _preprocessing(solved)
    for left_out in without_each_row(spec, solved, parts, instead="--folds"):
        errors = left_out.errors
        if preprocessing is not None and preprocessing.target is not None:
            with torch.no_grad():
                errors = left_out.y - preprocessing.restored(torch.from_numpy(left_out.targets - errors)).numpy()
        elif preprocessing is not None:
            errors = errors * preprocessing.y_scale.numpy()
        yield Measured(left_out.rows, left_out.y, errors, left_out.weight)


def _preprocessing(solved: Solved) -> Preprocessing | None:
    return solved.model.preprocessing if isinstance(solved.model, Preprocessed) else None


def _refuse_alone(leverage: NDArray[np.float64], block: Any, where: str, instead: str) -> None:
    """Raise a DataError for a row that determines a coefficient alone."""
    alone: Sequence[int] = np.flatnonzero(leverage > 1 - ALONE).tolist()
    if alone:
        more = f" (and {len(alone) - 1} more rows)" if len(alone) > 1 else ""
        raise DataError(
            f"{where}: {block.where(alone[0])}: without this row{more} a coefficient is not determined; "
            f"remove it or a column, or use {instead}"
        )
