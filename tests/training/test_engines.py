"""All engines, compared with the textbook's: `auto` has the same losses, parameters and states to the last bit."""

import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn, optim

from linreg.checkpoint import load
from linreg.components import models
from linreg.components.losses import LOSSES
from linreg.components.optimizers import OPTIMIZERS
from linreg.data.dataset import CustomDataset
from linreg.data.loaders import make_loaders, make_tensor_loaders
from linreg.data.sources import DATASETS, Samples
from linreg.errors import SpecError
from linreg.experiment.building import build
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.spec.schema import ExperimentSpec, spec_from_dict
from linreg.training import loops
from linreg.training.engines import ENGINES
from linreg.training.engines.direct import SPLIT_AT, is_mean_square, mean_squares
from linreg.training.engines.layers import make_needs_autograd_fn, split_model
from linreg.training.engines.updates import make_update_fn
from linreg.training.loops import fit, make_epoch_fn
from tests.conftest import same, small_spec, write_spec


@pytest.fixture(autouse=True)
def drawn_source():
    """Register a source of any shape, with optional weights."""

    @DATASETS.register("drawn")
    def drawn(*, n: int, features: int, targets: int, seed: int, weighted: bool) -> Samples:
        random = np.random.RandomState(seed)
        x = random.randn(n, features)
        y = x @ random.randn(features, targets) + 0.3 * random.randn(n, targets)
        return Samples(x, y, weight=random.rand(n) + 0.1 if weighted else None)


def optimizers():
    decay = st.sampled_from([0.0, 0.01])
    sgd = st.fixed_dictionaries(
        {"name": st.just("sgd"), "lr": st.floats(1e-4, 0.1), "momentum": st.sampled_from([0.0, 0.9]),
         "dampening": st.sampled_from([0.0, 0.3]), "weight_decay": decay, "nesterov": st.booleans()}
    ).map(lambda p: {**p, "nesterov": p["nesterov"] and p["momentum"] > 0 and p["dampening"] == 0})  # fmt: skip
    adam = st.fixed_dictionaries(
        {"name": st.sampled_from(["adam", "adamw"]), "lr": st.floats(1e-4, 0.1), "weight_decay": decay,
         "amsgrad": st.booleans(), "betas": st.sampled_from([[0.9, 0.999], [0.5, 0.9]])}
    )  # fmt: skip
    rmsprop = st.fixed_dictionaries(
        {"name": st.just("rmsprop"), "lr": st.floats(1e-4, 0.05), "momentum": st.sampled_from([0.0, 0.5]),
         "centered": st.booleans(), "weight_decay": decay}
    )  # fmt: skip
    adagrad = st.fixed_dictionaries({"name": st.just("adagrad"), "lr": st.floats(1e-4, 0.1), "weight_decay": decay})
    return st.one_of(sgd, sgd, adam, rmsprop, adagrad)


MODELS = st.one_of(
    st.fixed_dictionaries({"name": st.just("linear"), "bias": st.booleans()}),
    st.fixed_dictionaries({"name": st.just("polynomial"), "degree": st.integers(1, 3), "bias": st.booleans()}),
    st.fixed_dictionaries(
        {"name": st.just("mlp"), "hidden": st.lists(st.integers(1, 9), min_size=1, max_size=2),
         "dropout": st.sampled_from([0.0, 0.25]),
         "activation": st.sampled_from(["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"])}
    ),
)  # fmt: skip
SCHEDULERS = st.sampled_from(
    [None, None, {"name": "step", "step_size": 1, "gamma": 0.5}, {"name": "exponential", "gamma": 0.9},
     {"name": "cosine", "t_max": 3}, {"name": "plateau", "patience": 0}, {"name": "one_cycle", "max_lr": 0.05}]
)  # fmt: skip
SPECS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["float32", "float64"]),
        "seed": st.integers(0, 1000),
        "model": MODELS,
        "loss": st.sampled_from([{"name": "mse"}, {"name": "mse"}, {"name": "mae"}, {"name": "huber", "delta": 0.7}]),
        "optimizer": optimizers(),
        "scheduler": SCHEDULERS,
        "clip_grad_norm": st.sampled_from([None, None, 0.5]),
        "data": st.fixed_dictionaries(
            {
                "source": st.fixed_dictionaries(
                    {"name": st.just("drawn"), "n": st.integers(2, 90), "features": st.integers(1, 12),
                     "targets": st.integers(1, 3), "seed": st.integers(0, 1000), "weighted": st.booleans()}
                ),
                "batch_size": st.one_of(st.integers(1, 40), st.sampled_from([16, 32, "full"])),
                "shuffle": st.booleans(),
                "standardize": st.sampled_from([False, False, True, "target"]),
            }
        ),
    }
)  # fmt: skip


