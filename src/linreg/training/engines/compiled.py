"""The engine that trains a linear model in compiled code: what a spec builds, in the kernels' words."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn, optim

from linreg.components.losses import InTargetUnits, Weighted
from linreg.data.dataset import CustomDataset
from linreg.data.loaders import TensorLoader, make_tensor_loaders
from linreg.training.engines.arrays import (
    Adam,
    Loss,
    LossKind,
    Rows,
    Sgd,
    fresh,
    load_kernels,
    make_train_chunk_fn,
    make_val_chunk_fn,
    moment_names,
)
from linreg.training.engines.lean import SWITCHES, hooks_of, is_plain, layers_of, make_watched_fn
from linreg.training.engines.training import Engine, Training
from linreg.training.loops import make_epoch_fn


def make_compiled_engine(training: Training) -> Engine:
    """Make what runs a linear model's steps in compiled code, a chunk in one call. Raises UsageError without numba, and
    ValueError for what has no compiled code."""
    layer, loss = _compiled_model(training)
    _compiled_optimizer(training.optimizer, layer)
    load_kernels()
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    size = train_loader.batch_size
    training.optimizer._opt_called = True  # type: ignore[attr-defined]  # or a scheduler warns that it was never stepped

    def begin_training(after: int) -> Callable[[int], list[float]]:
        optimizer = _compiled_optimizer(training.optimizer, layer)  # now: loading a checkpoint changes its settings
        group = training.optimizer.param_groups[0]
        parameters = [_Shared(parameter, training.optimizer, optimizer) for parameter in layer.parameters()]
        weight, bias = parameters[0].arrays, parameters[1].arrays if len(parameters) > 1 else None

        def train(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            n_steps = math.ceil(len(places) / size)
            lr, momentum = _plan(group, training.after_step, n_steps)
            chunk = make_train_chunk_fn(points, weight, bias, loss=loss, optimizer=optimizer, batch_size=size)
            losses = chunk(places, lr=lr, momentum=momentum, steps_done=parameters[0].steps)
            for parameter in parameters:
                parameter.step(n_steps)
            return losses

        return _begin(train_loader, after, train)

    def begin_validation(loader: TensorLoader, after: int) -> Callable[[int], list[float]]:
        weight, bias = (None if p is None else p.detach().numpy() for p in (layer.weight, layer.bias))

        def validate(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            return make_val_chunk_fn(points, weight, bias, loss=loss, batch_size=loader.batch_size)(places)

        return _begin(loader, after, validate)

    train_epoch = make_epoch_fn(len(train_loader), begin_training)
    val_epoch = None
    if val_loader is not None:
        val_epoch = make_epoch_fn(len(val_loader), partial(begin_validation, val_loader))
    return Engine("compiled", train_epoch, val_epoch)


def _compiled_model(training: Training) -> tuple[nn.Linear, Loss]:
    """Say in the kernels' words what is trained. Raises ValueError where they have none."""
    loss_fn, reported = training.loss_fn, training.reported_loss_fn
    basis, layers = layers_of(training.model) or ([], [])
    watched = make_watched_fn([training.model, *layers])
    if len(layers) != 1 or basis or watched() or training.device.type != "cpu":
        raise ValueError("trains model linear alone, without hooks, on the CPU; use engine: auto")
    if training.clip_grad_norm is not None:
        raise ValueError("does not clip gradients; leave out clip_grad_norm, or use engine: auto")
    scale = reported.scale.numpy() if isinstance(reported, InTargetUnits) else None
    by_point = loss_fn.by_point if isinstance(loss_fn, Weighted) else loss_fn
    kinds: dict[type, LossKind] = {nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber"}
    if type(by_point) not in kinds or (by_point is loss_fn and getattr(loss_fn, "reduction", "") != "mean"):
        raise ValueError("trains by the losses mse, mae and huber; use engine: auto")
    (layer,) = layers
    assert isinstance(layer, nn.Linear)
    return layer, Loss(kinds[type(by_point)], getattr(by_point, "delta", 1.0), scale)


def _compiled_optimizer(optimizer: optim.Optimizer, layer: nn.Linear) -> Sgd | Adam:
    """Say in the kernels' words how it is trained. Raises ValueError where they have none."""
    group, *more = optimizer.param_groups
    plain = is_plain(optimizer) and not any(hooks_of(optimizer)) and not more and not any(map(group.get, SWITCHES))
    plain = plain and set(group["params"]) == set(layer.parameters())
    if type(optimizer) is optim.SGD and plain:
        return Sgd(group["dampening"], group["weight_decay"], group["nesterov"])
    if type(optimizer) in (optim.Adam, optim.AdamW) and plain:
        decoupled = group["decoupled_weight_decay"]
        return Adam(group["betas"][1], group["eps"], group["weight_decay"], group["amsgrad"], decoupled)
    raise ValueError(
        "trains by the optimizers sgd, adam and adamw, all parameters alike, without hooks; use engine: auto"
    )


class _Shared:
    """A parameter whose moments the kernels and the optimizer's state have in common: `arrays` are the kernels'."""

    def __init__(self, parameter: nn.Parameter, optimizer: optim.Optimizer, kind: Sgd | Adam) -> None:
        self.names, self.arrays = moment_names(kind), fresh(parameter.detach().numpy(), kind)
        kept = isinstance(kind, Adam) or optimizer.param_groups[0]["momentum"] > 0
        self.state = optimizer.state[parameter] if kept else {}
        for moments, name in zip(self.arrays.moments, self.names, strict=True):
            if self.state.get(name) is not None:
                moments[...] = self.state[name].numpy()
        # SGD counts no steps; what matters of it is whether its buffer has begun
        self.steps = int(self.state["step"].item()) if "step" in self.state else len(self.state)

    def step(self, n_steps: int) -> None:
        """Say in the optimizer's state that so many steps were taken."""
        self.steps += n_steps
        if "exp_avg" in self.names:
            self.state["step"] = torch.tensor(float(self.steps))
        self.state.update(zip(self.names, map(torch.from_numpy, self.arrays.moments), strict=True))


def _plan(group: dict[str, Any], after_step: Callable[[], None] | None, n_steps: int) -> tuple[Any, Any]:
    """Give the learning rate and the momentum (of Adam: the first beta), of each step where a scheduler moves them."""

    def now() -> tuple[float, float]:
        return group["lr"], group["betas"][0] if "betas" in group else group["momentum"]

    if after_step is None:
        return now()
    planned = []
    for _ in range(n_steps):
        planned.append(now())
        after_step()
    return tuple(np.array(planned).T)


def _begin(
    loader: TensorLoader, after: int, run: Callable[[Rows, NDArray[np.int64]], NDArray[np.float64]]
) -> Callable[[int], list[float]]:
    """Begin a pass; give the function that runs its next batches. run: takes points, and the places in them of the rows
    of some batches, and gives the losses of these."""
    rows, done = loader.begin(), after * loader.batch_size

    def run_batches(n_batches: int) -> list[float]:
        nonlocal done
        first, done = done, min(done + n_batches * loader.batch_size, len(loader.indices))
        chunk = _points(loader, rows(first, done))
        return [loss for points, places in chunk for loss in run(points, places).tolist()]

    return run_batches


def _points(loader: TensorLoader, rows: torch.Tensor) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """Give the points that have the rows of some batches, all at once where they are at hand, and the places there."""
    dataset = loader.dataset
    if isinstance(dataset, CustomDataset):
        weight = None if dataset.weight is None else dataset.weight.numpy()
        yield Rows(dataset.x.numpy(), dataset.y.numpy(), weight), rows.numpy().astype(np.int64)
        return
    for some in torch.split(rows, loader.rows_at_once):
        yield Rows(*(part.numpy() for part in dataset.rows(some))), np.arange(len(some))
