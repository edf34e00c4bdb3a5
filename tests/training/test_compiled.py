"""The compiled steps of a linear model, compared with torch's modules, autograd and optimizers."""

import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn, optim

from linreg.components.losses import weighted
from linreg.errors import UsageError
from linreg.training.engines.arrays import (
    Adam,
    Loss,
    Parameter,
    Rows,
    Sgd,
    load_kernels,
    make_train_chunk_fn,
    make_val_chunk_fn,
    moment_names,
    with_zero_moments,
)
from linreg.training.steps import make_train_step_fn, make_val_step_fn

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


OPTIMIZERS = [
    Sgd(),
    Sgd(weight_decay=0.01),
    Sgd(dampening=0.2),
    Sgd(weight_decay=0.01, nesterov=True),
    Adam(),
    Adam(beta2=0.9, eps=1e-3, weight_decay=0.01),
    Adam(amsgrad=True, beta2=0.9),
    Adam(decoupled=True, weight_decay=0.01),
]
LOSSES = [Loss("mse"), Loss("mae"), Loss("huber"), Loss("huber", delta=0.3)]


class Case(NamedTuple):
    """A linear model, data, an order of steps, and their settings."""

    rows: Rows
    order: np.ndarray
    batch_size: int
    w: np.ndarray
    b: np.ndarray | None
    loss: Loss
    optimizer: Sgd | Adam
    lr: np.ndarray
    momentum: np.ndarray

    @property
    def n_steps(self) -> int:
        return len(self.lr)

    def batches(self):
        return [self.order[i : i + self.batch_size] for i in range(0, len(self.order), self.batch_size)]

    def parameters(self) -> list[Parameter]:
        """Return copies of the parameters with zero moments."""
        return [with_zero_moments(value.copy(), self.optimizer) for value in (self.w, self.b) if value is not None]

    def train_chunk_fn(self, parameters):
        weight, bias = parameters[0], parameters[1] if len(parameters) > 1 else None
        return make_train_chunk_fn(
            self.rows, weight, bias, loss=self.loss, optimizer=self.optimizer, batch_size=self.batch_size
        )

    def val_chunk_fn(self):
        return make_val_chunk_fn(self.rows, self.w, self.b, loss=self.loss, batch_size=self.batch_size)


