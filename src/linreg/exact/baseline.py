"""The exact solution beside a trained model: its losses, and the largest stable learning rate."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.dataset import CustomDataset
from linreg.data.mapped import MappedDataset
from linreg.data.pipeline import Data, ascending, in_blocks
from linreg.exact.closed_form import Equations, Exact, LinearPart, linear_part
from linreg.exact.least_squares import DEPENDENT


def baseline(data: Data, network: nn.Module, *, batch_size: int | None) -> Exact | None:
    """Solve for the lowest mean squared error that the network can reach on the training part.

    batch_size: of the validation loss; None for one batch. Return None without a closed form.
    """
    part = linear_part(network)
    if part is None:
        return None
    dataset = data.dataset
    equations = Equations(part, data.columns, data.preprocessing, len(data.target_names))
    mask = np.zeros(len(dataset), dtype=bool)
    mask[data.train_data.indices] = True
    for rows in ascending(mask):
        equations.train.add(*_in_float64(part, dataset, rows))
    try:
        # a column depends on others up to the rounding of the dataset's dtype
        rounding = 4 * torch.finfo(part.layer.weight.dtype).eps
        optimum = equations.solve(ridge=0.0, is_result=False, dependent=max(DEPENDENT, rounding), rounding=rounding)
    except OverflowError:
        return None
    if data.val_data is None:
        return optimum
    coefficients, scale = optimum.fit["coefficients"].numpy(), optimum.fit["y_scale"].numpy()

    def squared_errors(rows: NDArray[Any]) -> NDArray[np.float64]:
        design, y, weight = _in_float64(part, dataset, rows)
        squares: NDArray[np.float64] = (((y - design @ coefficients) * scale) ** 2).mean(axis=1)
        return squares if weight is None else weight * squares

    indices = np.asarray(data.val_data.indices)
    val_loss = _mean_by_batch(map(squared_errors, in_blocks(indices)), batch_size or len(indices))
    return replace(optimum, val_loss=val_loss)


def _mean_by_batch(blocks: Iterable[NDArray[np.float64]], batch_size: int) -> float:
    """Return the mean of the means of batches, over values in blocks. The last batch may be shorter."""
    sums, n_values = np.zeros(0), 0
    for values in blocks:
        batch = np.arange(n_values, n_values + len(values)) // batch_size
        n_values += len(values)
        sums = np.concatenate([sums, np.zeros(batch[-1] + 1 - len(sums))])
        sums[batch[0] :] += np.bincount(batch - batch[0], values)
    counts = np.full(len(sums), batch_size)
    counts[-1] = n_values - batch_size * (len(sums) - 1)
    return float((sums / counts).mean())


def largest_stable_lr(
    curvature: float,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> float | None:
    """Return the learning rate beyond which sgd diverges on a loss of this curvature, or None.

    For curvature c it is 2 (1 + momentum) / c, by Nesterov's momentum 2 (1 + momentum) / (1 + 2 momentum) / c. Source:
    B. Polyak, Some methods of speeding up the convergence of iteration methods (1964), and the roots of the
    characteristic polynomial of z(k+1) = (1 - lr c)((1 + momentum) z(k) - momentum z(k-1)).
    """
    curvature += weight_decay
    if dampening or curvature <= 0:
        return None
    widened = 1 + 2 * momentum if nesterov else 1.0
    return float(2 * (1 + momentum) / widened / curvature)


def _in_float64(
    part: LinearPart, dataset: CustomDataset | MappedDataset, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the design matrix, the targets and the weights (n,) of some rows (n,) of a dataset."""
    x, y, *weight = dataset.take(rows)
    design = part.design(torch.from_numpy(x.astype(np.float64)))
    return design, y.astype(np.float64), weight[0][:, 0].astype(np.float64) if weight else None