def trained(spec, engine, epochs=3):
    """Train for some epochs and return the experiment, the losses and every state that training changes."""
    experiment = build(spec_from_dict({**spec, "engine": engine, "epochs": epochs}, "test"))
    losses = []
    for epoch in fit(experiment.engine.train_epoch, experiment.engine.val_epoch, range(epochs)):
        if experiment.schedule and experiment.schedule.after_epoch:
            experiment.schedule.after_epoch(epoch.loss)
        losses.append((epoch.loss, epoch.val_loss))
    return experiment, {
        "losses": losses,
        "parameters": dict(experiment.network.state_dict()),
        "optimizer": experiment.optimizer.state_dict(),
        "scheduler": experiment.schedule.scheduler.state_dict() if experiment.schedule else None,
        "loaders": experiment.loaders.generator.get_state(),
        "global": torch.get_rng_state(),
        "gradients": [parameter.grad for parameter in experiment.network.parameters()],
    }


def without_none(spec):
    return {key: value for key, value in spec.items() if value is not None}


ONE_ROW_AND_ONE_UNIT = {
    "seed": 0,
    "model": {"name": "mlp", "hidden": [1]},
    "optimizer": {"name": "adam", "lr": 0.0625},
    "data": {
        "source": {"name": "drawn", "n": 2, "features": 1, "targets": 2, "seed": 0, "weighted": False},
        "batch_size": 1,
        "shuffle": False,
    },
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SPECS)
@example(ONE_ROW_AND_ONE_UNIT)  # here autograd multiplies the transposes
def test_auto_computes_the_textbooks_bits(drawn):
    spec = small_spec(**without_none(drawn))
    _, by_auto = trained(spec, "auto")
    _, by_textbook = trained(spec, "textbook")
    assert {key for key in by_auto if not same(by_auto[key], by_textbook[key])} == set()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_every_activation_passes_gradients_back_as_autograd_does(activation, n_targets):
    source = {"name": "drawn", "n": 90, "features": 4, "targets": n_targets, "seed": 1, "weighted": False}
    model = {"name": "mlp", "hidden": [7, 5], "activation": activation}
    spec = small_spec(model=model, data__source=source, optimizer={"name": "adam", "lr": 0.01})
    experiment, by_auto = trained(spec, "auto")
    assert experiment.engine.name == "direct"
    assert same(by_auto, trained(spec, "textbook")[1])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "direct"),
        ({"model": {"name": "polynomial", "degree": 2}, "optimizer": {"name": "adam", "lr": 0.01}}, "direct"),
        ({"data__standardize": True}, "direct"),
        ({"loss": {"name": "mae"}}, "lean"),
        ({"clip_grad_norm": 1.0}, "lean"),
        ({"model": {"name": "mlp", "hidden": [3]}}, "direct"),
        ({"model": {"name": "mlp", "hidden": [3], "dropout": 0.5}}, "lean"),
        ({"engine": "textbook"}, "textbook"),
    ],
    ids=str,
)
def test_auto_trains_without_autograd_where_it_can(changes, name):
    assert build(spec_from_dict(small_spec(**changes), "test")).engine.name == name