def make_case(
    *, seed=0, n_rows=40, n_features=3, n_targets=1, batch_size=16, bias=True, weights=False, dtype=np.float64,
    loss=LOSSES[0], optimizer=OPTIMIZERS[0], lr=0.05, momentum=0.0, epochs=2, scheduled=False,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, n_features)).astype(dtype)
    y = (x @ rng.standard_normal((n_features, n_targets)) + rng.standard_normal((n_rows, n_targets))).astype(dtype)
    weight = rng.uniform(0, 2, (n_rows, 1)).astype(dtype) if weights else None
    order = np.concatenate([rng.permutation(n_rows) for _ in range(epochs)])
    w = rng.standard_normal((n_targets, n_features)).astype(dtype)
    b = rng.standard_normal(n_targets).astype(dtype) if bias else None
    n_steps = -(-len(order) // batch_size)
    plan = rng.uniform(0.5, 1.0, (2, n_steps)) if scheduled else np.ones((2, n_steps))
    return Case(Rows(x, y, weight), order, batch_size, w, b, loss, optimizer, lr * plan[0], momentum * plan[1])


class Torch:
    """The same steps by torch's own modules, in `dtype`."""

    def __init__(self, case: Case, dtype) -> None:
        self.case = case
        self.rows = [torch.from_numpy(array.astype(dtype)) for array in case.rows if array is not None]
        self.model = nn.Linear(case.w.shape[1], len(case.w), bias=case.b is not None).to(self.rows[0].dtype)
        self.set([Parameter(value, np.empty(0)) for value in (case.w, case.b) if value is not None])
        loss = {"mse": nn.MSELoss(), "mae": nn.L1Loss(), "huber": nn.HuberLoss(delta=case.loss.delta)}[case.loss.kind]
        self.loss_fn = loss if case.rows.weight is None else weighted(loss)
        self.told_fn = None
        if case.loss.scale is not None:
            scale, mean = torch.from_numpy(case.loss.scale), 0.5
            self.told_fn = lambda yhat, y, *weight: self.loss_fn(
                yhat.double() * scale + mean, y.double() * scale + mean, *weight
            )
        parameters, kind = list(self.model.parameters()), case.optimizer
        if isinstance(kind, Sgd):
            # torch refuses nesterov without momentum, which is set before each step
            self.optimizer = optim.SGD(parameters, lr=1.0, momentum=0.5, dampening=0.0, nesterov=kind.nesterov)
            self.optimizer.param_groups[0].update(dampening=kind.dampening, weight_decay=kind.weight_decay)
        else:
            self.optimizer = (optim.AdamW if kind.decoupled else optim.Adam)(
                parameters, lr=1.0, betas=(0.5, kind.beta2), eps=kind.eps, weight_decay=kind.weight_decay,
                amsgrad=kind.amsgrad,
            )  # fmt: skip
        self.step_fn = make_train_step_fn(self.model, self.loss_fn, self.optimizer, reported_loss_fn=self.told_fn)

    def set(self, parameters) -> None:
        """Set the parameters, and the moments if the optimizer has any."""
        for tensor, parameter in zip(self.model.parameters(), parameters, strict=True):
            tensor.data.copy_(torch.from_numpy(parameter.value))
            if hasattr(self, "optimizer") and tensor in self.optimizer.state:
                state = self.optimizer.state[tensor]
                for name, moment in zip(moment_names(self.case.optimizer), parameter.moments, strict=True):
                    if state.get(name) is not None:
                        state[name].copy_(torch.from_numpy(moment))

    def step(self, number: int) -> float:
        group = self.optimizer.param_groups[0]
        group["lr"], momentum = self.case.lr[number], self.case.momentum[number]
        group.update({"momentum": momentum} if "momentum" in group else {"betas": (momentum, group["betas"][1])})
        batch = torch.from_numpy(self.case.batches()[number])
        return self.step_fn(*(array[batch] for array in self.rows))

    def val_losses(self) -> list[float]:
        step_fn = make_val_step_fn(self.model, self.told_fn or self.loss_fn)
        return [step_fn(*(array[torch.from_numpy(batch)] for array in self.rows)) for batch in self.case.batches()]

    def values(self) -> list[list[np.ndarray]]:
        """Return each parameter's value and its existing moments."""
        values = []
        for tensor in self.model.parameters():
            state = self.optimizer.state[tensor]
            moments = [state.get(name) for name in moment_names(self.case.optimizer)]
            values.append([tensor.detach().numpy(), *(moment.numpy() for moment in moments if moment is not None)])
        return values


@st.composite
def cases(draw, **given):
    drawn = {
        "seed": st.integers(0, 10**6),
        "n_rows": st.integers(1, 70),
        "n_features": st.integers(1, 40),
        "n_targets": st.integers(1, 3),
        "batch_size": st.integers(1, 80),
        "bias": st.booleans(),
        "weights": st.booleans(),
        "dtype": st.sampled_from([np.float32, np.float64]),
        "loss": st.sampled_from(LOSSES),
        "optimizer": st.sampled_from(OPTIMIZERS),
        "lr": st.sampled_from([0.1, 0.01]),
        "momentum": st.sampled_from([0.0, 0.9]),
        "scheduled": st.booleans(),
    }
    return make_case(**({name: draw(strategy) for name, strategy in drawn.items()} | given))


def assert_close(actual, expected, dtype):
    """Compare numbers up to rounding to their type, and in float64 up to rounding in sums of up to 80 terms."""
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=EPS[dtype], atol=500 * EPS[np.float64] * largest)


