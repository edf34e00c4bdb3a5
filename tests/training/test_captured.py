"""Steps that are captured and replayed: they have the textbook's bits, even if a capture fails or a state changes.

Two fakes replace a CUDA graph, so no GPU is needed. `repeated` runs the work again. `recorded` runs the recorded
operations again, with their numbers and memory at the time of recording, as a CUDA graph does.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from linreg.experiment.building import build
from linreg.spec.schema import spec_from_dict
from linreg.training.engines.captured import capture_on
from linreg.training.engines.direct import mean_squares
from linreg.training.engines.eager import make_auto_engine
from linreg.training.engines.training import Training
from tests.conftest import same, small_spec
from tests.training.test_engines import (
    SPECS,
    change_bias,
    change_data,
    change_groups,
    change_hook,
    change_module,
    drawn_source,  # noqa: F401  # a fixture
    trained,
    without_none,
)


class Recording(TorchDispatchMode):
    """Records the operations that are called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def repeated(work):
    return work


def recorded(work):
    with Recording() as recording:
        losses = work()

    def replay():
        for func, args, kwargs, result in recording.calls:
            for place, value in zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True):
                place.copy_(value)
        return losses

    return replay


@pytest.fixture
def capture_by(monkeypatch):
    """Let `auto` capture chunks of up to 4 steps, from the second chunk on, by the given function; count both calls."""
    monkeypatch.setattr("linreg.training.engines.eager.CHUNK", 4)
    monkeypatch.setattr("linreg.training.engines.captured.WAIT", 1)
    monkeypatch.setattr("linreg.training.loops.SECONDS_A_CHUNK", 1e9)

    def capture_by(capture):
        count = SimpleNamespace(captures=0, replays=0)

        def counted(work):
            count.captures += 1
            replay = capture(work)

            def counted_replay():
                count.replays += 1
                return replay()

            return counted_replay

        monkeypatch.setattr("linreg.training.engines.eager.capture_on", lambda device: counted)
        return count

    return capture_by


def spec_of(**changes):
    """Return a spec of 24 whole batches of 3 features, 6 chunks of 4, and a short batch."""
    return small_spec(data__source={"name": "linear", "n_samples": 490, "weight": [1.0, -2.0, 0.5]}, **changes)


MLP = {"name": "mlp", "hidden": [5, 3], "activation": "leaky_relu"}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize("capture", [repeated, recorded])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": MLP, "dtype": "float64"},
        {"model": MLP, "optimizer": {**MOMENTUM, "nesterov": True}},
        {"optimizer": {**MOMENTUM, "dampening": 0.3}},
        {"scheduler": {"name": "exponential", "gamma": 0.9}},
        {"data__standardize": True},
        {"data__batch_size": "full"},
        {"data__batch_size": 5},
        {"data__source__n_samples": 450},  # the short batch is the last of a chunk
    ],
    ids=str,
)
def test_captured_steps_have_the_textbooks_bits(capture_by, changes, capture):
    spec = spec_of(**changes)
    _, by_textbook = trained(spec, "textbook")
    count = capture_by(capture)
    experiment, by_replays = trained(spec, "auto")
    assert {key for key in by_replays if not same(by_replays[key], by_textbook[key])} == set()
    assert count.replays > 0
    assert experiment.engine.name == "direct"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SPECS)
def test_any_training_has_the_textbooks_bits_with_captures(capture_by, drawn):
    spec = small_spec(**without_none(drawn))
    _, by_textbook = trained(spec, "textbook")
    assume(np.isfinite(by_textbook["losses"]).all())  # NaN is not equal to itself
    capture_by(recorded)
    _, by_replays = trained(spec, "auto")
    assert {key for key in by_replays if not same(by_replays[key], by_textbook[key])} == set()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "polynomial", "degree": 2}},
        {"optimizer": {"name": "adam", "lr": 0.01}},
        {"scheduler": {"name": "one_cycle", "max_lr": 0.05}},
        {"clip_grad_norm": 1.0},
        {"loss": {"name": "mae"}},
    ],
    ids=str,
)
def test_only_steps_made_of_tensor_operations_are_captured(capture_by, changes):
    count = capture_by(recorded)
    trained(spec_of(**changes), "auto")
    assert count.captures == 0