def test_hooks_frozen_parameters_and_other_models_or_losses_need_autograd():
    linear, loss = nn.Sequential(nn.Linear(2, 1)), nn.MSELoss()
    mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert split_model(linear) == ([], [linear[0]])
    assert split_model(mlp) == ([], list(mlp))
    assert is_mean_square(loss)
    assert not any(make_needs_autograd_fn([model, *model])() for model in (linear, mlp))
    frozen, hooked, with_grad_hook, with_late_hook = (nn.Sequential(nn.Linear(2, 1)) for _ in range(4))
    frozen[0].bias.requires_grad_(False)
    hooked[0].register_forward_hook(lambda module, x, yhat: 2 * yhat)
    with_grad_hook[0].weight.register_hook(lambda grad: 2 * grad)
    with_late_hook[0].weight.register_post_accumulate_grad_hook(lambda parameter: None)
    others = (
        nn.Linear(2, 1),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 1)),
        nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)),
        nn.Sequential(nn.Linear(2, 1), nn.ReLU()),
    )
    for model in others:
        assert split_model(model) is None
    for model in (frozen, hooked, with_grad_hook, with_late_hook):
        assert make_needs_autograd_fn([model, *model])()
    for other in (nn.MSELoss(reduction="sum"), nn.L1Loss(), lambda yhat, y: ((yhat - y) ** 2).mean()):
        assert not is_mean_square(other)
    handle = nn.modules.module.register_module_forward_hook(lambda module, x, yhat: None)
    assert make_needs_autograd_fn([linear])()
    handle.remove()
    assert not make_needs_autograd_fn([linear])()


def change_hook(experiment, calls):
    experiment.optimizer.register_step_post_hook(lambda *_: calls.append(1))


def change_module(experiment, calls):
    experiment.network[0].register_forward_hook(lambda module, x, yhat: calls.append(1))


def change_bias(experiment, calls):
    experiment.network[0].bias.requires_grad_(False)


def change_data(experiment, calls):
    experiment.network[0].weight.data = torch.zeros_like(experiment.network[0].weight)


def change_groups(experiment, calls):
    experiment.optimizer.param_groups[0]["params"].pop()
    experiment.optimizer.add_param_group({"params": [experiment.network[0].bias], "lr": 0.0})


@pytest.mark.parametrize("change", [change_hook, change_module, change_bias, change_data, change_groups])
def test_changes_to_a_built_experiment_take_effect(change):
    """The caller of `fit` may change the model and the optimizer between epochs."""
    results = []
    for engine in ("auto", "textbook"):
        experiment, calls = build(spec_from_dict(small_spec(engine=engine), "test")), []
        first = experiment.engine.train_epoch()
        change(experiment, calls)
        losses = [experiment.engine.train_epoch() for _ in range(2)]
        results.append((first, losses, len(calls), dict(experiment.network.state_dict())))
    assert same(results[0], results[1])


def kept_by_momentum(experiment, kept):
    pass


def kept_by_torch(experiment, kept):
    change_groups(experiment, kept)  # two groups are stepped by torch


def kept_by_a_hook(experiment, kept):
    experiment.optimizer.register_step_pre_hook(
        lambda optimizer, *_: kept.extend(p.grad for p in optimizer.param_groups[0]["params"])
    )


def kept_by_a_module(experiment, kept):
    experiment.network[0].kept = kept


@pytest.mark.parametrize("keep", [kept_by_momentum, kept_by_torch, kept_by_a_hook, kept_by_a_module])
def test_tensors_that_outlive_a_direct_step_can_be_changed(keep):
    """Tensors created in torch.inference_mode cannot be changed outside of it."""

    class Keeping(nn.Module):
        def forward(self, x):
            self.kept.append(2 * x)
            return x

    @models.MODELS.register("keeping")
    def keeping(n_features: int, n_targets: int):
        first = Keeping()
        first.kept = []
        return nn.Sequential(first, nn.Linear(n_features, n_targets))

    model = "keeping" if keep is kept_by_a_module else "linear"
    momentum = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    experiment, kept = build(spec_from_dict(small_spec(model={"name": model}, optimizer=momentum), "test")), []
    assert experiment.engine.name == "direct"
    keep(experiment, kept)
    experiment.engine.train_epoch()
    kept += [state["momentum_buffer"] for state in experiment.optimizer.state.values()]
    assert len(kept) > 2 or keep in (kept_by_momentum, kept_by_torch)
    for tensor in kept:
        tensor.zero_()