plain = settings(
    deadline=None,
    derandomize=True,  # the bound on rounding does not hold for all numbers, so use the same ones each time
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(plain, max_examples=60)
@given(cases())
def test_a_step_equals_torchs_in_float64_rounded_to_the_type(case):
    dtype = case.rows.x.dtype.type
    parameters = case.parameters()
    train_chunk = case.train_chunk_fn(parameters)
    reference = Torch(case, np.float64)
    for number, batch in enumerate(case.batches()):
        reference.set(parameters)
        loss = reference.step(number)
        loss_of_step = train_chunk(batch, lr=case.lr[number], momentum=case.momentum[number], steps_done=number)
        assert_close(loss_of_step, np.array([loss]), dtype)
        for parameter, (value, *moments) in zip(parameters, reference.values(), strict=True):
            assert_close(parameter.value, value, dtype)
            for moment, expected in zip(
                parameter.moments, moments, strict=False
            ):  # torch has no buffer without momentum
                assert_close(moment, expected, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_run_differs_from_the_textbooks_by_at_most_an_eps_per_step(optimizer, loss, dtype):
    case = make_case(
        n_rows=60, n_features=8, batch_size=14, dtype=dtype, optimizer=optimizer, loss=loss, lr=0.02, momentum=0.9,
        weights=True, scheduled=True, epochs=50,
    )  # fmt: skip
    parameters = case.parameters()
    losses = case.train_chunk_fn(parameters)(case.order, lr=case.lr, momentum=case.momentum, steps_done=0)
    reference = Torch(case, dtype)
    expected = [reference.step(number) for number in range(case.n_steps)]
    bound = case.n_steps * EPS[dtype]
    np.testing.assert_allclose(losses, expected, rtol=bound, atol=bound)
    assert expected[-1] < expected[0]
    for parameter, (value, *_) in zip(parameters, reference.values(), strict=True):
        np.testing.assert_allclose(parameter.value, value, rtol=0, atol=bound * max(1, np.abs(value).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_the_bits_do_not_depend_on_the_chunks(optimizer, loss, dtype):
    case = make_case(
        n_features=19, n_targets=2, batch_size=7, dtype=dtype, optimizer=optimizer, loss=loss, momentum=0.9,
        weights=True, scheduled=True,
    )  # fmt: skip
    whole = case.parameters()
    losses = case.train_chunk_fn(whole)(case.order, lr=case.lr, momentum=case.momentum, steps_done=0)
    assert case.n_steps == 12
    for cuts in ([1, 4, 5, 12], [0, *range(1, 13)], [12]):
        cut, told, done = case.parameters(), [], 0
        for until in cuts:
            order = case.order[done * case.batch_size : until * case.batch_size]
            # a new function for each chunk: only the arrays carry state
            train_chunk = case.train_chunk_fn(cut)
            lr, momentum = case.lr[done:until], case.momentum[done:until]
            told.append(train_chunk(order, lr=lr, momentum=momentum, steps_done=done))
            done = until
        assert np.concatenate(told).tobytes() == losses.tobytes()
        for one, other in zip(whole, cut, strict=True):
            assert one.value.tobytes() == other.value.tobytes()
            assert one.moments.tobytes() == other.moments.tobytes()


@settings(plain, max_examples=30)
@given(cases())
def test_validation_losses_equal_torchs(case):
    losses = case.val_chunk_fn()(case.order)
    assert_close(losses, np.array(Torch(case, np.float64).val_losses()), case.rows.x.dtype.type)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scaled_loss_is_reported_and_the_plain_one_minimised(dtype, kind, weights):
    case = make_case(n_targets=2, dtype=dtype, weights=weights, loss=Loss(kind, 1.5))
    scaled = case._replace(loss=Loss(kind, 1.5, scale=np.array([20.0, 0.5])))
    plain, told = case.parameters(), scaled.parameters()
    case.train_chunk_fn(plain)(case.order, lr=0.05, momentum=0.0, steps_done=0)
    losses = scaled.train_chunk_fn(told)(case.order, lr=0.05, momentum=0.0, steps_done=0)
    assert all((one.value == other.value).all() for one, other in zip(plain, told, strict=True))

    reference = Torch(scaled, np.float64)
    bound = case.n_steps * EPS[dtype]
    np.testing.assert_allclose(losses, [reference.step(number) for number in range(case.n_steps)], rtol=bound)
    np.testing.assert_allclose(scaled.val_chunk_fn()(case.order), Torch(scaled, np.float64).val_losses(), rtol=1e-13)


def test_the_loss_of_a_short_last_batch_is_the_mean_over_its_points():
    # yhat = 0 for (x, y) = (1, 2), (2, 2) and (3, 6): errors -2, -2 and, once the first step is taken, 3w - 6
    rows = Rows(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [2.0], [6.0]]))
    weight = with_zero_moments(np.array([[0.0]]), Sgd())
    train_chunk = make_train_chunk_fn(rows, weight, None, loss=Loss("mse"), optimizer=Sgd(), batch_size=2)
    losses = train_chunk(np.array([0, 1, 2]), lr=np.array([0.25, 0.125]), momentum=0.0, steps_done=0)
    w = 0.25 * (2 * 2 * 1 + 2 * 2 * 2) / 2  # = 1.5
    assert losses.tolist() == [(4 + 4) / 2, (3 * w - 6) ** 2]
    assert weight.value.item() == w - 0.125 * 2 * (3 * w - 6) * 3


def test_mae_has_no_gradient_at_an_error_of_zero():
    rows = Rows(np.array([[1.0], [1.0]]), np.array([[2.0], [5.0]]))
    weight = with_zero_moments(np.array([[2.0]]), Sgd())
    train_chunk = make_train_chunk_fn(rows, weight, None, loss=Loss("mae"), optimizer=Sgd(), batch_size=2)
    assert train_chunk(np.array([0, 1]), lr=1.0, momentum=0.0, steps_done=0).tolist() == [1.5]
    assert weight.value.item() == 2.5  # the second point alone pulls, by 1/2


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=["sgd", "adam"])
def test_a_nan_in_the_data_reaches_the_loss_and_the_parameters(optimizer, kind):
    case = make_case(optimizer=optimizer, loss=Loss(kind), batch_size=40)
    case.rows.x[7, 1] = np.nan
    parameters = case.parameters()
    losses = case.train_chunk_fn(parameters)(case.order, lr=0.1, momentum=0.9, steps_done=0)
    assert np.isnan(losses).all()
    assert all(np.isnan(parameter.value).all() for parameter in parameters)


def test_diverging_losses_become_infinite_as_the_textbooks_do():
    case = make_case(dtype=np.float32, lr=50.0, epochs=20)
    losses = case.train_chunk_fn(case.parameters())(case.order, lr=case.lr, momentum=0.0, steps_done=0)
    reference = Torch(case, np.float32)
    expected = np.array([reference.step(number) for number in range(case.n_steps)])
    first = np.flatnonzero(~np.isfinite(losses))[0]
    assert np.isposinf(losses[first])
    # torch's sum over a batch can overflow float32 a step before its mean
    assert first - np.flatnonzero(~np.isfinite(expected))[0] in (0, 1)
    assert not np.isfinite(losses[first:]).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_moments_have_the_names_of_torchs_state(optimizer):
    case = make_case(optimizer=optimizer, momentum=0.9)
    reference = Torch(case, np.float64)
    reference.step(0)
    for state in reference.optimizer.state.values():
        assert tuple(name for name in state if name != "step") == moment_names(optimizer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": Rows(np.zeros((4, 2), int), np.zeros((4, 1)))}, "x is int64; it must be float32 or float64"),
        ({"rows": Rows(np.zeros((4, 2)), np.zeros((3, 1)))}, "y is (3, 1) float64; it must be (4, 1) float64"),
        ({"rows": Rows(np.zeros((2, 4)).T, np.zeros((4, 1)))}, "x is (4, 2) float64, not contiguous; it must be (4, 2) float64"),
        ({"rows": Rows(np.zeros((4, 2)), np.zeros((4, 1)), np.ones((4, 2)))}, "the points' weight is (4, 2) float64; it must be (4, 1) float64"),
        ({"w": np.zeros((1, 3))}, "weight is (1, 3) float64; it must be (1, 2) float64"),
        ({"w": np.zeros((1, 2), np.float32)}, "weight is (1, 2) float32; it must be (1, 2) float64"),
        ({"b": np.zeros(2)}, "bias is (2,) float64; it must be (1,) float64"),
        ({"loss": Loss("mse", scale=np.ones(3))}, "scale is (3,) float64; it must be (1,) float64"),
    ],
)  # fmt: skip
def test_arrays_of_another_shape_or_type_are_refused(change, message):
    case = make_case(n_rows=4, n_features=2)._replace(**change)
    with pytest.raises(ValueError) as error:
        case.train_chunk_fn(case.parameters())
    assert str(error.value) == message


