"""The compiled steps of a linear model, against torch's modules, autograd and optimizers."""

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

from linreg.compiled import (
    Adam,
    Loss,
    Parameter,
    Rows,
    Sgd,
    fresh,
    load_kernels,
    make_train_chunk_fn,
    make_val_chunk_fn,
    moment_names,
)
from linreg.errors import UsageError
from linreg.losses import weighted
from linreg.steps import make_train_step_fn, make_val_step_fn

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


class Case(NamedTuple):
    """A linear model, data, an order of steps, and how they are taken."""

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
        """Give copies of the parameters, with the moments of none."""
        return [fresh(value.copy(), self.optimizer) for value in (self.w, self.b) if value is not None]

    def train_chunk_fn(self, parameters):
        weight, bias = parameters[0], parameters[1] if len(parameters) > 1 else None
        return make_train_chunk_fn(
            self.rows, weight, bias, loss=self.loss, optimizer=self.optimizer, batch_size=self.batch_size
        )

    def val_chunk_fn(self):
        return make_val_chunk_fn(self.rows, self.w, self.b, loss=self.loss, batch_size=self.batch_size)


def make_case(
    *, seed=0, n_rows=40, n_features=3, n_targets=1, batch_size=16, bias=True, weights=False, dtype=np.float64,
    loss=Loss("mse"), optimizer=Sgd(), lr=0.05, momentum=0.0, epochs=2, scheduled=False,
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
    """The same by torch's own modules, in `dtype`."""

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
            # nesterov is refused without momentum, which is set before each step
            self.optimizer = optim.SGD(parameters, lr=1.0, momentum=0.5, dampening=0.0, nesterov=kind.nesterov)
            self.optimizer.param_groups[0].update(dampening=kind.dampening, weight_decay=kind.weight_decay)
        else:
            self.optimizer = (optim.AdamW if kind.decoupled else optim.Adam)(
                parameters, lr=1.0, betas=(0.5, kind.beta2), eps=kind.eps, weight_decay=kind.weight_decay,
                amsgrad=kind.amsgrad,
            )  # fmt: skip
        self.step_fn = make_train_step_fn(self.model, self.loss_fn, self.optimizer, reported_loss_fn=self.told_fn)

    def set(self, parameters) -> None:
        """Take over parameters, and the moments where the optimizer has begun with its own."""
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
        """Give of each parameter its value and the moments that there are."""
        found = []
        for tensor in self.model.parameters():
            state = self.optimizer.state[tensor]
            moments = [state.get(name) for name in moment_names(self.case.optimizer)]
            found.append([tensor.detach().numpy(), *(moment.numpy() for moment in moments if moment is not None)])
        return found


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


def assert_near(found, expected, dtype):
    """Hold numbers equal but for the rounding to their type, and in float64 that of sums of up to 80 terms."""
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=EPS[dtype], atol=500 * EPS[np.float64] * largest)


plain = settings(
    deadline=None,
    derandomize=True,  # a bound on rounding holds for nearly all numbers: for the same ones each time
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(plain, max_examples=150)
@given(cases())
def test_a_step_is_torchs_in_float64_rounded_to_the_type(case):
    dtype = case.rows.x.dtype.type
    parameters = case.parameters()
    train_chunk = case.train_chunk_fn(parameters)
    reference = Torch(case, np.float64)
    for number, batch in enumerate(case.batches()):
        reference.set(parameters)
        loss = reference.step(number)
        told = train_chunk(batch, lr=case.lr[number], momentum=case.momentum[number], steps_done=number)
        assert_near(told, np.array([loss]), dtype)
        for parameter, (value, *moments) in zip(parameters, reference.values(), strict=True):
            assert_near(parameter.value, value, dtype)
            for moment, expected in zip(parameter.moments, moments, strict=False):  # torch has none without momentum
                assert_near(moment, expected, dtype)
