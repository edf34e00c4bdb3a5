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
from linreg.training.engines.compiled.arrays import (
    Adagrad,
    Adam,
    Linear,
    Loss,
    Optimizer,
    Rmsprop,
    Rows,
    Sgd,
    load_functions,
    make_problem,
    moment_names,
    train_steps,
    val_losses,
)
from linreg.training.steps import make_train_step_fn, make_val_step_fn
from tests.conftest import ROOT

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
    Rmsprop(alpha=0.9, weight_decay=0.01),
    Rmsprop(alpha=0.9, momentum=0.5),
    Rmsprop(alpha=0.9, momentum=0.5, centered=True),
    Adagrad(lr_decay=0.01, weight_decay=0.01),
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
    optimizer: Optimizer
    lr: np.ndarray
    momentum: np.ndarray
    clip: float | None = None

    @property
    def n_steps(self) -> int:
        return len(self.lr)

    def batches(self):
        return [self.order[i : i + self.batch_size] for i in range(0, len(self.order), self.batch_size)]

    def p(self) -> np.ndarray:
        """Return a copy of all parameters."""
        return np.concatenate([value.ravel() for value in (self.w, self.b) if value is not None])

    def zeros(self) -> np.ndarray:
        """Return the moments before the first step."""
        return np.zeros((len(moment_names(self.optimizer)), len(self.p())), self.w.dtype)

    def problem(self):
        model = Linear(self.b is not None)
        return make_problem(self.rows, model, self.loss, self.optimizer, clip_grad_norm=self.clip)

    def train(self, p, moments, order=None, steps=slice(None), steps_done=0):
        """Take steps with the learning rates of the given ones."""
        order = self.order if order is None else order
        rates = np.stack([self.lr[steps], self.momentum[steps]])
        size = self.batch_size
        return train_steps(self.problem(), p, moments, order, batch_size=size, rates=rates, steps_done=steps_done)

    def val_losses(self):
        return val_losses(self.problem(), self.p(), self.order, batch_size=self.batch_size)


