"""The arguments of the compiled functions: their types, and the calls that check them. `engine` uses this module.

A call runs any number of batches, or of epochs, and changes arrays in place. No other state exists, so the bits do not
depend on how a run is cut into calls. A step is the textbook's (mean loss, its gradient, torch's update).

Accuracy, with eps that of the type (2^-23 or 2^-52): linear models are computed in float64 for any type of the arrays,
so one step equals the textbook's step in float64, rounded, to a unit in the last place. After n steps of a stable run,
parameters and losses agree with the textbook's in the same type within n eps times the largest parameter, or 1
(measured over some 250 steps: 4 eps with SGD, 80 eps with Adam). With mae, an error that is 0 up to rounding can get
the other sign. Multilayer perceptrons are computed in the type of the arrays: in float64 a gradient is autograd's
within 1e-12 of its largest element, and losses and parameters agree with the textbook's within some n eps after n
steps. The last bits may differ between processors and between versions of numba.
"""

import logging
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from linreg.errors import StorageError, UsageError

log = logging.getLogger("linreg")

Array = NDArray[Any]  # float32 or float64, C-contiguous; all arrays of a call have the same type
Order = NDArray[np.int64]
Losses = NDArray[np.float64]

LOSS_KINDS = ("mse", "mae", "huber")  # in the order of the numbers in `losses`


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

    kind: Literal["mse", "mae", "huber"]
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
    decoupled: bool = False
    amsgrad: bool = False


class Rmsprop(NamedTuple):
    """The settings of torch.optim.RMSprop, without lr, which may change."""

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False


class Adagrad(NamedTuple):
    """The settings of torch.optim.Adagrad, without lr, which may change."""

    lr_decay: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0


Optimizer = Sgd | Adam | Rmsprop | Adagrad
_OPTIMIZERS = (Sgd, Adam, Rmsprop, Adagrad)  # in the order of the numbers in `updates`


class Linear(NamedTuple):
    """A linear model, with a bias or not."""

    has_bias: bool = True


class Mlp(NamedTuple):
    """Linear layers with a bias, and the same activation between them. widths (n_layers + 1,): n_features, the hidden
    widths and n_targets; slope: alpha of elu, or the slope of leaky_relu below 0."""

    widths: Order
    activation: int
    slope: float


class State(NamedTuple):
    """What a run changes: all parameters p (n,), of each layer the weight (n_out, n_in) and then the bias; their
    moments (n_moments, n) in the order of `moment_names`; and the state of torch's generator, uint64."""

    p: Array
    moments: Array
    generator: NDArray[np.uint64]


class Part(NamedTuple):
    """A part of the rows, in its order: their numbers `rows`, and `order`, batch after batch, which is drawn anew in
    each epoch if it shuffles. Each batch has batch_size rows, the last one may have fewer."""

    rows: Order
    order: Order
    batch_size: int
    shuffles: bool = False


class Problem(NamedTuple):
    """The arguments of the compiled functions that do not change in a run, from `make_problem`.

    Arrays are not put together: to take one from a tuple in a loop costs more than the arithmetic, because numba counts
    references. Either linear, or widths and activation are None."""

    x: Array
    y: Array
    weight: Array
    loss: Any
    scale: NDArray[np.float64]
    linear: Linear | None
    widths: Order | None
    activation: Any
    update: Any


class _Loss(NamedTuple):
    """A `Loss` for the compiled functions. rounds: whether losses are rounded to the points' type, as torch does."""

    kind: int
    delta: float
    rounds: bool


class _Activation(NamedTuple):
    """The activation of an `Mlp`."""

    kind: int
    slope: float


class _Update(NamedTuple):
    """An optimizer for the compiled functions; most: the longest gradient, or 0 for any."""

    kind: int
    constants: tuple[float, float, float, float, float]
    most: float
    n_moments: int


class Epochs(NamedTuple):
    """The losses of epochs (n_epochs, n_batches), of both parts; their means (n_epochs, 2); the number of the best."""

    losses: Losses
    val_losses: Losses
    means: Losses
    best: int | None


