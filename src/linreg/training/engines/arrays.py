"""Many steps of a linear model in one compiled call: plain arrays in, changed in place.

A chunk is so many batches as the caller likes: between two calls everything is in the arrays handed in, so a run cut
into other chunks gives the same bits. A step is the textbook's (mean loss, its gradient, torch's update), computed in
float64 whatever the arrays hold; parameters and moments are rounded to their type after each step.

How near that is to the textbook engine, with eps that of the type (2^-23 or 2^-52): a step is the textbook's taken in
float64 and rounded, to a unit in the last place. n steps of a stable run agree with the textbook's in the same type
within n eps of the largest parameter, or of 1 (measured over some 250 steps: 4 eps with SGD, 80 eps with Adam), losses
likewise. A point of mae whose error is 0 to within rounding can get the other sign. On another kind of processor, or
with another version of numba, the last bits may be others.
"""

from collections.abc import Callable
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linreg.errors import StorageError, UsageError

Array = NDArray[Any]  # float32 or float64, C-contiguous, the same type in all arrays of a call
Order = NDArray[np.int64]
Losses = NDArray[np.float64]
LossKind = Literal["mse", "mae", "huber"]


class Rows(NamedTuple):
    """Points: x (N, n_features), y (N, n_targets) and, where they are weighted, weight (N, 1)."""

    x: Array
    y: Array
    weight: Array | None = None


class Loss(NamedTuple):
    """A mean loss as torch's MSELoss, L1Loss or HuberLoss gives it, or with weights the mean of weight times loss.

    scale (n_targets,), float64: what the errors are multiplied with in the loss that is told, for one in the units of
    targets that were standardised; the loss that is minimised is that of the errors as they are.
    """

    kind: LossKind
    delta: float = 1.0
    scale: NDArray[np.float64] | None = None


class Sgd(NamedTuple):
    """torch.optim.SGD without lr and momentum, which are given step by step."""

    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False


class Adam(NamedTuple):
    """torch.optim.Adam, or with decoupled=True AdamW, without lr and the first beta, which are given step by step."""

    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    decoupled: bool = False


class Parameter(NamedTuple):
    """A parameter and its moments (n_moments, *value.shape), in the order of `moment_names`: both changed in place."""

    value: Array
    moments: Array


TrainChunkFn = Callable[..., Losses]  # of order, and by name lr, momentum and steps_done
ValChunkFn = Callable[[Order], Losses]


def load_kernels() -> ModuleType:
    """Import numba and the kernels made with it. Raises UsageError where numba cannot be imported."""
    try:
        import numba  # noqa: F401  # half a second, for those alone who ask for it
    except ImportError as error:  # not installed, or not made for the numpy that is
        what = f"the compiled engine needs numba, met {str(error)!r}"
        raise UsageError(f"{what}; pip install 'linreg[compiled]', or leave engine out") from None
    from linreg.training.engines import kernels

    return kernels


def moment_names(optimizer: Sgd | Adam) -> tuple[str, ...]:
    """Name a parameter's moments as torch does in an optimizer's state."""
    if isinstance(optimizer, Sgd):
        return ("momentum_buffer",)
    return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if optimizer.amsgrad else ("exp_avg", "exp_avg_sq")


def fresh(value: Array, optimizer: Sgd | Adam) -> Parameter:
    """Give a parameter the moments of one that no step was taken with."""
    return Parameter(value, np.zeros((len(moment_names(optimizer)), *value.shape), value.dtype))


def make_train_chunk_fn(
    rows: Rows, weight: Parameter, bias: Parameter | None, *, loss: Loss, optimizer: Sgd | Adam, batch_size: int
) -> TrainChunkFn:
    """Make the function that takes the steps of a chunk: yhat = x weight' + bias, with weight (n_targets, n_features)
    and bias (n_targets,) or None, both changed in place.

    It takes order, the rows of the chunk's batches, batch_size at a time, of which the last may be short; by name lr
    and momentum (of Adam: the first beta), numbers or one for each step, momentum being 0 in all of a run or never; and
    steps_done, how many steps of the run came before. It returns the loss of each batch before its step, rounded to the
    type of x unless it is scaled. Raises ValueError for arrays that do not fit, IndexError for a row that is not there,
    UsageError without numba.
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
        _call(run, *common(order), w_moments, b_moments, steps_done, lrs, momenta, *constants, losses)
        return _told(losses, loss, rows)

    return train_chunk


def make_val_chunk_fn(rows: Rows, weight: Array, bias: Array | None, *, loss: Loss, batch_size: int) -> ValChunkFn:
    """Make the function that takes order, as in training, and returns the loss of each batch; nothing is changed."""
    kernels = load_kernels()
    common = _arguments(kernels, rows, weight, bias, loss, batch_size)

    def val_chunk(order: Order) -> Losses:
        losses = np.empty(-(-len(order) // batch_size))
        _call(kernels.val_chunk, *common(order), losses)
        return _told(losses, loss, rows)

    return val_chunk


def _call(kernel: Any, *arguments: Any) -> None:
    """Call a kernel; at its first call numba reads the machine code that it kept. Raises StorageError for one that is
    damaged."""
    try:
        kernel(*arguments)
    except (EOFError, UnpicklingError) as error:
        folder = kernel.stats.cache_path
        raise StorageError(f"{folder}: numba's compiled code is damaged: {error}; remove its *.nbi and *.nbc") from None


def _arguments(
    kernels: ModuleType, rows: Rows, weight: Array, bias: Array | None, loss: Loss, batch_size: int
) -> Callable[[Order], tuple[Any, ...]]:
    """Check what all kernels take first, and make the function that puts an order among it. What is left out becomes an
    array of length 0, so that there is one compiled function for all that may be."""
    (n_rows, n_features), dtype = rows.x.shape, rows.x.dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"x is {dtype}; it must be float32 or float64")
    n_targets = rows.y.shape[1]
    _check("x", rows.x, (n_rows, n_features), dtype)
    _check("y", rows.y, (n_rows, n_targets), dtype)
    _check("weight", weight, (n_targets, n_features), dtype)
    point_weight = np.empty((0, 1), dtype)
    if rows.weight is not None:
        _check("the points' weight", rows.weight, (n_rows, 1), dtype)
        point_weight = rows.weight
    if bias is None:
        bias = np.empty(0, dtype)
    else:
        _check("bias", bias, (n_targets,), dtype)
    scale = np.ones(n_targets) if loss.scale is None else loss.scale
    _check("scale", scale, (n_targets,), np.float64)
    kind = {"mse": kernels.MSE, "mae": kernels.MAE, "huber": kernels.HUBER}[loss.kind]

    def arguments(order: Order) -> tuple[Any, ...]:
        _check("order", order, (len(order),), np.int64)
        return (
            rows.x, rows.y, point_weight, order, batch_size, kind, float(loss.delta), scale, weight, bias,
        )  # fmt: skip

    return arguments


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse what a kernel would read past: it checks no shapes."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else ", not contiguous"
        raise ValueError(f"{name} is {array.shape} {array.dtype}{layout}; it must be {shape} {np.dtype(dtype)}")


def _told(losses: Losses, loss: Loss, rows: Rows) -> Losses:
    """Round losses to the type of the points, as torch does, unless they are scaled; what is too large is infinite."""
    if loss.scale is not None:
        return losses
    with np.errstate(over="ignore"):
        return losses.astype(rows.x.dtype).astype(np.float64)
