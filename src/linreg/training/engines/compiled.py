"""The engine `compiled`, which trains a linear model in compiled code: it translates torch's objects to arrays."""

import math
from collections.abc import Callable, Iterator, Sequence
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
    load_kernels,
    make_train_chunk_fn,
    make_val_chunk_fn,
    moment_names,
    with_zero_moments,
)
from linreg.training.engines.layers import Split, make_needs_autograd_fn, split_model
from linreg.training.engines.training import Engine, Training
from linreg.training.engines.updates import mark_as_stepped, plain_group
from linreg.training.loops import make_epoch_fn


def make_compiled_engine(training: Training) -> Engine:
    """Make the engine that runs the steps of a linear model or a multilayer perceptron in compiled code, a chunk of
    steps in one call.

    Raises UsageError without numba, and ValueError for a model, loss or optimizer without compiled code."""
    split = split_model(training.model)
    if split is not None and len(split.layers) > 1 and not split.basis and training.device.type == "cpu":
        from linreg.training.engines.mlp import make_mlp_engine  # imports this module

        return make_mlp_engine(training, split.layers)
    layer, loss = _compiled_model(training)
    compiled_optimizer(training.optimizer, list(layer.parameters()))
    load_kernels()
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    size = train_loader.batch_size
    mark_as_stepped(training.optimizer)

    def begin_training(n_done: int) -> Callable[[int], list[float]]:
        optimizer = compiled_optimizer(
            training.optimizer, list(layer.parameters())
        )  # again: loading a checkpoint changes its settings
        group = training.optimizer.param_groups[0]
        parameters = [_SharedMoments(parameter, training.optimizer, optimizer) for parameter in layer.parameters()]
        weight, bias = parameters[0].arrays, parameters[1].arrays if len(parameters) > 1 else None

        def train(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            n_steps = math.ceil(len(places) / size)
            lr, momentum = rates(group, training.after_step, n_steps)
            chunk = make_train_chunk_fn(points, weight, bias, loss=loss, optimizer=optimizer, batch_size=size)
            losses = chunk(places, lr=lr, momentum=momentum, steps_done=parameters[0].steps)
            for parameter in parameters:
                parameter.step(n_steps)
            return losses

        return begin_chunks(train_loader, n_done, train)

    def begin_validation(loader: TensorLoader, n_done: int) -> Callable[[int], list[float]]:
        weight, bias = (None if p is None else p.detach().numpy() for p in (layer.weight, layer.bias))

        def validate(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            return make_val_chunk_fn(points, weight, bias, loss=loss, batch_size=loader.batch_size)(places)

        return begin_chunks(loader, n_done, validate)

    train_epoch = make_epoch_fn(len(train_loader), begin_training)
    if val_loader is None:
        return Engine("compiled", train_epoch, None)
    return Engine("compiled", train_epoch, make_epoch_fn(len(val_loader), partial(begin_validation, val_loader)))


def _compiled_model(training: Training) -> tuple[nn.Linear, Loss]:
    """Return the layer, and the loss as the kernels take it. Raises ValueError for one without a kernel."""
    basis, layers = split_model(training.model) or Split([], [])
    needs_autograd = make_needs_autograd_fn([training.model, *layers])
    if len(layers) != 1 or basis or needs_autograd() or training.device.type != "cpu":
        raise ValueError(
            "supports only the models linear and mlp, without dropout and hooks, on the CPU; use engine: auto"
        )
    if training.clip_grad_norm is not None:
        raise ValueError("does not clip gradients of a linear model; remove clip_grad_norm, or use engine: auto")
    (layer,) = layers
    assert isinstance(layer, nn.Linear)
    return layer, compiled_loss(training)


def compiled_loss(training: Training) -> Loss:
    """Return the loss as the kernels take it. Raises ValueError for one without a kernel."""
    loss_fn, reported = training.loss_fn, training.reported_loss_fn
    if reported is not None and not isinstance(reported, InTargetUnits):
        raise ValueError("does not support target_transform; use engine: auto")
    scale = reported.scale.numpy() if isinstance(reported, InTargetUnits) else None
    by_point = loss_fn.by_point if isinstance(loss_fn, Weighted) else loss_fn
    kinds: dict[type, LossKind] = {nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber"}
    if type(by_point) not in kinds or (by_point is loss_fn and getattr(loss_fn, "reduction", "") != "mean"):
        raise ValueError("supports only the losses mse, mae and huber; use engine: auto")
    return Loss(kinds[type(by_point)], getattr(by_point, "delta", 1.0), scale)


def compiled_optimizer(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> Sgd | Adam:
    """Return the optimizer as the kernels take it. Raises ValueError for one without a kernel."""
    group = plain_group(optimizer)
    if group is not None and set(group["params"]) == set(parameters):
        if type(optimizer) is optim.SGD:
            return Sgd(group["dampening"], group["weight_decay"], group["nesterov"])
        if type(optimizer) in (optim.Adam, optim.AdamW):
            decoupled = group["decoupled_weight_decay"]
            return Adam(group["betas"][1], group["eps"], group["weight_decay"], group["amsgrad"], decoupled)
    raise ValueError(
        "supports only the optimizers sgd, adam and adamw, with one parameter group and without hooks; use engine: auto"
    )


class _SharedMoments:
    """A parameter whose moments are shared: the kernels change `arrays`, and the optimizer's state refers to them."""

    def __init__(self, parameter: nn.Parameter, optimizer: optim.Optimizer, kind: Sgd | Adam) -> None:
        self.names, self.arrays = moment_names(kind), with_zero_moments(parameter.detach().numpy(), kind)
        has_moments = isinstance(kind, Adam) or optimizer.param_groups[0]["momentum"] > 0
        self.state = optimizer.state[parameter] if has_moments else {}
        for moments, name in zip(self.arrays.moments, self.names, strict=True):
            if self.state.get(name) is not None:
                moments[...] = self.state[name].numpy()
        # SGD counts no steps; its kernel needs to know only whether the buffer exists
        self.steps = int(self.state["step"].item()) if "step" in self.state else len(self.state)

    def step(self, n_steps: int) -> None:
        """Update the optimizer's state after n_steps."""
        self.steps += n_steps
        if "exp_avg" in self.names:
            self.state["step"] = torch.tensor(float(self.steps))
        self.state.update(zip(self.names, map(torch.from_numpy, self.arrays.moments), strict=True))


def rates(group: dict[str, Any], after_step: Callable[[], None] | None, n_steps: int) -> tuple[Any, Any]:
    """Return the learning rate and the momentum (for Adam the first beta); with a scheduler, one for each step."""

    def now() -> tuple[float, float]:
        return group["lr"], group["betas"][0] if "betas" in group else group.get("momentum", 0.0)

    if after_step is None:
        return now()
    rates = []
    for _ in range(n_steps):
        rates.append(now())
        after_step()
    return tuple(np.array(rates).T)


def begin_chunks(
    loader: TensorLoader, n_done: int, run: Callable[[Rows, NDArray[np.int64]], NDArray[np.float64]]
) -> Callable[[int], list[float]]:
    """Start a pass after n_done batches, and return the function that runs the next n_batches.

    run: takes points and the row numbers of some batches in them, and returns the losses of these batches."""
    rows, stop = loader.begin(), n_done * loader.batch_size

    def run_batches(n_batches: int) -> list[float]:
        nonlocal stop
        start, stop = stop, min(stop + n_batches * loader.batch_size, len(loader.indices))
        chunk = _points(loader, rows(start, stop))
        return [loss for points, places in chunk for loss in run(points, places).tolist()]

    return run_batches


def _points(loader: TensorLoader, rows: torch.Tensor) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """Yield points and the row numbers in them that make up the given rows; all at once if the data is in memory."""
    dataset = loader.dataset
    if isinstance(dataset, CustomDataset):
        weight = None if dataset.weight is None else dataset.weight.numpy()
        yield Rows(dataset.x.numpy(), dataset.y.numpy(), weight), rows.numpy().astype(np.int64)
        return
    for part in torch.split(rows, loader.rows_at_once):
        yield Rows(*(tensor.numpy() for tensor in dataset.rows(part))), np.arange(len(part))