def parameters_after_steps(make_step_fn, optimizer_type=optim.SGD, **params):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = optimizer_type(model.parameters(), **params)
    step = make_step_fn(optimizer)
    for _ in range(3):
        model(torch.ones(4, 2)).sum().backward()
        with torch.no_grad():
            step()
        optimizer.zero_grad()
    return model.weight.detach()


class Halving(optim.SGD):
    """A subclass of a torch optimizer with its own step."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] /= 2
        return super().step(closure)


class Rebinding(optim.Optimizer):
    """An optimizer that gives parameters new memory and uses autograd in its step."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    def step(self, closure=None):
        scale = torch.ones((), requires_grad=True)
        (scale * 2).backward()
        for parameter in self.param_groups[0]["params"]:
            parameter.data = parameter.data - self.param_groups[0]["lr"] * scale.grad * parameter.grad


def patched(parameters, lr):
    """Return an optimizer whose step is replaced."""
    optimizer = optim.SGD(parameters, lr=lr)
    inner = optimizer.step

    def step(closure=None):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.clamp_(-0.1, 0.1)
        return inner()

    optimizer.step = step
    return optimizer


def hooked(parameters, lr):
    """Return an optimizer with a hook."""
    optimizer = optim.SGD(parameters, lr=lr)
    optimizer.register_step_pre_hook(
        lambda *_: [p.grad.mul_(0.5) for p in optimizer.param_groups[0]["params"]] and None
    )
    return optimizer


def only_the_first(parameters, lr):
    """Return an optimizer for the first parameter alone."""
    return optim.SGD([next(iter(parameters))], lr=lr)


def tensor_lr(parameters, lr):
    """Return an optimizer with a tensor as its learning rate."""
    return optim.Adam(parameters, lr=torch.tensor(lr))


@pytest.mark.parametrize("make", [Rebinding, patched, hooked, only_the_first, tensor_lr])
@pytest.mark.parametrize("changes", [{}, {"model": {"name": "mlp", "hidden": [3]}}, {"clip_grad_norm": 0.1}], ids=str)
def test_auto_trains_with_a_custom_optimizer_as_the_textbook_does(make, changes):
    @OPTIMIZERS.register("mine")
    def mine(parameters, *, lr: float):
        return make(parameters, lr)

    spec = small_spec(optimizer={"name": "mine", "lr": 0.05}, **changes)
    results = [trained(spec, engine)[1] for engine in ("auto", "textbook")]
    for part in ("losses", "parameters"):
        assert same(results[0][part], results[1][part])
    if not changes and make is not tensor_lr:
        with pytest.raises(SpecError, match="compiled supports only the optimizers .* with one parameter group"):
            trained(spec, "compiled")


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Halving, {"lr": 0.1}),
        (optim.Adamax, {"lr": 0.1}),
        (optim.Adam, {"lr": 0.1, "maximize": True}),
        (optim.SGD, {"lr": 0.1, "maximize": True}),
        (optim.Adam, {"lr": 0.1, "foreach": True}),
    ],
    ids=str,
)
def test_the_update_of_any_optimizer_equals_its_step(kind, params):
    ours = parameters_after_steps(make_update_fn, kind, **params)
    assert torch.equal(ours, parameters_after_steps(lambda optimizer: optimizer.step, kind, **params))


def test_adam_counts_steps_per_parameter_if_some_lack_a_gradient():
    def last(make_step_fn):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
        optimizer = optim.Adam(parameters, lr=0.1)
        step = make_step_fn(optimizer)
        for used in ([0], [0], [0, 1], [0, 1], [1]):
            for i in used:
                parameters[i].grad = torch.randn(2)
            with torch.no_grad():
                step()
            optimizer.zero_grad()
        return parameters

    assert same(last(make_update_fn), last(lambda optimizer: optimizer.step))