def make_case(
    *, seed=0, n_rows=40, n_features=3, n_targets=1, batch_size=16, bias=True, weights=False, dtype=np.float64,
    loss=LOSSES[0], optimizer=OPTIMIZERS[0], lr=0.05, momentum=0.0, epochs=2, scheduled=False, clip=None,
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
    return Case(Rows(x, y, weight), order, batch_size, w, b, loss, optimizer, lr * plan[0], momentum * plan[1], clip)


class Torch:
    """The same steps by torch's own modules, in `dtype`."""

    def __init__(self, case: Case, dtype) -> None:
        self.case = case
        self.rows = [torch.from_numpy(array.astype(dtype)) for array in case.rows if array is not None]
        self.model = nn.Linear(case.w.shape[1], len(case.w), bias=case.b is not None).to(self.rows[0].dtype)
        self.optimizer = None
        self.set(case.p(), None)
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
        elif isinstance(kind, Adam):
            self.optimizer = (optim.AdamW if kind.decoupled else optim.Adam)(
                parameters, lr=1.0, betas=(0.5, kind.beta2), eps=kind.eps, weight_decay=kind.weight_decay,
                amsgrad=kind.amsgrad,
            )  # fmt: skip
        else:
            make = optim.RMSprop if isinstance(kind, Rmsprop) else optim.Adagrad
            self.optimizer = make(parameters, lr=1.0, **kind._asdict())
        self.step_fn = make_train_step_fn(
            self.model, self.loss_fn, self.optimizer, clip_grad_norm=case.clip, reported_loss_fn=self.told_fn
        )

    def set(self, p, moments) -> None:
        """Set the parameters, and the moments if the optimizer has any."""
        start = 0
        for tensor in self.model.parameters():
            place = slice(start, start + tensor.numel())
            start = place.stop
            tensor.data.copy_(torch.from_numpy(p[place]).view_as(tensor))
            if self.optimizer is not None and tensor in self.optimizer.state:
                state = self.optimizer.state[tensor]
                for name, moment in zip(moment_names(self.case.optimizer), moments, strict=True):
                    if state.get(name) is not None:
                        state[name].copy_(torch.from_numpy(moment[place]).view_as(tensor))

    def step(self, number: int) -> float:
        group = self.optimizer.param_groups[0]
        group["lr"], momentum = self.case.lr[number], self.case.momentum[number]
        if isinstance(self.case.optimizer, Sgd):
            group["momentum"] = momentum
        elif isinstance(self.case.optimizer, Adam):
            group["betas"] = (momentum, group["betas"][1])
        batch = torch.from_numpy(self.case.batches()[number])
        return self.step_fn(*(array[batch] for array in self.rows))

    def val_losses(self) -> list[float]:
        step_fn = make_val_step_fn(self.model, self.told_fn or self.loss_fn)
        return [step_fn(*(array[torch.from_numpy(batch)] for array in self.rows)) for batch in self.case.batches()]

    def values(self) -> list[np.ndarray]:
        """Return the parameters and the existing moments."""
        tensors = [list(self.model.parameters())]
        for name in moment_names(self.case.optimizer):
            moments = [self.optimizer.state[tensor].get(name) for tensor in tensors[0]]
            tensors += [] if moments[0] is None else [moments]
        return [np.concatenate([tensor.detach().numpy().ravel() for tensor in group]) for group in tensors]


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
        "clip": st.sampled_from([None, 0.1, 100.0]),
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
    p, moments = case.p(), case.zeros()
    reference = Torch(case, np.float64)
    for number, batch in enumerate(case.batches()):
        reference.set(p, moments)
        loss = reference.step(number)
        loss_of_step = case.train(p, moments, batch, slice(number, number + 1), number)
        assert_close(loss_of_step, np.array([loss]), dtype)
        value, *expected = reference.values()
        assert_close(p, value, dtype)
        # torch has no buffer without momentum
        for moment, values in zip(moments, expected, strict=False):
            assert_close(moment, values, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_run_differs_from_the_textbooks_by_at_most_an_eps_per_step(optimizer, loss, dtype):
    case = make_case(
        n_rows=60, n_features=8, batch_size=14, dtype=dtype, optimizer=optimizer, loss=loss, lr=0.02, momentum=0.9,
        weights=True, scheduled=True, epochs=50, clip=5.0,
    )  # fmt: skip
    p = case.p()
    losses = case.train(p, case.zeros())
    reference = Torch(case, dtype)
    expected = [reference.step(number) for number in range(case.n_steps)]
    bound = case.n_steps * EPS[dtype]
    np.testing.assert_allclose(losses, expected, rtol=bound, atol=bound)
    assert expected[-1] < expected[0]
    value = reference.values()[0]
    np.testing.assert_allclose(p, value, rtol=0, atol=bound * max(1, np.abs(value).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: loss.kind)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_the_bits_do_not_depend_on_the_chunks(optimizer, loss, dtype):
    case = make_case(
        n_features=19, n_targets=2, batch_size=7, dtype=dtype, optimizer=optimizer, loss=loss, momentum=0.9,
        weights=True, scheduled=True,
    )  # fmt: skip
    whole = case.p(), case.zeros()
    losses = case.train(*whole)
    assert case.n_steps == 12
    for cuts in ([1, 4, 5, 12], [0, *range(1, 13)], [12]):
        cut, found, done = (case.p(), case.zeros()), [], 0
        for until in cuts:
            order = case.order[done * case.batch_size : until * case.batch_size]
            if len(order):
                found.append(case.train(*cut, order, slice(done, until), done))
            done = until
        assert np.concatenate(found).tobytes() == losses.tobytes()
        assert all(one.tobytes() == other.tobytes() for one, other in zip(whole, cut, strict=True))


@settings(plain, max_examples=30)
@given(cases())
def test_validation_losses_equal_torchs(case):
    assert_close(case.val_losses(), np.array(Torch(case, np.float64).val_losses()), case.rows.x.dtype.type)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scaled_loss_is_reported_and_the_plain_one_minimised(dtype, kind, weights):
    case = make_case(n_targets=2, dtype=dtype, weights=weights, loss=Loss(kind, 1.5))
    scaled = case._replace(loss=Loss(kind, 1.5, scale=np.array([20.0, 0.5])))
    plain, reported = case.p(), case.p()
    case.train(plain, case.zeros())
    losses = scaled.train(reported, case.zeros())
    assert (plain == reported).all()

    reference = Torch(scaled, np.float64)
    bound = case.n_steps * EPS[dtype]
    np.testing.assert_allclose(losses, [reference.step(number) for number in range(case.n_steps)], rtol=bound)
    np.testing.assert_allclose(scaled.val_losses(), Torch(scaled, np.float64).val_losses(), rtol=1e-13)


def steps_of_one_weight(w, x, y, loss, order, lr):
    """Take plain steps, two rows a batch, of a model with one weight and no bias; return the weight and the losses."""
    p, rows = np.array([w]), Rows(np.array(x)[:, None], np.array(y)[:, None])
    problem = make_problem(rows, Linear(has_bias=False), loss, Sgd())
    rates = np.stack([lr, np.zeros(len(lr))])
    losses = train_steps(problem, p, np.zeros((1, 1)), np.array(order), batch_size=2, rates=rates, steps_done=0)
    return p.item(), losses.tolist()


def test_the_loss_of_a_short_last_batch_is_the_mean_over_its_points():
    # yhat = 0 for (x, y) = (1, 2), (2, 2) and (3, 6): errors -2, -2 and, once the first step is taken, 3w - 6
    weight, losses = steps_of_one_weight(0.0, [1.0, 2.0, 3.0], [2.0, 2.0, 6.0], Loss("mse"), [0, 1, 2], [0.25, 0.125])
    w = 0.25 * (2 * 2 * 1 + 2 * 2 * 2) / 2  # = 1.5
    assert losses == [(4 + 4) / 2, (3 * w - 6) ** 2]
    assert weight == w - 0.125 * 2 * (3 * w - 6) * 3


def test_mae_has_no_gradient_at_an_error_of_zero():
    weight, losses = steps_of_one_weight(2.0, [1.0, 1.0], [2.0, 5.0], Loss("mae"), [0, 1], [1.0])
    assert losses == [1.5]
    assert weight == 2.5  # the second point alone pulls, by 1/2


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=["sgd", "adam"])
def test_a_nan_in_the_data_reaches_the_loss_and_the_parameters(optimizer, kind):
    case = make_case(optimizer=optimizer, loss=Loss(kind), batch_size=40, momentum=0.9)
    case.rows.x[7, 1] = np.nan
    p = case.p()
    assert np.isnan(case.train(p, case.zeros())).all()
    assert np.isnan(p).all()


def test_diverging_losses_become_infinite_as_the_textbooks_do():
    case = make_case(dtype=np.float32, lr=50.0, epochs=20)
    losses = case.train(case.p(), case.zeros())
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
        ({"w": np.zeros((1, 3))}, "p is (4,) float64; it must be (3,) float64"),
        ({"w": np.zeros((1, 2), np.float32), "b": np.zeros(1, np.float32)}, "p is (3,) float32; it must be (3,) float64"),
        ({"loss": Loss("mse", scale=np.ones(3))}, "scale is (3,) float64; it must be (1,) float64"),
    ],
)  # fmt: skip
def test_arrays_of_another_shape_or_type_are_refused(change, message):
    case = make_case(n_rows=4, n_features=2)._replace(**change)
    with pytest.raises(ValueError) as error:
        case.train(case.p(), case.zeros())
    assert str(error.value) == message


