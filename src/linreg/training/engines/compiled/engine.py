"""The engine `compiled`: it translates torch's objects to arrays, and back."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn, optim

from linreg.components.losses import InTargetUnits, Weighted
from linreg.data.dataset import CustomDataset
from linreg.data.loaders import TensorLoader, make_tensor_loaders
from linreg.training.engines.compiled.arrays import (
    MOST_ROWS,
    Adagrad,
    Adam,
    Linear,
    Loss,
    Mlp,
    Optimizer,
    Part,
    Problem,
    Rmsprop,
    Rows,
    Sgd,
    State,
    load_functions,
    make_problem,
    mean_in_order,
    moment_names,
    run_epochs,
    train_steps,
    val_losses,
)
from linreg.training.engines.layers import Split, make_needs_autograd_fn, split_model
from linreg.training.engines.training import Engine, Training
from linreg.training.engines.updates import mark_as_stepped, plain_group
from linreg.training.loops import EpochLosses, Group, GroupFn, make_epoch_fn

_ACTIVATIONS = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
)  # in the order of the numbers in `mlp`


def make_compiled_engine(training: Training) -> Engine:
    """Make the engine that runs the steps of a linear model or a multilayer perceptron in compiled code: a chunk of
    steps, or many short epochs, in one call.

    Raises UsageError without numba, and ValueError for a model, loss or optimizer without compiled code."""
    linears, model = _compiled_model(training)
    loss = _compiled_loss(training)
    parameters = [parameter for linear in linears for parameter in linear.parameters()]
    _compiled_optimizer(training.optimizer, parameters)
    load_functions()
    train_loader, val_loader = make_tensor_loaders(training.loaders, training.device)
    mark_as_stepped(training.optimizer)

    def problem_of(points: Rows) -> Problem:
        optimizer = _compiled_optimizer(training.optimizer, parameters)  # each time: a checkpoint changes its settings
        return make_problem(points, model, loss, optimizer, clip_grad_norm=training.clip_grad_norm)

    def begin_training(n_done: int) -> Callable[[int], list[float]]:
        flat = _Flat(parameters, training.optimizer)

        def train(points: Rows, places: NDArray[np.int64]) -> NDArray[np.float64]:
            n_steps, size = math.ceil(len(places) / train_loader.batch_size), train_loader.batch_size
            rates = _rates(training, n_steps)
            losses = train_steps(
                problem_of(points), flat.p, flat.moments, places, batch_size=size, rates=rates, steps_done=flat.steps
            )
            flat.store(n_steps)
            return losses

        return _begin_chunks(train_loader, n_done, train)

    def begin_validation(loader: TensorLoader, n_done: int) -> Callable[[int], list[float]]:
        p, size = _joined(parameters), loader.batch_size
        return _begin_chunks(
            loader, n_done, lambda points, places: val_losses(problem_of(points), p, places, batch_size=size)
        )

    train_epoch = make_epoch_fn(len(train_loader), begin_training, mean_in_order)
    val_epoch = None
    if val_loader is not None:
        val_epoch = make_epoch_fn(len(val_loader), partial(begin_validation, val_loader), mean_in_order)
    group = _make_group_fn(training, train_loader, val_loader, parameters, problem_of)
    return Engine("compiled", train_epoch, val_epoch, group)


def _make_group_fn(
    training: Training,
    train_loader: TensorLoader,
    val_loader: TensorLoader | None,
    parameters: Sequence[nn.Parameter],
    problem_of: Callable[[Rows], Problem],
) -> GroupFn | None:
    """Make the function that runs many epochs in one call; None if that is not possible."""
    dataset, generator = train_loader.dataset, train_loader.generator
    if not isinstance(dataset, CustomDataset) or train_loader.n_rows > MOST_ROWS:
        return None
    points = _rows_of(dataset)

    @cache
    def parts() -> tuple[Part, Part | None]:  # at the first call, which needs short epochs: they take memory
        return _part(train_loader), None if val_loader is None else _part(val_loader)

    def group(first: int, n_epochs: int, lowest: float) -> Group:
        flat = _Flat(parameters, training.optimizer)
        last = State(flat.p, flat.moments, generator.get_state().numpy().view(np.uint64))
        best = State(*(array.copy() for array in last))
        rates = _rates(training, n_epochs * len(train_loader))
        done = run_epochs(
            problem_of(points), last, *parts(), rates=rates, steps_done=flat.steps, n_epochs=n_epochs, lowest=lowest,
            best=best,
        )  # fmt: skip
        steps_done = flat.steps

        def load(state: State, n_done: int) -> None:
            flat.p, flat.moments, flat.steps = state.p, state.moments, steps_done
            flat.store(n_done * len(train_loader))
            generator.set_state(torch.from_numpy(state.generator.view(np.uint8)))

        @contextmanager
        def at_best() -> Iterator[None]:
            assert done.best is not None
            load(best, done.best + 1)
            try:
                yield
            finally:
                load(last, len(done.means))

        load(last, len(done.means))
        losses = [
            EpochLosses(first + number, loss, None if val_loader is None else val_loss)
            for number, (loss, val_loss) in enumerate(done.means.tolist())
        ]
        best_epoch = None if done.best is None else first + done.best
        return Group(losses, best_epoch, done.losses[-1].tolist(), at_best)

    return group


def _part(loader: TensorLoader) -> Part:
    rows = loader.indices.numpy().astype(np.int64)
    return Part(rows, rows.copy(), loader.batch_size, loader.shuffle)


def _compiled_model(training: Training) -> tuple[list[nn.Linear], Linear | Mlp]:
    """Return the linear layers, and the model as the compiled functions take it. Raises ValueError for one without
    compiled code."""
    basis, modules = split_model(training.model) or Split([], [])
    needs_autograd = make_needs_autograd_fn([training.model, *modules])
    if not modules or basis or needs_autograd() or training.device.type != "cpu":
        raise ValueError(
            "supports only the models linear and mlp, without dropout and hooks, on the CPU; use engine: auto"
        )
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    if len(modules) == 1:
        return linears, Linear(linears[0].bias is not None)
    activations = modules[1::2]
    kinds = {type(module) for module in activations}
    slopes = {getattr(module, "negative_slope", getattr(module, "alpha", 0.0)) for module in activations}
    is_alike = len(kinds) == len(slopes) == 1 and kinds.issubset(_ACTIVATIONS) and len(activations) == len(linears) - 1
    is_exact = all(getattr(module, "approximate", "none") == "none" for module in activations)
    if not is_alike or not is_exact or any(linear.bias is None for linear in linears):
        raise ValueError(
            "supports only linear layers with a bias, and with the same activation between them; use engine: auto"
        )
    widths = np.array([linears[0].in_features, *(linear.out_features for linear in linears)])
    return linears, Mlp(widths, _ACTIVATIONS.index(kinds.pop()), float(slopes.pop()))


def _compiled_loss(training: Training) -> Loss:
    """Return the loss as the compiled functions take it. Raises ValueError for one without compiled code."""
    loss_fn, reported = training.loss_fn, training.reported_loss_fn
    if reported is not None and not isinstance(reported, InTargetUnits):
        raise ValueError("does not support target_transform; use engine: auto")
    scale = reported.scale.numpy() if isinstance(reported, InTargetUnits) else None
    by_point = loss_fn.by_point if isinstance(loss_fn, Weighted) else loss_fn
    kinds: dict[type, Any] = {nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber"}
    if type(by_point) not in kinds or (by_point is loss_fn and getattr(loss_fn, "reduction", "") != "mean"):
        raise ValueError("supports only the losses mse, mae and huber; use engine: auto")
    return Loss(kinds[type(by_point)], getattr(by_point, "delta", 1.0), scale)


def _compiled_optimizer(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> Optimizer:
    """Return the optimizer as the compiled functions take it. Raises ValueError for one without compiled code."""
    group = plain_group(optimizer)
    if group is not None and set(group["params"]) == set(parameters):
        kinds: dict[type, type[Optimizer]] = {optim.SGD: Sgd, optim.RMSprop: Rmsprop, optim.Adagrad: Adagrad}
        if type(optimizer) in kinds:
            kind = kinds[type(optimizer)]
            return kind(*(group[name] for name in kind._fields))
        if type(optimizer) in (optim.Adam, optim.AdamW):
            decoupled = group["decoupled_weight_decay"]
            return Adam(group["betas"][1], group["eps"], group["weight_decay"], decoupled, group["amsgrad"])
    raise ValueError(
        "supports only the optimizers sgd, adam, adamw, rmsprop and adagrad, with one parameter group and without "
        "hooks; use engine: auto"
    )


def _rates(training: Training, n_steps: int) -> NDArray[np.float64]:
    """Return the learning rate and the momentum (for Adam the first beta): (2, 1), or with a scheduler (2, n_steps)."""
    group, after_step = training.optimizer.param_groups[0], training.after_step

    def now() -> tuple[float, float]:
        return group["lr"], group["betas"][0] if "betas" in group else group.get("momentum", 0.0)

    if after_step is None:
        return np.array([now()], np.float64).T.copy()
    rates = []
    for _ in range(n_steps):
        rates.append(now())
        after_step()
    return np.array(rates, np.float64).T.copy()


class _Flat:
    """Parameters and their moments as flat arrays, which are copies. steps: the number of earlier steps."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: optim.Optimizer) -> None:
        self.parameters, self.state = parameters, optimizer.state
        kind = _compiled_optimizer(optimizer, parameters)
        self.counts = not isinstance(kind, Sgd)
        has_moments = self.counts or optimizer.param_groups[0]["momentum"] > 0
        self.names = moment_names(kind) if has_moments else ()
        self.p = _joined(parameters)
        self.moments = np.zeros((max(1, len(self.names)), len(self.p)), self.p.dtype)
        states = [self.state[parameter] if has_moments else {} for parameter in parameters]
        for number, name in enumerate(self.names):
            if all(state.get(name) is not None for state in states):
                self.moments[number] = _joined([state[name] for state in states])
        first = states[0]
        # SGD counts no steps; its compiled code needs to know only whether the buffer exists
        self.steps = int(first["step"].item()) if "step" in first else len(first)

    def store(self, n_steps: int) -> None:
        """Copy the values after n_steps to the parameters and the optimizer's state."""
        self.steps += n_steps
        ends = np.cumsum([parameter.numel() for parameter in self.parameters]).tolist()
        for parameter, end in zip(self.parameters, ends, strict=True):
            place = slice(end - parameter.numel(), end)
            parameter.detach().numpy().reshape(-1)[:] = self.p[place]
            if self.names:
                state = self.state[parameter]
                if self.counts:
                    state["step"] = torch.tensor(float(self.steps))
                for name, moments in zip(self.names, self.moments, strict=True):
                    if state.get(name) is None:
                        state[name] = torch.zeros_like(parameter)
                    state[name].numpy().reshape(-1)[:] = moments[place]


def _joined(tensors: Sequence[torch.Tensor]) -> NDArray[Any]:
    return np.concatenate([tensor.detach().numpy().reshape(-1) for tensor in tensors])


def _begin_chunks(
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
        yield _rows_of(dataset), rows.numpy().astype(np.int64)
        return
    for part in torch.split(rows, loader.rows_at_once):
        yield Rows(*(tensor.numpy() for tensor in dataset.rows(part))), np.arange(len(part))


def _rows_of(dataset: CustomDataset) -> Rows:
    weight = None if dataset.weight is None else dataset.weight.numpy()
    return Rows(dataset.x.numpy(), dataset.y.numpy(), weight)
