"""The engine `compiled` for a multilayer perceptron: it translates torch's objects to flat arrays for `mlp_kernels`.

Accuracy: in float64 a gradient is autograd's within 1e-12 of its largest element. In the type of the network, sums are
in another order than torch's, so losses and parameters agree with the textbook's within some n eps after n steps.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn, optim

from linreg.data.loaders import TensorLoader, make_tensor_loaders
from linreg.training.engines.arrays import (
    Adagrad,
    Adam,
    Rmsprop,
    Rows,
    Sgd,
    call_kernel,
    load_kernels,
    moment_names,
    point_arguments,
    reported_losses,
)
from linreg.training.engines.compiled import begin_chunks, compiled_loss, compiled_optimizer, rates
from linreg.training.engines.layers import make_needs_autograd_fn
from linreg.training.engines.training import Engine, Training
from linreg.training.engines.updates import mark_as_stepped, plain_group
from linreg.training.loops import make_epoch_fn

Settings = Sgd | Adam | Rmsprop | Adagrad

_ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU)  # in the order of the kernels


def make_mlp_engine(training: Training, layers: Sequence[nn.Module]) -> Engine:
    """Make the engine for linear layers with the same activation between them.

    Raises UsageError without numba, and ValueError for a model, loss or optimizer without compiled code."""
    kind, slope = _activation(layers[1::2])
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if make_needs_autograd_fn([training.model, *layers])() or any(layer.bias is None for layer in linears):
        raise ValueError("supports only layers with a bias and without hooks; use engine: auto")
    loss = compiled_loss(training)
    parameters = [parameter for layer in linears for parameter in layer.parameters()]
    _optimizer(training.optimizer, parameters)
    linear_kernels = load_kernels()
    from linreg.training.engines import mlp_kernels as kernels

    widths = np.array([linears[0].in_features, *(layer.out_features for layer in linears)])
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    mark_as_stepped(training.optimizer)

    def run(kernel: Any, points: Rows, places: NDArray[np.int64], size: int, *arguments: Any) -> NDArray[np.float64]:
        losses = np.empty(math.ceil(len(places) / size))
        common = point_arguments(linear_kernels, points, loss, size)
        call_kernel(kernel, places, *common, widths, *arguments, losses)
        return reported_losses(losses, loss, points)

    def begin_training(n_done: int) -> Callable[[int], list[float]]:
        # again: loading a checkpoint changes its settings
        optimizer = _optimizer(training.optimizer, parameters)
        group, flat = training.optimizer.param_groups[0], _Flat(parameters, training.optimizer, optimizer)
        kernel, constants = _kernel_of(optimizer)

        def train(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            n_steps = math.ceil(len(places) / train_loader.batch_size)
            lr, momentum = (np.full(n_steps, v, np.float64) for v in rates(group, training.after_step, n_steps))
            most = float(training.clip_grad_norm or 0.0)
            settings = (kind, slope, most, flat.steps, lr, momentum, *constants)
            losses = run(kernel, points, places, train_loader.batch_size, flat.values, flat.moments, *settings)
            flat.store(n_steps)
            return losses

        return begin_chunks(train_loader, n_done, train)

    def begin_validation(loader: TensorLoader, n_done: int) -> Callable[[int], list[float]]:
        values = _joined([parameter.detach().numpy() for parameter in parameters])
        settings = (loader.batch_size, values, kind, slope)
        return begin_chunks(
            loader, n_done, lambda points, places: run(kernels.mlp_val_chunk, points, places, *settings)
        )

    train_epoch = make_epoch_fn(len(train_loader), begin_training)
    if val_loader is None:
        return Engine("compiled", train_epoch, None)
    return Engine("compiled", train_epoch, make_epoch_fn(len(val_loader), partial(begin_validation, val_loader)))


def _activation(modules: Sequence[nn.Module]) -> tuple[int, float]:
    """Return the kind of the activations and its slope. Raises ValueError unless they are all alike."""
    kinds = {type(module) for module in modules}
    slopes = {getattr(module, "negative_slope", getattr(module, "alpha", 0.0)) for module in modules}
    exact = all(getattr(module, "approximate", "none") == "none" for module in modules)
    if len(kinds) > 1 or len(slopes) > 1 or not exact or not kinds.issubset(_ACTIVATIONS):
        raise ValueError("supports only linear layers with the same activation between them; use engine: auto")
    return _ACTIVATIONS.index(kinds.pop()), float(slopes.pop())


def _optimizer(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> Settings:
    """Return the optimizer as the kernels take it. Raises ValueError for one without a kernel."""
    group = plain_group(optimizer)
    if group is not None and set(group["params"]) == set(parameters):
        if type(optimizer) is optim.RMSprop:
            return Rmsprop(*(group[name] for name in Rmsprop._fields))
        if type(optimizer) is optim.Adagrad:
            return Adagrad(*(group[name] for name in Adagrad._fields))
    return compiled_optimizer(optimizer, parameters)


def _kernel_of(optimizer: Settings) -> tuple[Any, tuple[Any, ...]]:
    """Return the kernel of an optimizer, and its settings that do not change."""
    from linreg.training.engines import mlp_kernels as kernels

    if isinstance(optimizer, Sgd):
        return kernels.mlp_sgd_chunk, (*map(float, optimizer[:2]), optimizer.nesterov)
    if isinstance(optimizer, Rmsprop):
        return kernels.mlp_rmsprop_chunk, (*map(float, optimizer[:4]), optimizer.centered)
    if isinstance(optimizer, Adagrad):
        return kernels.mlp_adagrad_chunk, tuple(map(float, optimizer))
    return kernels.mlp_adam_chunk, (*map(float, optimizer[:3]), optimizer.decoupled, optimizer.amsgrad)


class _Flat:
    """Parameters and their moments as flat arrays, which are copies. steps: the number of earlier steps."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: optim.Optimizer, kind: Settings) -> None:
        self.parameters, self.state = parameters, optimizer.state
        self.counts = not isinstance(kind, Sgd)
        has_moments = self.counts or optimizer.param_groups[0]["momentum"] > 0
        self.names = moment_names(kind) if has_moments else ()
        self.values = _joined([parameter.detach().numpy() for parameter in parameters])
        self.moments = np.zeros((max(1, len(self.names)), len(self.values)), self.values.dtype)
        states = [self.state[parameter] if has_moments else {} for parameter in parameters]
        for number, name in enumerate(self.names):
            if all(state.get(name) is not None for state in states):
                self.moments[number] = _joined([state[name].numpy() for state in states])
        first = states[0]
        # SGD counts no steps; its kernel needs to know only whether the buffer exists
        self.steps = int(first["step"].item()) if "step" in first else len(first)

    def store(self, n_steps: int) -> None:
        """Copy the values after n_steps to the parameters and the optimizer's state."""
        self.steps += n_steps
        ends = np.cumsum([parameter.numel() for parameter in self.parameters])
        for parameter, end in zip(self.parameters, ends, strict=True):
            place = slice(end - parameter.numel(), end)
            parameter.detach().numpy().reshape(-1)[:] = self.values[place]
            if self.names:
                state = self.state[parameter]
                if self.counts:
                    state["step"] = torch.tensor(float(self.steps))
                for name, moments in zip(self.names, self.moments, strict=True):
                    if state.get(name) is None:
                        state[name] = torch.zeros_like(parameter)
                    state[name].numpy().reshape(-1)[:] = moments[place]


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([array.reshape(-1) for array in arrays])
