"""Many steps of a linear model in one compiled call on NumPy arrays. The engine `compiled` uses them.

A call takes a chunk of any number of batches and changes the arrays in place. No other state exists, so the bits do not
depend on how a run is cut into chunks. A step is the textbook's (mean loss, its gradient, torch's update), computed in
float64 for any type of the arrays. Parameters and moments are rounded to their type after each step.

Accuracy, with eps that of the type (2^-23 or 2^-52): one step equals the textbook's step in float64, rounded, to a unit
in the last place. After n steps of a stable run, parameters and losses agree with the textbook's in the same type
within n eps times the largest parameter, or 1 (measured over some 250 steps: 4 eps with SGD, 80 eps with Adam). With
mae, an error that is 0 up to rounding can get the other sign. The last bits may differ between processors and between
versions of numba.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linreg.errors import StorageError, UsageError

log = logging.getLogger("linreg")

Array = NDArray[Any]  # float32 or float64, C-contiguous; all arrays of a call have the same type
Order = NDArray[np.int64]
Losses = NDArray[np.float64]
LossKind = Literal["mse", "mae", "huber"]


class Rows(NamedTuple):
    """Points: x (N, n_features), y (N, n_targets) and optional weights (N, 1)."""

    x: Array
    y: Array
    weight: Array | None = None


class Loss(NamedTuple):
    """A mean loss as torch's MSELoss, L1Loss or HuberLoss; with weights the mean of weight times loss.

    scale (n_targets,), float64: factors of the errors in the reported loss, which undo the standardisation of targets.
    The minimised loss is that of the unscaled errors.
    """

    kind: LossKind
    delta: float = 1.0
    scale: NDArray[np.float64] | None = None


class Sgd(NamedTuple):
    """The settings of torch.optim.SGD, without lr and momentum, which may change at each step."""

    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False


class Adam(NamedTuple):
    """The settings of torch.optim.Adam, or AdamW (decoupled=True), without lr and the first beta, which may change."""

    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    decoupled: bool = False


class Rmsprop(NamedTuple):
    """The settings of torch.optim.RMSprop, without lr, which may change."""

    alpha: float
    eps: float
    weight_decay: float
    momentum: float
    centered: bool


class Adagrad(NamedTuple):
    """The settings of torch.optim.Adagrad, without lr, which may change."""

    lr_decay: float
    eps: float
    weight_decay: float


class Parameter(NamedTuple):
    """A parameter and its moments (n_moments, *value.shape) in the order of `moment_names`; steps change both."""

    value: Array
    moments: Array


TrainChunkFn = Callable[..., Losses]  # takes order, and as keywords lr, momentum and steps_done
ValChunkFn = Callable[[Order], Losses]


def load_kernels() -> ModuleType:
    """Import numba and the kernels. Raises UsageError if numba cannot be imported."""
    try:
        import numba  # noqa: F401  # takes half a second, so only if used
    except ImportError as error:  # missing, or incompatible with the installed numpy
        problem = f"the compiled engine needs numba, got {str(error)!r}"
        raise UsageError(f"{problem}; pip install 'linreg[compiled]', or remove engine") from None
    from linreg.training.engines import kernels

    return kernels


def moment_names(optimizer: Sgd | Adam | Rmsprop | Adagrad) -> tuple[str, ...]:
    """Return the names of a parameter's moments in the state of torch's optimizer."""
    if isinstance(optimizer, Sgd):
        return ("momentum_buffer",)
    if isinstance(optimizer, Adagrad):
        return ("sum",)
    if isinstance(optimizer, Rmsprop):
        others = {"momentum_buffer": optimizer.momentum > 0, "grad_avg": optimizer.centered}
        return ("square_avg", *(name for name, is_kept in others.items() if is_kept))
    return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if optimizer.amsgrad else ("exp_avg", "exp_avg_sq")


def with_zero_moments(value: Array, optimizer: Sgd | Adam) -> Parameter:
    """Return a parameter with its moments before the first step."""
    return Parameter(value, np.zeros((len(moment_names(optimizer)), *value.shape), value.dtype))


def make_train_chunk_fn(
    rows: Rows, weight: Parameter, bias: Parameter | None, *, loss: Loss, optimizer: Sgd | Adam, batch_size: int
) -> TrainChunkFn:
    """Make the function that takes the steps of a chunk for the model yhat = x weight' + bias.

    It changes weight (n_targets, n_features) and bias (n_targets,) in place. Its arguments:
    order: row numbers, batch after batch; each batch has batch_size rows, the last one may have fewer.
    lr, momentum (for Adam the first beta): a number, or one for each step. Momentum is 0 in all of a run or never.
    steps_done: the number of earlier steps in the run.
    It returns the loss of each batch before its step, rounded to the type of x unless it is scaled.

    Raises ValueError for arrays of other shapes or types, IndexError for a row number out of range, and UsageError
    without numba.
    """
    kernels = load_kernels()
    common = _arguments(kernels, rows, weight.value, None if bias is None else bias.value, loss, batch_size)
    names = moment_names(optimizer)
    parameters = [weight] if bias is None else [weight, bias]
    for parameter in parameters:
        _check("moments", parameter.moments, (len(names), *parameter.value.shape), rows.x.dtype)
    w_moments = weight.moments.reshape(len(names), -1)
    b_moments = np.empty((len(names), 0), rows.x.dtype) if bias is None else bias.moments
    if isinstance(optimizer, Sgd):
        run, constants = kernels.sgd_chunk, (*map(float, optimizer[:2]), optimizer.nesterov)
    else:
        run = kernels.adam_chunk
        constants = (*map(float, optimizer[:3]), optimizer.decoupled, optimizer.amsgrad)

    def train_chunk(order: Order, *, lr: float | Array, momentum: float | Array, steps_done: int) -> Losses:
        n_steps = -(-len(order) // batch_size)
        losses, lrs, momenta = np.empty((3, n_steps))
        lrs[:], momenta[:] = lr, momentum
        call_kernel(run, order, *common, w_moments, b_moments, steps_done, lrs, momenta, *constants, losses)
        return reported_losses(losses, loss, rows)

    return train_chunk


def make_val_chunk_fn(rows: Rows, weight: Array, bias: Array | None, *, loss: Loss, batch_size: int) -> ValChunkFn:
    """Make the function that takes order, as in training, and returns the loss of each batch, without any change."""
    kernels = load_kernels()
    common = _arguments(kernels, rows, weight, bias, loss, batch_size)

    def val_chunk(order: Order) -> Losses:
        losses = np.empty(-(-len(order) // batch_size))
        call_kernel(kernels.val_chunk, order, *common, losses)
        return reported_losses(losses, loss, rows)

    return val_chunk


def call_kernel(kernel: Any, order: Order, *arguments: Any) -> None:
    """Call a kernel. Raises StorageError if its machine code in numba's cache is damaged."""
    _check("order", order, (len(order),), np.int64)
    if not kernel.signatures:
        _announce(kernel)
    try:
        kernel(order, *arguments)
    except (EOFError, UnpicklingError) as error:
        folder = kernel.stats.cache_path
        raise StorageError(f"{folder}: numba's compiled code is damaged: {error}; remove its *.nbi and *.nbc") from None