def test_moments_of_another_optimizer_are_refused():
    case = make_case()
    with pytest.raises(ValueError, match=r"moments is \(1, 4\) float64; it must be \(2, 4\) float64"):
        case._replace(optimizer=Adam()).train(case.p(), case.zeros())


def test_rates_of_another_number_of_steps_are_refused():
    case = make_case()
    with pytest.raises(ValueError, match=r"rates is \(2, 4\) float64; it must be \(2, 5\) float64"):
        case.train(case.p(), case.zeros(), steps=slice(4))


@pytest.mark.parametrize("row", [-1, 40])
def test_a_row_number_out_of_range_is_refused(row):
    case = make_case(n_rows=40)
    case = case._replace(order=np.append(case.order[:-1], row))
    with pytest.raises(IndexError, match="order has a row number out of range"):
        case.train(case.p(), case.zeros())
    with pytest.raises(IndexError, match="order has a row number out of range"):
        case.val_losses()


def test_an_order_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"order is \(1,\) int32; it must be \(1,\) int64"):
        make_case()._replace(order=np.zeros(1, np.int32)).val_losses()


def test_without_numba_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(UsageError) as error:
        load_functions()
    assert str(error.value) == (
        "the compiled engine needs numba, got 'import of numba halted; None in sys.modules'; "
        "pip install 'linreg[compiled]', or remove engine"
    )


def test_importing_the_module_does_not_import_numba():
    code = "import sys, linreg.training.engines.compiled.arrays; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_functions_compile_without_a_writable_cache_folder():
    code = (
        "from linreg.training.engines.compiled import epochs, kernel\n"
        "@kernel.entry\ndef double(x): return 2 * x\n"
        "assert (double(1), double.stats.cache_path, epochs.run_epochs.stats.cache_path) == (2, None, None)"
    )
    # the only locator in use, which never finds a folder
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "_IPythonCacheLocator"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere, cwd=ROOT, timeout=100, capture_output=True
    )
    assert done.returncode == 0, done.stderr