def test_hooks_of_an_optimizer_are_called():
    calls = []

    def make_hooked_update_fn(optimizer):
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        return make_update_fn(optimizer)

    parameters_after_steps(make_hooked_update_fn, lr=0.1)
    assert calls == [1, 1, 1]


@pytest.mark.parametrize("n", [1, 3, 16, 1000, SPLIT_AT - 1, SPLIT_AT, SPLIT_AT + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_many_batches_equal_those_of_single_batches(n, dtype):
    torch.manual_seed(n)
    errors = [torch.randn(length, 1, dtype=dtype) for length in (n, n, n, max(1, n // 2))]
    assert mean_squares(errors).tolist() == [nn.functional.mse_loss(e, torch.zeros_like(e)).item() for e in errors]


@pytest.mark.parametrize(("n", "batch_size", "shuffle"), [(70, 16, True), (50, 3, True), (40, 40, False), (9, 1, True)])
def test_batches_from_tensors_are_those_of_dataloader(monkeypatch, n, batch_size, shuffle):
    monkeypatch.setattr("linreg.data.loaders.ROWS_AT_ONCE", 32)  # so that a pass takes several chunks
    torch.manual_seed(3)
    dataset = CustomDataset(torch.randn(n, 3), torch.randn(n, 1), torch.rand(n, 1))
    part = torch.utils.data.Subset(dataset, torch.randperm(n).tolist())
    loaders = make_loaders(part, None, batch_size=batch_size, shuffle=shuffle)
    state = loaders.generator.get_state()
    by_dataloader = [list(loaders.train) for _ in range(2)]
    loaders.generator.set_state(state)
    ours, _ = make_tensor_loaders(loaders, torch.device("cpu"))
    passes = [list(ours.batches()) for _ in range(2)]
    assert same(passes, [[tuple(batch) for batch in batches] for batches in by_dataloader])
    assert all(part.data_ptr() % 64 == 0 for batches in passes for batch in batches for part in batch)
    assert len(ours) == len(passes[0])
    loaders.generator.set_state(state)
    assert same(list(ours.batches(after=2)), passes[0][2:])


def test_the_chunk_size_follows_the_clock_and_chunks_end_with_the_epoch(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loops.time, "perf_counter", lambda: next(clock) / 100)  # any chunk takes 10 ms
    begun, chunks, pauses = [], [], []

    def begin(after):
        begun.append(after)

        def run(n):
            chunks.append(n)
            return [float(n)] * n

        return run

    run_epoch = make_epoch_fn(60, begin)
    position = [1.0, 2.0]
    mean = run_epoch(mini_batch_losses=position, pause=lambda: pauses.append(len(position)))
    assert (begun, chunks, pauses) == ([2], [1, 5, 25, 27], [2, 3, 8, 33])
    assert len(position) == 60
    assert mean == np.mean(position)


LINEAR = {"name": "linear"}
CANCELLING = {
    "dtype": "float64",
    "seed": 0,
    "model": LINEAR,
    "loss": {"name": "mae"},
    "optimizer": {"name": "adam", "lr": 0.0625},
    "data": {
        "source": {"name": "drawn", "n": 25, "features": 4, "targets": 2, "seed": 176, "weighted": False},
        "batch_size": 14,
        "shuffle": True,
        "standardize": False,
    },
}
COMPILED = SPECS.filter(
    lambda spec: spec["optimizer"]["name"] in ("sgd", "adam", "adamw") and spec["clip_grad_norm"] is None
).map(lambda spec: {**spec, "model": LINEAR, "dtype": "float64"})


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(COMPILED)
@example(CANCELLING)
def test_compiled_is_close_to_the_textbook(drawn):
    """In float64 rounding is far below the effect of a wrong formula; each step adds a few units of it."""
    spec = small_spec(**without_none(drawn))
    experiment, ours = trained(spec, "compiled", epochs=2)
    _, theirs = trained(spec, "textbook", epochs=2)
    assert same(ours["loaders"], theirs["loaders"])
    n_steps = 2 * len(experiment.loaders.train)
    rounding = (
        100 * n_steps * np.finfo(np.float64).eps
    )  # Adam divides by roots of squares, which doubles the relative error
    atol = rounding
    if drawn["loss"]["name"] == "mae" and drawn["optimizer"]["name"] != "sgd":
        # gradients of mae can cancel up to rounding; a step of Adam divides them by its eps and multiplies by lr
        atol += n_steps * np.finfo(np.float64).eps * drawn["optimizer"]["lr"] / 1e-8
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=rounding, atol=atol)
    state, its_state = (result["optimizer"]["state"] for result in (ours, theirs))
    assert {key: list(parts) for key, parts in state.items()} == {key: list(parts) for key, parts in its_state.items()}
    torch.testing.assert_close(ours["parameters"], theirs["parameters"], rtol=rounding, atol=atol)
    torch.testing.assert_close(state, its_state, rtol=rounding, atol=rounding)  # compares dtype and shape too
    schedules = [result["scheduler"] and {**result["scheduler"], "best": None} for result in (ours, theirs)]
    assert same(*schedules)  # the best loss of plateau is equal up to rounding only


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "mlp", "hidden": [3], "dropout": 0.5}}, "compiled supports only the models linear and mlp, without dropout and hooks, on the CPU; use engine: auto"),
    ],
    ids=str,
)  # fmt: skip
def test_compiled_refuses_models_and_optimizers_without_a_kernel(changes, message):
    with pytest.raises(SpecError) as caught:
        build(spec_from_dict(small_spec(engine="compiled", **changes), "x.yaml"))
    assert str(caught.value) == f"x.yaml: engine: {message}"