MOST_ROWS = 2**32 // 20 - 1  # that an epoch may shuffle: torch draws larger permutations in another way
_N_STATE = 632  # the size of a generator's state
_NO_GENERATOR = np.empty(0, np.uint64)
_NO_ROWS = np.empty(0, np.int64)


def load_functions() -> Any:
    """Import numba and the module of the compiled functions. Raises UsageError if numba cannot be imported."""
    try:
        import numba  # noqa: F401  # takes half a second, so only if used
    except ImportError as error:  # missing, or incompatible with the installed numpy
        problem = f"the compiled engine needs numba, got {str(error)!r}"
        raise UsageError(f"{problem}; pip install 'linreg[compiled]', or remove engine") from None
    from linreg.training.engines.compiled import epochs

    return epochs


def moment_names(optimizer: Optimizer) -> tuple[str, ...]:
    """Return the names of a parameter's moments in the state of torch's optimizer."""
    if isinstance(optimizer, Sgd):
        return ("momentum_buffer",)
    if isinstance(optimizer, Adagrad):
        return ("sum",)
    if isinstance(optimizer, Rmsprop):
        others = {"momentum_buffer": optimizer.momentum > 0, "grad_avg": optimizer.centered}
        return ("square_avg", *(name for name, is_kept in others.items() if is_kept))
    return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if optimizer.amsgrad else ("exp_avg", "exp_avg_sq")


def make_problem(
    points: Rows, model: Linear | Mlp, loss: Loss, optimizer: Optimizer, *, clip_grad_norm: float | None = None
) -> Problem:
    """Check and translate what does not change in a run.

    A missing array becomes one of length 0, so that one compiled function serves all cases. Raises ValueError for
    arrays of other shapes or types."""
    (n_rows, _), dtype, n_targets = points.x.shape, points.x.dtype, points.y.shape[1]
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"x is {dtype}; it must be float32 or float64")
    weight = np.empty((0, 1), dtype)
    if points.weight is not None:
        weight = points.weight
        _check("the points' weight", weight, (n_rows, 1), dtype)
    scale = np.ones(n_targets) if loss.scale is None else loss.scale
    _check("x", points.x, points.x.shape, dtype)
    _check("y", points.y, (n_rows, n_targets), dtype)
    _check("scale", scale, (n_targets,), np.float64)
    constants: Any = (*map(float, optimizer), *[0.0] * (5 - len(optimizer)))
    most, n_moments = float(clip_grad_norm or 0.0), max(1, len(moment_names(optimizer)))
    return Problem(
        points.x,
        points.y,
        weight,
        _Loss(LOSS_KINDS.index(loss.kind), float(loss.delta), loss.scale is None),
        scale,
        model if isinstance(model, Linear) else None,
        model.widths if isinstance(model, Mlp) else None,
        _Activation(model.activation, model.slope) if isinstance(model, Mlp) else None,
        _Update(_OPTIMIZERS.index(type(optimizer)), constants, most, n_moments),
    )


def train_steps(
    problem: Problem, p: Array, moments: Array, order: Order, *, batch_size: int, rates: Array, steps_done: int
) -> Losses:
    """Take a step for each batch of `order`, which has row numbers, and return the loss of each before its step.

    p, moments: as in `State`; they change. rates (2, 1 or n): the learning rate and the momentum (for Adam the first
    beta), of all steps or of each; momentum is 0 in all of a run or never. steps_done: the number of earlier steps in
    the run. Raises ValueError for arrays of other shapes or types, and IndexError for a row number out of range."""
    state, train = State(p, moments, _NO_GENERATOR), Part(_NO_ROWS, order, batch_size)
    done = _run(problem, state, train, _no_part(), rates=rates, steps_done=steps_done)
    return done.losses.reshape(-1)