def test_steps_with_a_custom_reported_loss_are_not_captured(capture_by):
    count = capture_by(recorded)
    experiment = build(spec_from_dict(spec_of(), "test"))
    parts = (experiment.device, experiment.loaders, experiment.network, nn.MSELoss(), experiment.optimizer)
    for reported_loss_fn in (None, lambda yhat, y: (yhat - y).abs().max()):
        engine = make_auto_engine(Training(*parts, reported_loss_fn=reported_loss_fn))
        engine.train_epoch()
        assert (engine.name, count.captures) == ("direct", 1)


def test_diverging_steps_are_replayed(capture_by):
    count = capture_by(recorded)
    _, results = trained(spec_of(optimizer={"name": "sgd", "lr": 1e30}), "auto")
    assert np.isnan(results["losses"]).all()
    assert count.replays > 1


@pytest.mark.parametrize(("changes", "captures"), [({}, 1), ({"scheduler": {"name": "exponential", "gamma": 0.9}}, 3)])
def test_a_capture_is_replaced_when_a_number_in_it_changes(capture_by, changes, captures):
    count = capture_by(recorded)
    trained(spec_of(**changes), "auto")  # 3 epochs
    assert count.captures == captures


def test_chunks_are_captured_after_the_waiting_time(capture_by, monkeypatch):
    monkeypatch.setattr("linreg.training.engines.captured.WAIT", 3)
    count = capture_by(recorded)
    train_epoch = build(spec_from_dict(spec_of(), "test")).engine.train_epoch
    train_epoch()  # 1 step, 10 and 14: chunks of 1, 4 4 2, 4 4 4 2
    assert (count.captures, count.replays) == (1, 2)


def test_whole_batches_of_an_epoch_are_cut_into_chunks_of_equal_length(capture_by, monkeypatch):
    monkeypatch.setattr("linreg.training.engines.eager.CHUNK", 20)
    count = capture_by(repeated)
    experiment = build(spec_from_dict(spec_of(), "test"))
    for _ in range(2):
        experiment.engine.train_epoch()
    before = count.replays
    experiment.engine.train_epoch()
    assert count.replays - before == 2  # of 12 steps each


def change_loaded_state(experiment, calls):
    experiment.optimizer.load_state_dict(experiment.optimizer.state_dict())
    for state in experiment.optimizer.state.values():
        state.update({name: buffer / 2 for name, buffer in state.items()})


def change_forgotten_state(experiment, calls):
    experiment.optimizer.state.clear()


def change_lr(experiment, calls):
    experiment.optimizer.param_groups[0]["lr"] /= 2


def change_momentum(experiment, calls):
    experiment.optimizer.param_groups[0]["momentum"] = 0.5


def change_decay(experiment, calls):
    experiment.optimizer.param_groups[0]["weight_decay"] = 0.5


def change_nesterov(experiment, calls):
    experiment.optimizer.param_groups[0]["nesterov"] = True


def change_dampening(experiment, calls):
    experiment.optimizer.param_groups[0]["dampening"] = 0.5


def change_lr_as_tensor(experiment, calls):
    experiment.optimizer.param_groups[0]["lr"] = lr = torch.tensor(0.01)
    experiment.engine.train_epoch()
    lr.mul_(0.5)


def change_parameters(experiment, calls):
    experiment.optimizer.param_groups[0]["params"].pop()


def change_slope(experiment, calls):
    experiment.network[1].negative_slope = 0.5


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.01}, {**MOMENTUM, "lr": 0.01}], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        change_hook, change_module, change_bias, change_data, change_groups,
        change_loaded_state, change_forgotten_state, change_lr, change_momentum, change_decay,
        change_nesterov, change_dampening, change_lr_as_tensor, change_parameters, change_slope,
    ],
)  # fmt: skip
def test_changes_to_an_experiment_after_a_capture_take_effect(capture_by, change, optimizer):
    count = capture_by(recorded)
    model = MLP if change is change_slope else {"name": "linear"}
    results = []
    for engine in ("auto", "textbook"):
        spec = spec_of(engine=engine, model=model, optimizer=optimizer)
        experiment, calls = build(spec_from_dict(spec, "test")), []
        first = experiment.engine.train_epoch()
        change(experiment, calls)
        losses = [experiment.engine.train_epoch() for _ in range(2)]
        momenta = list(experiment.optimizer.state.values())
        results.append((first, losses, len(calls), dict(experiment.network.state_dict()), momenta))
    assert same(results[0], results[1])
    assert count.replays > 0