@pytest.mark.parametrize(
    "loss_fn", [lambda yhat, y: ((yhat - y) ** 4).mean(), nn.MSELoss(reduction="sum")], ids=["own", "sum"]
)
def test_compiled_refuses_a_custom_loss(loss_fn):
    LOSSES.register("mine")(lambda: loss_fn)
    with pytest.raises(
        SpecError, match="engine: compiled supports only the losses mse, mae and huber; use engine: auto"
    ):
        build(spec_from_dict(small_spec(engine="compiled", loss={"name": "mine"}), "x.yaml"))


def test_compiled_refuses_several_parameter_groups():
    @OPTIMIZERS.register("two")
    def two(parameters):
        weight, bias = parameters
        return optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.0}], lr=0.1)

    with pytest.raises(SpecError, match="adagrad, with one parameter group and without hooks; use engine: auto"):
        build(spec_from_dict(small_spec(engine="compiled", optimizer={"name": "two"}), "x.yaml"))


def test_a_spec_accepts_every_engine():
    assert set(get_args(ExperimentSpec.model_fields["engine"].annotation)) == set(ENGINES)


def test_compiled_without_numba_names_the_package_to_install(linreg, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    answer = linreg("train", write_spec(engine="compiled"))
    assert answer.code == 2
    assert answer.err.startswith("error: small.yaml:")
    assert "engine: the compiled engine needs numba" in answer.err
    assert "pip install 'linreg[compiled]'" in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adam", "lr": 0.01}], ids=str
)
def test_a_run_can_be_resumed_with_another_engine(optimizer, caplog):
    spec = small_spec(engine="compiled", optimizer=optimizer, dtype="float64")
    first = train(spec_from_dict(spec, "test"))
    result = resume(first.checkpoint, ["engine=auto"])
    assert (result.engine, result.run) == ("direct", "small_002")
    assert "compiled is close to the other engines, but not equal to the last bit" in caplog.text
    whole = train(spec_from_dict({**spec, "engine": "textbook", "epochs": 12, "name": "whole"}, "test"))
    assert result.loss == pytest.approx(whole.loss, rel=1e-12)
    assert load(result.checkpoint).optimizer_state_dict["state"].keys() == {0, 1}
    resumed = resume(result.checkpoint, ["engine=textbook"])
    assert (resumed.engine, resumed.run) == ("textbook", "small_002")