def _announce(kernel: Any) -> None:
    """Log that a kernel is compiled, if it is not in numba's cache."""
    function = kernel.py_func
    names = f"{function.__module__.rpartition('.')[2]}.{function.__name__}-*.nbi"
    if not any(Path(kernel.stats.cache_path or "").glob(names)):
        log.info("compiling the steps of the engine, once on this machine")


def _arguments(
    kernels: ModuleType, rows: Rows, weight: Array, bias: Array | None, loss: Loss, batch_size: int
) -> tuple[Any, ...]:
    """Check and return the leading arguments of the kernels of a linear model, which follow order."""
    points = point_arguments(kernels, rows, loss, batch_size)
    n_targets, dtype = rows.y.shape[1], rows.x.dtype
    _check("weight", weight, (n_targets, rows.x.shape[1]), dtype)
    if bias is None:
        bias = np.empty(0, dtype)
    else:
        _check("bias", bias, (n_targets,), dtype)
    return *points, weight, bias


def point_arguments(kernels: ModuleType, rows: Rows, loss: Loss, batch_size: int) -> tuple[Any, ...]:
    """Check and return the arguments of all kernels that describe the points and the loss, which follow order.

    A missing array becomes one of length 0, so that one compiled function serves all cases."""
    (n_rows, n_features), dtype = rows.x.shape, rows.x.dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"x is {dtype}; it must be float32 or float64")
    n_targets = rows.y.shape[1]
    _check("x", rows.x, (n_rows, n_features), dtype)
    _check("y", rows.y, (n_rows, n_targets), dtype)
    point_weight = np.empty((0, 1), dtype)
    if rows.weight is not None:
        _check("the points' weight", rows.weight, (n_rows, 1), dtype)
        point_weight = rows.weight
    scale = np.ones(n_targets) if loss.scale is None else loss.scale
    _check("scale", scale, (n_targets,), np.float64)
    kind = {"mse": kernels.MSE, "mae": kernels.MAE, "huber": kernels.HUBER}[loss.kind]
    return rows.x, rows.y, point_weight, batch_size, kind, float(loss.delta), scale


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError for an unexpected shape, type or layout: kernels check none and would read out of bounds."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else ", not contiguous"
        raise ValueError(f"{name} is {array.shape} {array.dtype}{layout}; it must be {shape} {np.dtype(dtype)}")


def reported_losses(losses: Losses, loss: Loss, rows: Rows) -> Losses:
    """Round losses to the type of the points, as torch does, unless they are scaled. Too large ones become infinite."""
    if loss.scale is not None:
        return losses
    with np.errstate(over="ignore"):
        return losses.astype(rows.x.dtype).astype(np.float64)