def does_nothing(work):
    losses = work()
    return lambda: losses


def loses_losses(work):
    return lambda: work() + 1


def takes_steps_twice(work):
    return lambda: (work(), work())[0]


def cannot_capture(work):
    work()
    raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")


def cannot_replay(work):
    work()

    def replay():
        work()
        raise RuntimeError("out of memory")

    return replay


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.1}, MOMENTUM], ids=str)
@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (does_nothing, "the bits of a replay differ"),
        (loses_losses, "the bits of a replay differ"),
        (takes_steps_twice, "the bits of a replay differ"),
        (cannot_capture, "operation not permitted when stream is capturing"),
        (cannot_replay, "out of memory"),
    ],
)
def test_a_wrong_or_failing_capture_is_not_used(capture_by, caplog, capture, reason, optimizer):
    caplog.set_level("INFO", "linreg")
    spec = spec_of(optimizer=optimizer, model=MLP)
    _, by_textbook = trained(spec, "textbook")
    count = capture_by(capture)
    _, ours = trained(spec, "auto")
    assert {key for key in ours if not same(ours[key], by_textbook[key])} == set()
    assert count.captures == 1
    assert caplog.messages == [f"cannot replay captured steps, using single steps: {reason}"]


def test_a_failed_capture_leaves_no_gradients(capture_by):
    def fails(work):
        for parameter in experiment.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        raise RuntimeError("failed")

    capture_by(fails)
    experiment = build(spec_from_dict(small_spec(data__batch_size=40), "test"))  # one batch an epoch
    for _ in range(2):
        experiment.engine.train_epoch()
    assert [parameter.grad for parameter in experiment.network.parameters()] == [None, None]


def test_steps_are_not_captured_on_devices_without_cuda():
    assert capture_on(torch.device("cpu")) is None
    assert capture_on(torch.device("mps")) is None


def test_work_runs_on_the_stream_before_its_capture(monkeypatch):
    """Checks only the order of calls: their effect takes a GPU."""
    calls = []

    @contextmanager
    def within(name):
        calls.append(f"enter {name}")
        yield
        calls.append(f"leave {name}")

    stream = SimpleNamespace(wait_stream=lambda other: calls.append(f"wait for {other}"))
    graph = SimpleNamespace(replay=lambda: calls.append("replay"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "stream", lambda given: within("stream" if given is stream else "another"))
    monkeypatch.setattr(torch.cuda, "graph", lambda given, stream: within("graph" if given is graph else "another"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"wait for {device}"))

    def work():
        calls.append("work")
        return torch.tensor(len(calls))

    replay = capture_on(torch.device("cuda:1"))(work)
    assert calls == [
        "wait for the stream of cuda:1", "enter stream", "work", "enter graph", "work", "leave graph", "leave stream",
        "wait for cuda:1",
    ]  # fmt: skip
    assert replay() == replay() == 5
    assert calls[8:] == ["replay", "replay"]


def test_on_other_devices_each_loss_is_computed_by_mean():
    with Recording() as recording:
        mean_squares([torch.ones(4, 1, device="meta") for _ in range(3)])
    assert [result.shape for func, _, _, result in recording.calls if func is torch.ops.aten.mean.default] == [()] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph takes a GPU")
@pytest.mark.parametrize("model", [{"name": "linear"}, MLP], ids=str)
@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.1}, {**MOMENTUM, "nesterov": True}], ids=str)
def test_replays_on_a_gpu_have_the_textbooks_bits(caplog, monkeypatch, model, optimizer):
    caplog.set_level("INFO", "linreg")
    monkeypatch.setattr("linreg.training.loops.SECONDS_A_CHUNK", 1e9)
    spec = small_spec(
        device="cuda", model=model, optimizer=optimizer,
        data__source={"name": "linear", "n_samples": 20000, "weight": [1.0, -2.0, 0.5]},
    )  # fmt: skip
    _, by_replays = trained(spec, "auto")
    _, by_textbook = trained(spec, "textbook")
    assert {key for key in by_replays if not same(by_replays[key], by_textbook[key])} == set()
    assert caplog.messages == []
