"""The exact solution beside a trained model: its losses, and the largest stable learning rate."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.dataset import CustomDataset
from linreg.data.mapped import MappedDataset
from linreg.data.pipeline import Data, ascending, in_blocks
from linreg.data.shards import Cut, ShardedPart
from linreg.exact.closed_form import Equations, Exact, LinearPart, linear_part
from linreg.exact.least_squares import DEPENDENT, stack


def baseline(data: Data, network: nn.Module, *, batch_size: int | None) -> Exact | None:
    """Solve for the lowest mean squared error that the network can reach on the training part.

    batch_size: of the validation loss; None for one batch. Return None without a closed form.
    """
    part = linear_part(network)
    if part is None:
        return None
    dataset = data.dataset
    own = [0] if data.cut is None else list(data.cut.shards.own)
    equations = Equations(part, data.columns, data.preprocessing, len(data.target_names), n_pieces=len(own))
    mask = np.zeros(len(dataset), dtype=bool)
    mask[data.train_data.indices] = True
    for rows in ascending(mask):
        for shard, some in [(0, rows)] if data.cut is None else _by_shard(data.cut, rows):
            equations.pieces[own.index(shard)].add(*_in_float64(part, dataset, some))
    try:
        # a column depends on others up to the rounding of the dataset's dtype
        rounding = 4 * torch.finfo(part.layer.weight.dtype).eps
        triangles = equations.triangles()
        train = stack(triangles if data.cut is None else data.cut.shards.share_lists(triangles))
        optimum = equations.solve(train, is_result=False, dependent=max(DEPENDENT, rounding), rounding=rounding)
    except OverflowError:
        return None
    if data.val_data is None:
        return optimum
    coefficients, scale = optimum.fit["coefficients"].numpy(), optimum.fit["y_scale"].numpy()

    def squared_errors(rows: NDArray[Any]) -> NDArray[np.float64]:
        design, y, weight = _in_float64(part, dataset, rows)
        squares: NDArray[np.float64] = (((y - design @ coefficients) * scale) ** 2).mean(axis=1)
        return squares if weight is None else weight * squares

    if data.val_shards is not None and data.cut is not None:
        return replace(optimum, val_loss=_mean_of_pieces(squared_errors, data.val_shards, data.cut, batch_size))
    indices = np.asarray(data.val_data.indices)
    val_loss = _mean_by_batch(map(squared_errors, in_blocks(indices)), batch_size or len(indices))
    return replace(optimum, val_loss=val_loss)


def _by_shard(cut: Cut, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield rows (n,) by shard."""
    numbers = cut.numbers[rows]
    for shard in np.unique(numbers).tolist():
        yield shard, rows[numbers == shard]


def _mean_of_pieces(
    values_of: Callable[[NDArray[Any]], NDArray[np.float64]], part: ShardedPart, cut: Cut, batch_size: int | None
) -> float:
    """Return the mean of the means of mini-batches with shards, over the values of rows."""
    n_batches, sums = part.n_batches(batch_size), []
    for shard, rows in part.rows.items():
        values = np.concatenate([np.empty(0), *map(values_of, in_blocks(rows))])
        ends = [part.ends(shard, batch, n_batches) for batch in range(n_batches)]
        sums.append(np.array([values[first:last].sum() for first, last in ends]))
    total = sum(cut.shards.share_lists(sums))
    return float(np.mean(total / [part.n_in_batch(batch, n_batches) for batch in range(n_batches)]))


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
