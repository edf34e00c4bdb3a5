"""jackknife_plus: the models of an exact fit without each row, by its leverage, without solving again."""

import numpy as np
import torch

from linreg.experiment.intervals.limits import refuse_large
from linreg.experiment.solving import Solved
from linreg.experiment.sweeps.leave_one_out import without_each_row
from linreg.spec.schema import ExperimentSpec


def leave_out(spec: ExperimentSpec, solved: Solved) -> dict[str, torch.Tensor]:
    """Return what determines the predictions of the models without each of the n training rows.

    shifts (n, p) are w L'x, with the row x of the design, its weight w and L L' = (X'X)^-1; errors (n, n_targets) are
    those of each row by the model without it, e / (1 - h), on the scale of the network. Without row i the prediction
    for z is that for z minus (z'L) shifts_i errors_i. Source: R. D. Cook and S. Weisberg, Residuals and Influence in
    Regression (1982), eq. 2.2.1. Raises SpecError for too many numbers, DataError as `leave_one_out`."""
    n_columns, n_targets = solved.exact.fit["coefficients"].shape
    refuse_large(spec, solved.rows, solved.parts, n_columns + n_targets)
    inverse, shifts, errors = solved.exact.fit["inverse"].numpy(), [], []
    for left_out in without_each_row(spec, solved, solved.parts, instead="intervals: {method: cv_plus}"):
        weight = 1.0 if left_out.weight is None else np.asarray(left_out.weight, dtype=np.float64)[:, None]
        shifts.append(weight * (left_out.design @ inverse))
        errors.append(left_out.errors)
    return {name: torch.from_numpy(np.concatenate(part)) for name, part in (("shifts", shifts), ("errors", errors))}