def val_losses(problem: Problem, p: Array, order: Order, *, batch_size: int) -> Losses:
    """Return the loss of each batch of `order`, without any change."""
    state = State(p, np.empty((problem.update.n_moments, len(p)), p.dtype), _NO_GENERATOR)
    val = Part(_NO_ROWS, order, batch_size)
    return _run(problem, state, _no_part(), val, rates=np.zeros((2, 1)), steps_done=0).val_losses.reshape(-1)


def run_epochs(
    problem: Problem, state: State, train: Part, val: Part | None, *, rates: Array, steps_done: int, n_epochs: int,
    lowest: float, best: State,
) -> Epochs:  # fmt: skip
    """Train and validate n_epochs, in the textbook's order of the rows; fewer if one is not finite.

    state changes; best gets a copy of the state after the epoch with the lowest mean loss, of the validation part if
    there is one, below `lowest`. The rest is as in `train_steps`."""
    for generator in (state.generator, best.generator):
        _check("generator", generator, (_N_STATE,), np.uint64)
    _check_state(problem, best)
    return _run(
        problem, state, train, val or _no_part(), rates=rates, steps_done=steps_done, n_epochs=n_epochs, lowest=lowest,
        best=best,
    )  # fmt: skip


def _run(
    problem: Problem, state: State, train: Part, val: Part, *, rates: Array, steps_done: int, n_epochs: int = 1,
    lowest: float = -np.inf, best: State | None = None,
) -> Epochs:  # fmt: skip
    """Call the compiled function. Raises StorageError if its machine code in numba's cache is damaged."""
    _check_state(problem, state)
    for part in (train, val):
        _check("order", part.order, (len(part.order),), np.int64)
    n_train, n_val = (-(-len(part.order) // part.batch_size) for part in (train, val))
    _check("rates", rates, (2, rates.shape[-1] if rates.shape[-1] == 1 else n_epochs * n_train), np.float64)
    losses, of_val, means = (np.empty((n_epochs, n)) for n in (n_train, n_val, 2))
    function = load_functions().run_epochs
    if not function.signatures:
        _announce(function)
    parts = (train.rows, train.order, train.batch_size, train.shuffles, val.order, val.batch_size)
    results = (*(best or state), lowest, losses, of_val, means)
    try:
        n_done, number = function(*problem, *state, steps_done, rates, *parts, *results)
    except (EOFError, UnpicklingError) as error:
        folder = function.stats.cache_path
        raise StorageError(f"{folder}: numba's compiled code is damaged: {error}; remove its *.nbi and *.nbc") from None
    return Epochs(losses[:n_done], of_val[:n_done], means[:n_done], None if number < 0 else number)


def mean_in_order(losses: list[float]) -> float:
    """Return the mean of losses, added one by one as in the compiled functions."""
    return float(np.add.accumulate(losses)[-1]) / len(losses)


def _announce(function: Any) -> None:
    """Log that a function is compiled, if it is not in numba's cache."""
    names = f"{function.py_func.__module__.rpartition('.')[2]}.{function.py_func.__name__}-*.nbi"
    if not any(Path(function.stats.cache_path or "").glob(names)):
        log.info("compiling the steps of the engine, once on this machine")


def _no_part() -> Part:
    return Part(_NO_ROWS, _NO_ROWS, 1)


def _check_state(problem: Problem, state: State) -> None:
    (_, n_features), n_targets, dtype = problem.x.shape, problem.y.shape[1], problem.x.dtype
    widths = [n_features, n_targets] if problem.widths is None else problem.widths.tolist()
    n_weights = sum(before * after for before, after in pairwise(widths))
    has_bias = problem.linear is None or problem.linear.has_bias
    _check("p", state.p, (n_weights + sum(widths[1:]) * has_bias,), dtype)
    _check("moments", state.moments, (problem.update.n_moments, len(state.p)), dtype)


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError for an unexpected shape, type or layout: compiled functions check none and would read out of
    bounds."""
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else ", not contiguous"
        raise ValueError(f"{name} is {array.shape} {array.dtype}{layout}; it must be {shape} {np.dtype(dtype)}")
