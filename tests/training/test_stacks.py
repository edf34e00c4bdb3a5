"""Stacks of models: each model has the bits that it has alone."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from linreg.experiment.building import build
from linreg.experiment.data import prepare
from linreg.spec.schema import spec_from_dict
from linreg.training.stacks import Stack, most_models, signature
from linreg.training.stacks.probes import Unequal, choose
from tests.conftest import times

LINEAR = {"name": "linear"}
MLP = {"name": "mlp", "hidden": [8, 5], "activation": "tanh"}


def spec_of(seed=1, *, model=MLP, optimizer=None, n_samples=43, **changes):
    data = {
        "source": {"name": "friedman1", "n_samples": n_samples, "noise": 1.0},
        "batch_size": 8,
        **changes.pop("data", {}),
    }
    optimizer = {"name": "sgd", "lr": 0.01 * seed, **(optimizer or {})}
    base = {"name": "x", "epochs": 3, "seed": seed, "baseline": False, "data": data, "model": model}
    return spec_from_dict({**base, "optimizer": optimizer, **changes}, "x")


def states_of(experiment):
    optimizer = experiment.optimizer.state_dict()["state"]
    flat = {f"{i}.{key}": value for i, state in optimizer.items() for key, value in state.items()}
    return {**experiment.network.state_dict(), **flat, "generator": experiment.loaders.generator.get_state()}


def assert_equal(alone, stacked):
    for one, other in zip(alone, stacked, strict=True):
        ours, theirs = states_of(one), states_of(other)
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            assert value is theirs[key] is None or torch.equal(value, theirs[key]), key


def run_alone(experiment):
    val = experiment.engine.val_epoch
    return experiment.engine.train_epoch(), None if val is None else val()


def run_stacked(stack):
    train, val = stack.train_epoch(), stack.val_epoch() if stack.feeds.first_val else None
    means = [np.add.reduce(losses, axis=1) / losses.shape[1] for losses in (train, val) if losses is not None]
    return list(zip(*(mean.tolist() for mean in means), strict=True))


def assert_stack_is_alone(specs, *, epochs=3, share=True):
    """Train specs alone and in a stack; return the stack."""
    data = prepare(specs[0]) if share else None
    alone, stacked = ([build(spec, data=data) for spec in specs] for _ in range(2))
    trainings = [experiment.training for experiment in stacked]
    assert signature(trainings[0]) is not None
    assert len({signature(training) for training in trainings}) == 1
    stack = Stack(trainings)
    for _ in range(epochs):
        expected = [tuple(loss for loss in run_alone(one) if loss is not None) for one in alone]
        assert run_stacked(stack) == expected
    stack.synchronize()
    assert_equal(alone, stacked)
    return stack


OPTIMIZERS = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9},
    {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "sgd", "momentum": 0.8, "dampening": 0.1},
    {"name": "adam"},
    {"name": "adam", "weight_decay": 0.01, "betas": [0.8, 0.99]},
    {"name": "adamw"},
    {"name": "rmsprop"},
    {"name": "rmsprop", "momentum": 0.5, "centered": True, "weight_decay": 0.01},
    {"name": "adagrad", "lr_decay": 0.1, "initial_accumulator_value": 0.2},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_optimizer_updates_the_stack_as_it_updates_one_model(optimizer, dtype):
    specs = [spec_of(seed, optimizer=optimizer, dtype=dtype) for seed in (1, 2, 3)]
    assert "update" not in assert_stack_is_alone(specs).looped


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"])
def test_each_activation(activation):
    model = {"name": "mlp", "hidden": [8, 3], "activation": activation}
    assert_stack_is_alone([spec_of(seed, model=model, optimizer={"lr": 0.001 * seed}) for seed in range(1, 5)])


def test_many_linear_models_run_without_a_loop():
    stack = assert_stack_is_alone([spec_of(seed, model=LINEAR, n_samples=200) for seed in range(1, 65)])
    assert stack.looped == set()


def test_models_with_the_same_order_of_rows_share_a_feed():
    specs = [spec_of(7, optimizer={"lr": lr}) for lr in (0.001, 0.01, 0.1)]
    assert assert_stack_is_alone(specs).feeds.feed_of == [0, 0, 0]


def test_models_of_different_folds_are_one_stack():
    folds = [{"split": {"folds": 4, "fold": fold, "train_ratio": 1.0}, "standardize": True} for fold in range(4)]
    specs = [spec_of(1, data=fold, n_samples=48) for fold in folds]
    assert_stack_is_alone(specs, share=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"standardize": True}},
        {"data": {"batch_size": "full"}},
        {"data": {"shuffle": False, "batch_size": 1}},
        {"data": {"split": {"train_ratio": 1.0}}},
        {"data": {"split": {"train_ratio": 0.5, "test_ratio": 0.3}}},
        {"model": {"name": "linear", "bias": False}},
        {"model": {"name": "mlp", "hidden": [1]}},
    ],
    ids=str,
)
def test_other_settings(changes):
    assert_stack_is_alone([spec_of(seed, **changes) for seed in (1, 2, 3)])


@given(
    hidden=st.lists(st.integers(1, 33), max_size=3),
    n_models=st.integers(1, 9),
    batch_size=st.integers(1, 40),
    n_samples=st.integers(20, 90),
    optimizer=st.sampled_from(OPTIMIZERS),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 10**6),
)
@example([], 1, 5, 20, {"name": "sgd"}, "float32", 0)  # on some processors, mini-batches that are not aligned in memory
@example([5], 1, 1, 20, {"name": "sgd", "momentum": 0.9}, "float32", 26)
@settings(max_examples=times(10, 25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_shape(hidden, n_models, batch_size, n_samples, optimizer, dtype, seed):
    model = {"name": "mlp", "hidden": hidden} if hidden else LINEAR
    specs = [
        spec_of(
            seed + i // 2,
            model=model,
            n_samples=n_samples,
            dtype=dtype,
            optimizer={**optimizer, "lr": 10.0 ** -(2 + i % 3)},
            data={"batch_size": batch_size},
        )
        for i in range(n_models)
    ]
    assert_stack_is_alone(specs, epochs=2)


def test_models_leave_a_stack_without_a_trace():
    specs = [spec_of(seed, optimizer={"name": "adam", "lr": 0.01 * seed}) for seed in range(1, 7)]
    data = prepare(specs[0])
    alone, stacked = ([build(spec, data=data) for spec in specs] for _ in range(2))
    stack = Stack([experiment.training for experiment in stacked])
    kept = [1, 2, 5]
    for epoch in range(4):
        if epoch == 2:
            stack.synchronize()
            stack = Stack([stacked[i].training for i in kept])
        expected = [run_alone(one) for one in alone]
        assert run_stacked(stack) == (expected if epoch < 2 else [expected[i] for i in kept])
    stack.synchronize()
    assert_equal([alone[i] for i in kept], [stacked[i] for i in kept])


def test_a_model_that_diverges_does_not_touch_the_others():
    specs = [spec_of(3, optimizer={"lr": lr}) for lr in (1e-3, 1e18, 1e-2)]
    data = prepare(specs[0])
    alone, stacked = ([build(spec, data=data) for spec in specs] for _ in range(2))
    stack = Stack([experiment.training for experiment in stacked])
    losses = stack.train_epoch()
    assert np.isfinite(losses).all(axis=1).tolist() == [True, False, True]
    assert stack.are_finite().tolist() == [True, False, True]
    for one in (alone[0], alone[2]):
        one.engine.train_epoch()
    stack.synchronize()
    assert_equal(alone[::2], stacked[::2])


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_grad_norm": 1.0},
        {"loss": {"name": "mae"}},
        {"model": {"name": "polynomial", "degree": 2}},
        {"model": {"name": "mlp", "hidden": [4], "dropout": 0.5}},
        {"optimizer": {"name": "adam", "amsgrad": True}},
        {"scheduler": {"name": "one_cycle", "max_lr": 0.1}},
    ],
    ids=str,
)
def test_what_a_stack_cannot_train_has_no_signature(changes):
    assert signature(build(spec_of(1, **changes)).training) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model": LINEAR},
        {"model": {"name": "mlp", "hidden": [8, 6]}},
        {"model": {**MLP, "activation": "relu"}},
        {"optimizer": {"momentum": 0.9}},
        {"optimizer": {"name": "adam"}},
        {"dtype": "float64"},
        {"data": {"batch_size": 9}},
        {"data": {"shuffle": False}},
        {"n_samples": 50},
    ],
    ids=str,
)
def test_models_that_differ_in_an_operation_are_in_different_stacks(changes):
    assert signature(build(spec_of(1)).training) != signature(build(spec_of(1, **changes)).training)


def test_a_hook_keeps_a_model_out_of_stacks():
    experiment = build(spec_of(1))
    assert signature(experiment.training) is not None
    experiment.network[0].register_forward_hook(lambda *_: None)
    assert signature(experiment.training) is None


def test_large_models_are_not_stacked():
    assert most_models(build(spec_of(1)).training) == 256
    large = build(spec_of(1, model={"name": "mlp", "hidden": [1500, 1500]})).training
    assert most_models(large) == 1


def test_a_probe_takes_the_first_way_with_equal_bits():
    def draw():
        return torch.randn(4, 100), torch.randn(4, 100)

    def alone(x, y):
        return x * y

    ways = {"wrong": lambda x, y: (x.double() * y).float() * (1 + 1e-7), "right": torch.mul}
    assert choose(ways, alone, draw)[0] == "right"
    with pytest.raises(Unequal):
        choose({"wrong": ways["wrong"]}, alone, draw)


def test_parameters_are_views_of_the_stack():
    experiments = [build(spec_of(seed, model=LINEAR)) for seed in (1, 2)]
    stack = Stack([experiment.training for experiment in experiments])
    stack.rows.fill_(2.0)
    for experiment in experiments:
        assert all((parameter == 2).all() for parameter in experiment.network.parameters())
        assert isinstance(experiment.network[0].weight, nn.Parameter)
