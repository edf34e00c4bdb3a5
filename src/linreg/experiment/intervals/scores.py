"""The absolute errors of a model on the rows that calibrate it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.preprocessing import Feature, Preprocessed, rows_as_data_errors
from linreg.data.rows import Rows, chosen_blocks
from linreg.data.split import CALIBRATION, Parts
from linreg.data.transform import Recode
from linreg.errors import DataError
from linreg.experiment.network import errors_of
from linreg.spec.schema import ExperimentSpec


def scores_of(
    model: nn.Module, spec: ExperimentSpec, rows: Rows, features: Sequence[Feature], parts: Parts
) -> torch.Tensor:
    """Return the absolute errors (n, n_targets) on the calibration part, ascending for each target.

    They are in the targets' units, or with a transform of the target in those of the transformed target. Weights do not
    count. Raises DataError for a row without a finite error."""
    preprocessing = model.preprocessing if isinstance(model, Preprocessed) else None
    recode, was_training, scores = Recode(features, rows), model.training, []
    model.eval()
    for block, _ in chosen_blocks(rows, parts.codes == CALIBRATION):
        x = recode(block)
        with rows_as_data_errors(preprocessing, x, block.y, block.where):
            if isinstance(model, Preprocessed) and model.preprocessing.target is not None:
                errors = _transformed_errors(model, x, block.y)
            else:
                errors = errors_of(model, x, block.y, spec.dtype)
        if not np.isfinite(errors).all():
            row = int(np.nonzero(~np.isfinite(errors).all(axis=1))[0][0])
            raise DataError(f"{block.where(row)}: its prediction is not finite, so it cannot calibrate; remove the row")
        scores.append(np.abs(errors))
    model.train(was_training)
    return torch.from_numpy(np.sort(np.concatenate(scores), axis=0))


def _transformed_errors(model: Preprocessed, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the errors (n, n_targets) of the transformed targets."""
    with torch.no_grad():
        targets = model.preprocessing.scaled(torch.from_numpy(np.ascontiguousarray(y)))
        outputs = model.outputs(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)))
        errors: NDArray[np.float64] = ((targets - outputs.double()) * model.preprocessing.y_scale).numpy()
    return errors