def test_moments_of_another_optimizer_are_refused():
    case = make_case()
    with pytest.raises(ValueError, match=r"moments is \(1, 1, 3\) float64; it must be \(2, 1, 3\) float64"):
        case._replace(optimizer=Adam()).train_chunk_fn(case.parameters())


@pytest.mark.parametrize("row", [-1, 40])
def test_a_row_number_out_of_range_is_refused(row):
    case = make_case(n_rows=40)
    order = np.append(case.order, row)
    with pytest.raises(IndexError, match="order has a row number out of range"):
        case.train_chunk_fn(case.parameters())(order, lr=0.1, momentum=0.0, steps_done=0)
    with pytest.raises(IndexError, match="order has a row number out of range"):
        case.val_chunk_fn()(order)


def test_an_order_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"order is \(1,\) int32; it must be \(1,\) int64"):
        make_case().val_chunk_fn()(np.zeros(1, np.int32))


def test_without_numba_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(UsageError) as error:
        load_kernels()
    assert str(error.value) == (
        "the compiled engine needs numba, got 'import of numba halted; None in sys.modules'; "
        "pip install 'linreg[compiled]', or remove engine"
    )


def test_importing_the_module_does_not_import_numba():
    code = "import sys, linreg.training.engines.arrays; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_kernels_compile_without_a_writable_cache_folder():
    code = "from linreg.training.engines.kernels import *; assert loss_of(MSE, 1.0, 3.0) == 9.0 and not loss_of.stats.cache_path"
    nowhere = {
        "NUMBA_CACHE_LOCATOR_CLASSES": "_IPythonCacheLocator"
    }  # the only locator in use, which never finds a folder
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | nowhere, timeout=100, capture_output=True)
    assert done.returncode == 0, done.stderr
