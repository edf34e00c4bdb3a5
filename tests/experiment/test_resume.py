"""Resuming is exact: the same bits as a run that was never interrupted, whatever is trained and wherever it stopped."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg.checkpoint import load
from linreg.components.models import MODELS
from linreg.components.optimizers import OPTIMIZERS
from linreg.data.sources import DATASETS, Samples
from linreg.errors import CheckpointError, DataError, DivergedError, StorageError, UsageError
from linreg.experiment import saving, state
from linreg.experiment.building import build
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.runs.folders import create, hold
from linreg.runs.sessions import new_session
from linreg.spec.schema import spec_from_dict
from tests.conftest import differences, same, series, small_spec, write_spec

pytestmark = pytest.mark.usefixtures("pause_at_each_step")


def stop_after(calls):
    """Ask to stop at the n-th time of being asked between two steps; before those it is asked once."""
    counter = itertools.count()
    return lambda: next(counter) >= calls


def assert_as_if_never_interrupted(changes, *stops):
    """Train in one go, and with stops; everything that was trained and written must be the same."""
    spec = spec_from_dict(small_spec(**changes), "test")
    whole = train(spec, runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))
    result = train(spec, stop=stop_after(stops[0]))
    assert result.outcome == "interrupted"
    for calls in [*stops[1:], 10**9]:
        result = resume(result.checkpoint, stop=stop_after(calls))
    assert result.run == "small_001"
    assert differences(load(whole.checkpoint), load(result.checkpoint)) == []
    assert Path("runs/small_001/metrics.jsonl").read_text() == Path("whole/runs/small_001/metrics.jsonl").read_text()
    assert series("runs/small_001") == series("whole/runs/small_001")


MLP = {"name": "mlp", "hidden": [8, 4], "dropout": 0.25}


@pytest.mark.parametrize(
    "model", [{"name": "linear"}, MLP, {"name": "polynomial", "degree": 3}], ids=lambda m: m["name"]
)
def test_every_model_resumes_exactly(model):
    assert_as_if_never_interrupted({"model": model, "writer__hparams": True, "writer__histograms": 2}, 9, 5)


@pytest.mark.parametrize("optimizer", [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    {"name": "adam", "lr": 0.01, "amsgrad": True},
    {"name": "adamw", "lr": 0.01},
    {"name": "rmsprop", "lr": 0.01, "momentum": 0.5, "centered": True},
    {"name": "adagrad", "lr": 0.1, "lr_decay": 0.01},
], ids=lambda o: o["name"])  # fmt: skip
def test_every_optimizer_resumes_exactly(optimizer):
    assert_as_if_never_interrupted({"model": MLP, "optimizer": optimizer, "clip_grad_norm": 0.5}, 7, 6)


@pytest.mark.parametrize("optimizer", [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    {"name": "adam", "lr": 0.01},
], ids=lambda o: o["name"])  # fmt: skip
@pytest.mark.parametrize("engine", ["textbook", "compiled"])
def test_every_engine_resumes_exactly(engine, optimizer):
    scheduler = {"name": "one_cycle", "max_lr": 0.1, "cycle_momentum": True}
    assert_as_if_never_interrupted({"engine": engine, "optimizer": optimizer, "scheduler": scheduler}, 7, 6)


@pytest.mark.parametrize("scheduler", [
    {"name": "step", "step_size": 2},
    {"name": "exponential", "gamma": 0.8},
    {"name": "cosine", "t_max": 4},
    {"name": "plateau", "patience": 0, "factor": 0.5},
    {"name": "one_cycle", "max_lr": 0.3, "cycle_momentum": False},
], ids=lambda s: s["name"])  # fmt: skip
@pytest.mark.parametrize("stops", [(10, 3), (4,)], ids=str)  # at the fourth time the training part is done
def test_every_scheduler_resumes_exactly(scheduler, stops):
    assert_as_if_never_interrupted({"model": MLP, "scheduler": scheduler}, *stops)


@pytest.mark.parametrize("calls", range(1, 13))
def test_a_stop_at_any_step_resumes_exactly(calls):
    assert_as_if_never_interrupted({"model": MLP, "epochs": 3}, calls)


@pytest.mark.parametrize("calls", range(8, 13))
def test_a_model_that_draws_from_every_generator_resumes_exactly(calls):
    """In validation, too, which begins anew when it was under way."""

    @MODELS.register("drawing")
    def drawing(n_features: int, n_targets: int) -> torch.nn.Module:
        class Drawing(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x) * (1 + 0.1 * random.random() * np.random.rand() * torch.rand(()))

        return Drawing(n_features, n_targets)

    assert_as_if_never_interrupted({"model": {"name": "drawing"}, "epochs": 2, "data__batch_size": 5}, calls)


def test_early_stopping_continues_counting():
    changes = {"epochs": 60, "early_stopping": {"patience": 3, "min_delta": 1e-3}}
    spec = spec_from_dict(small_spec(**changes), "test")
    whole = train(spec, runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))
    assert whole.outcome == "early_stopped"
    assert whole.epochs < 60
    first = train(spec, stop=stop_after(5 * (whole.epochs - 2)))
    result = resume(first.checkpoint)
    assert (result.outcome, result.epochs) == ("early_stopped", whole.epochs)
    assert differences(load(whole.checkpoint), load(result.checkpoint)) == []


def test_resuming_to_more_epochs_equals_training_for_all_of_them():
    long = train(spec_from_dict(small_spec(epochs=10), "test"), checkpoints=Path("long"), runs=Path("longer"))
    short = train(spec_from_dict(small_spec(epochs=4), "test"))
    result = resume(short.checkpoint, ["epochs=10"])
    assert result.epochs == 10
    assert differences(load(long.checkpoint), load(result.checkpoint)) == []
    assert Path("runs/small_001/spec.yaml").read_text() == Path("longer/small_001/spec.yaml").read_text()


def test_a_finished_run_trains_as_many_epochs_again():
    result = train(spec_from_dict(small_spec(), "test"))
    for epochs in (12, 18):
        result = resume(result.checkpoint)
        assert (result.run, result.epochs) == ("small_001", epochs)


def test_epochs_that_are_done_already_are_refused():
    result = train(spec_from_dict(small_spec(), "test"))
    with pytest.raises(UsageError, match="already has 6 epochs; set --epochs to more"):
        resume(result.checkpoint, ["epochs=6"])


def test_a_copy_resumes_in_a_new_run_with_its_whole_history():
    result = train(spec_from_dict(small_spec(), "test"))
    shutil.copy(result.checkpoint, "copy.pth")
    before = Path(result.checkpoint).read_bytes()
    again = resume("copy.pth")
    assert (again.run, again.epochs) == ("small_002", 12)
    assert Path(result.checkpoint).read_bytes() == before
    assert len(Path("runs/small_002/metrics.jsonl").read_text().splitlines()) == 12
    assert len(series("runs/small_002")["loss_training", "loss"]) == 12


def test_a_checkpoint_of_another_run_with_the_same_name_resumes_in_a_new_run(linreg):
    train(spec_from_dict(small_spec(), "test"))
    shutil.copy("checkpoints/small_001/last.pth", "copy.pth")
    linreg("runs", "rm", "small_001")
    train(spec_from_dict(small_spec(seed=1), "test"))
    shutil.copy("copy.pth", "checkpoints/small_001/last.pth")
    assert resume("checkpoints/small_001/last.pth").run == "small_002"


def test_an_older_checkpoint_resumes_in_a_new_run_to_the_same_end():
    spec = spec_from_dict(small_spec(model=MLP, checkpoint={"every": 2, "keep": 5}), "test")
    result = train(spec)
    assert sorted(path.name for path in Path("checkpoints/small_001").iterdir()) == [
        "best.pth", "epoch_000002.pth", "epoch_000004.pth", "epoch_000006.pth", "last.pth",
    ]  # fmt: skip
    again = resume("checkpoints/small_001/epoch_000002.pth")
    assert again.run == "small_002"
    assert differences(load(result.checkpoint), load(again.checkpoint)) == []


def test_best_is_the_epoch_with_the_lowest_validation_loss_and_can_be_resumed():
    result = train(spec_from_dict(small_spec(epochs=12, optimizer__lr=0.5, data__batch_size=2), "test"))
    saved, best = load(result.checkpoint), load("checkpoints/small_001/best.pth")
    lowest = min(range(12), key=lambda epoch: saved.val_loss[epoch])
    assert best.epoch == lowest + 1 < 12
    assert best.val_loss == saved.val_loss[: lowest + 1]
    assert differences(load(resume("checkpoints/small_001/best.pth").checkpoint), saved) == []


def test_only_n_numbered_checkpoints_are_kept():
    train(spec_from_dict(small_spec(checkpoint={"every": 1, "keep": 2, "best": False}), "test"))
    assert sorted(path.name for path in Path("checkpoints/small_001").iterdir()) == [
        "epoch_000005.pth", "epoch_000006.pth", "last.pth",
    ]  # fmt: skip


def test_a_changed_learning_rate_is_used_with_a_warning(linreg):
    result = train(spec_from_dict(small_spec(), "test"))
    answer = linreg("resume", result.checkpoint, "optimizer.lr=0.001", "writer.plots=true", "--epochs", 8)
    assert answer.err.startswith(
        "warning: changed since the checkpoint:\n"
        "  setting       was    is\n"
        "  epochs        6      8      free\n"
        "  optimizer.lr  0.1    0.001  warned; the result differs from that of an uninterrupted run\n"
        "  writer.plots  False  True   free\n"
    )
    saved = load(answer.out.strip())
    assert saved.run["name"] == "small_002"
    assert saved.lr == [0.1] * 6 + [0.001] * 2
    assert saved.optimizer_state_dict["param_groups"][0]["lr"] == 0.001


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.bias=false", "model.bias: True → False: the saved state belongs to another model or other data; train again"),
        ("data.source.noise=0.2", "data.source.noise: 0.1 → 0.2: the saved state belongs to another model or other data; train again"),
        ("seed=1", "seed: 42 → 1: initial weights and shuffling depend on it; train again"),
        ("optimizer.name=rmsprop", "the saved state belongs to another optimizer; train again"),
        ("scheduler={name: exponential, gamma: 0.9}", "the saved state belongs to another scheduler; train again"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_refused(override, message):
    result = train(spec_from_dict(small_spec(optimizer={"name": "sgd", "lr": 0.1}), "test"))
    overrides = [override] if "name=" not in override else ["optimizer={name: rmsprop, lr: 0.1}"]
    with pytest.raises(UsageError) as caught:
        resume(result.checkpoint, overrides)
    assert message in str(caught.value)
    assert [path.name for path in Path("runs").iterdir()] == ["small_001"]


def test_other_data_is_refused():
    @DATASETS.register("from_file")
    def from_file() -> Samples:
        x = np.load("x.npy")
        return Samples(x, 2 * x)

    np.save("x.npy", np.arange(20.0)[:, None] / 20)
    result = train(spec_from_dict(small_spec(data__source={"name": "from_file"}), "test"))
    np.save("x.npy", np.arange(20.0)[:, None] / 21)
    with pytest.raises(DataError) as caught:
        resume(result.checkpoint)
    assert str(caught.value) == (
        "checkpoints/small_001/last.pth: data.source has changed since training (values of x; values of "
        "y; x was from 0 to 0.9, now from 0 to 0.857143); restore the old data, train again, or add "
        "--other-data to use the new data"
    )
    np.save("x.npy", np.arange(30.0)[:, None] / 30)
    with pytest.raises(DataError, match=r"changed since training \(20 rows, now 30; values of x; values of y; x was"):
        resume(result.checkpoint)
    again = resume(result.checkpoint, other_data=True)
    assert (again.run, again.epochs) == ("small_002", 12)
    assert load(again.checkpoint).loss[:6] == load(result.checkpoint).loss


def test_other_data_is_refused_if_preprocessing_was_learnt():
    def write(n):
        Path("t.csv").write_text("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(n)))

    write(20)
    source = {"name": "csv", "path": "t.csv", "target": "y"}
    spec = small_spec(data__source=source, data__standardize=True, name="a")
    cycle = small_spec(data__source=source, scheduler={"name": "one_cycle", "max_lr": 0.1}, optimizer__lr=1e-4)
    standardised, planned = (train(spec_from_dict(changed, "test"), stop=stop_after(3)) for changed in (spec, cycle))
    write(21)
    with pytest.raises(DataError, match="and its preprocessing was learnt with the old data"):
        resume(standardised.checkpoint, other_data=True)
    with pytest.raises(DataError, match="and its scheduler was planned with the old data"):
        resume(planned.checkpoint, other_data=True)


def test_other_data_in_the_middle_of_an_epoch_begins_that_anew():
    def write(n):
        Path("t.csv").write_text("x,y\n" + "".join(f"{i / n},{2 * i / n}\n" for i in range(n)))

    write(40)
    source = {"name": "csv", "path": "t.csv", "target": "y"}
    result = train(spec_from_dict(small_spec(data__source=source, data__batch_size=4), "test"), stop=stop_after(4))
    assert len(load(result.checkpoint).position) == 3
    write(20)
    again = resume(result.checkpoint, other_data=True)
    assert (again.run, again.epochs, again.outcome) == ("small_002", 6, "finished")


def damage(path):
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


@pytest.mark.parametrize("how", ["small_001", "runs/small_001", "checkpoints/small_001", "restart"])
def test_a_run_with_a_damaged_last_checkpoint_resumes_from_the_newest_good_one(linreg, how):
    changes = {"model": MLP, "checkpoint": {"every": 1, "keep": 3}}
    whole = train(spec_from_dict(small_spec(**changes), "t"), runs=Path("whole/runs"), checkpoints=Path("whole/ckpt"))
    train(spec_from_dict(small_spec(**changes), "t"), stop=stop_after(28))  # of seven a epoch
    for name in ("last", "epoch_000003"):
        damage(f"checkpoints/small_001/{name}.pth")
    answer = linreg("train", write_spec(**changes), "--resume") if how == "restart" else linreg("resume", how)
    assert (answer.code, answer.out) == (0, "checkpoints/small_001/last.pth\n")
    warned, told = answer.err.splitlines()[:2]
    assert warned.startswith("warning: checkpoints/small_001/last.pth: damaged")
    assert told.startswith("warning: resuming from checkpoints/small_001/")
    assert differences(load(whole.checkpoint), load("checkpoints/small_001/last.pth")) == []
    assert series("runs/small_001") == series("whole/runs/small_001")


def test_a_run_without_a_good_checkpoint_is_an_error(linreg):
    train(spec_from_dict(small_spec(), "t"))
    for path in Path("checkpoints/small_001").iterdir():
        damage(path)
    answer = linreg("resume", "small_001")
    assert (answer.code, answer.out) == (4, "")
    assert answer.err.startswith("error: checkpoints/small_001/last.pth: damaged")


def test_a_run_in_use_is_refused_before_anything_is_written(linreg):
    result = train(spec_from_dict(small_spec(), "test"))
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != ".lock"}
    with hold("small_001", Path("runs"), Path("checkpoints")), pytest.raises(StorageError, match="in use by another"):
        resume(result.checkpoint)
    assert before == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != ".lock"}


def test_a_state_that_does_not_fit_is_a_checkpoint_error():
    result = train(spec_from_dict(small_spec(), "test"))
    content = torch.load(result.checkpoint, weights_only=True)
    content["spec"]["model"] = {"name": "mlp", "hidden": [3]}
    torch.save(content, "x.pth")
    with pytest.raises(CheckpointError, match=r"^x.pth: does not fit what its spec builds"):
        resume("x.pth")


def command(*arguments):
    return [sys.executable, "-m", "linreg", *map(str, arguments)]


def start_and_wait(path, epochs=5):
    """Start training in a process of its own, and wait until it has saved some epochs."""
    process = subprocess.Popen(command("train", path, "-q"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    metrics, last = Path("runs/small_001/metrics.jsonl"), Path("checkpoints/small_001/last.pth")
    while not (last.exists() and metrics.exists() and len(metrics.read_text().splitlines()) >= epochs):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


LONG = {"model": MLP, "epochs": 400, "checkpoint": {"every": 5}, "writer__histograms": 3}


def test_kill_9_and_restart_is_as_if_never_killed(linreg):
    path = write_spec(**LONG)
    whole = train(spec_from_dict(small_spec(**LONG), "t"), runs=Path("whole/runs"), checkpoints=Path("whole/ckpt"))
    process = start_and_wait(path, 20)
    process.kill()
    process.communicate()
    assert linreg("runs", "--json").out.count('"interrupted"') == 1
    answer = linreg("train", path, "--resume", "-q")
    assert (answer.code, answer.out) == (0, "checkpoints/small_001/last.pth\n")
    assert differences(load(whole.checkpoint), load("checkpoints/small_001/last.pth")) == []
    assert series("runs/small_001") == series("whole/runs/small_001")
    assert Path("runs/small_001/metrics.jsonl").read_text() == Path("whole/runs/small_001/metrics.jsonl").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_prints_the_resume_command_and_exits(number, code):
    path = write_spec(**{**LONG, "epochs": 100_000})
    process = start_and_wait(path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == "interrupted; resume with: linreg resume checkpoints/small_001/last.pth\n"
    assert out == "checkpoints/small_001/last.pth\n"
    info = json.loads(Path("runs/small_001/run.json").read_text())
    assert info["outcome"] == "interrupted"
    assert load("checkpoints/small_001/last.pth").epoch == len(
        Path("runs/small_001/metrics.jsonl").read_text().splitlines()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_table_is_read_exits_at_once_without_a_run(number):
    Path("p.py").write_text(
        "import time\nfrom linreg import DATASETS, Samples\n"
        "@DATASETS.register('slow')\ndef slow() -> Samples:\n"
        "    open('reading', 'w').close()\n    time.sleep(60)\n"
    )
    path = write_spec(data__source={"name": "slow"})
    process = subprocess.Popen(command("train", path, "--plugin", "p.py"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("reading").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 2
    assert (process.returncode, err) == (128 + number, "")
    assert not Path("runs").exists()


def test_restarting_a_finished_spec_starts_a_new_run(linreg):
    path = write_spec()
    assert linreg("train", path, "--resume", "-q").out == "checkpoints/small_001/last.pth\n"
    answer = linreg("train", path, "--resume")
    assert answer.out == "checkpoints/small_002/last.pth\n"
    assert "the last run, small_001, is finished; starting a new one" in answer.err


def test_restarting_an_edited_spec_starts_a_new_run(linreg):
    train(spec_from_dict(small_spec(), "test"), stop=stop_after(3))
    answer = linreg("train", write_spec(), "epochs=3", "--resume")
    assert answer.out == "checkpoints/small_002/last.pth\n"
    assert answer.err.startswith(
        "warning: the last run, small_001, has another spec (epochs: 6 → 3); starting a new one; "
        "to continue it: linreg resume checkpoints/small_001/last.pth\n"
    )


def test_best_is_in_the_last_checkpoint_too():
    result = train(spec_from_dict(small_spec(), "test"))
    saved, best = load(result.checkpoint), load("checkpoints/small_001/best.pth")
    assert same(saved.best["states"]["model_state_dict"], best.model_state_dict)


class CrashError(Exception):
    pass


@pytest.mark.parametrize("crash_at", [1, 5, 8, 9, 14])
def test_a_crash_within_an_epoch_resumes_from_the_last_step_that_was_saved(monkeypatch, crash_at):
    """Saving by the clock happens between steps, too, so a long epoch is not lost."""
    spec = spec_from_dict(small_spec(model=MLP, epochs=4, data__batch_size=8), "test")
    whole = train(spec, runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))
    monkeypatch.setattr(saving.Saver, "is_due_by_clock", lambda saver: True)
    asked = itertools.count()

    def crash():
        if next(asked) == crash_at:
            raise CrashError
        return False

    with pytest.raises(CrashError):
        train(spec, stop=crash)
    saved = load("checkpoints/small_001/last.pth")
    # an epoch has five batches to train on and two to validate on, and a pause before each and at its end
    assert (saved.epoch, len(saved.position)) == {1: (0, 0), 5: (0, 4), 8: (1, 0), 9: (1, 0), 14: (1, 5)}[crash_at]
    result = resume("checkpoints/small_001/last.pth")
    assert differences(load(whole.checkpoint), load(result.checkpoint)) == []
    assert series("runs/small_001") == series("whole/runs/small_001")


def test_a_crash_between_the_last_epoch_and_the_end_adds_no_epochs(linreg, monkeypatch):
    """By then every epoch may be saved already, so that nothing is left to train."""

    def crash(*arguments, **named):
        raise CrashError

    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr("linreg.experiment.session.write_end", crash)
        train(spec_from_dict(small_spec(checkpoint={"every": 1}), "test"))
    assert load("checkpoints/small_001/last.pth").epoch == 6
    with pytest.raises(UsageError, match="already has 6 epochs"):
        resume("checkpoints/small_001/last.pth", ["epochs=5"])
    answer = linreg("train", write_spec(checkpoint={"every": 1}), "--resume", "-q")
    assert answer.out == "checkpoints/small_001/last.pth\n"
    saved = load(answer.out.strip())
    assert (saved.epoch, saved.outcome) == (6, "finished")
    assert json.loads(Path("runs/small_001/run.json").read_text())["outcome"] == "finished"


def test_epochs_written_after_the_checkpoint_are_not_duplicated():
    """Of the epoch, too, that comes right after it."""
    spec = spec_from_dict(small_spec(checkpoint={"every": 2}, writer__histograms=1), "test")
    train(spec, runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))

    def crash(record, experiment):
        if record.epoch == 2:
            raise CrashError

    with pytest.raises(CrashError):
        train(spec, report=crash)
    assert load("checkpoints/small_001/last.pth").epoch == 2
    assert len(Path("runs/small_001/metrics.jsonl").read_text().splitlines()) == 3
    resume("checkpoints/small_001/last.pth")
    assert Path("runs/small_001/metrics.jsonl").read_text() == Path("whole/runs/small_001/metrics.jsonl").read_text()
    assert series("runs/small_001") == series("whole/runs/small_001")


def test_double_precision_and_runs_without_validation_resume_exactly():
    assert_as_if_never_interrupted({"dtype": "float64", "model": MLP}, 7)
    for folder in ("runs", "checkpoints", "whole"):
        shutil.rmtree(folder)
    assert_as_if_never_interrupted({"data__split": {"train_ratio": 1.0}, "model": MLP}, 7)


def test_several_targets_are_trained_resumed_and_predicted(linreg):
    @DATASETS.register("two_targets")
    def two_targets() -> Samples:
        x = np.random.RandomState(0).rand(40, 3)
        return Samples(x, np.stack([x.sum(axis=1), x[:, 0]], axis=1), target_names=["total", "first"])

    assert_as_if_never_interrupted({"data__source": {"name": "two_targets"}, "model": MLP}, 7)
    metrics = json.loads(linreg("evaluate", "--json").out)["metrics"]
    assert list(metrics) == ["total", "first"]
    (line,) = linreg("predict", "--inputs", "1,2,3").out.splitlines()
    assert len(line.split(",")) == 2


def test_two_signals_at_once_end_it_and_lose_nothing(linreg):
    path = write_spec(**{**LONG, "epochs": 100_000})
    process = start_and_wait(path)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    assert json.loads(linreg("runs", "--json").out)[0]["outcome"] == "interrupted"
    done = load("checkpoints/small_001/last.pth").epoch
    assert linreg("resume", "checkpoints/small_001/last.pth", "-q", "--epochs", done + 2).code == 0


def test_the_best_checkpoint_keeps_the_spec_that_it_was_trained_by():
    train(spec_from_dict(small_spec(epochs=12, optimizer__lr=0.4), "test"))
    best = load("checkpoints/small_001/best.pth")
    result = resume("checkpoints/small_001/last.pth", ["optimizer.lr=1e-9", "epochs=14"])
    again = load(Path(result.checkpoint).with_name("best.pth"))
    if again.epoch == best.epoch:
        assert again.spec == best.spec
        assert again.resumed_at == []
    assert again.spec["optimizer"]["lr"] == again.optimizer_state_dict["param_groups"][0]["lr"]


def test_the_best_epoch_is_known_even_where_best_pth_was_not_wanted():
    result = train(spec_from_dict(small_spec(checkpoint={"best": False}), "test"))
    assert not Path("checkpoints/small_001/best.pth").exists()
    assert load(result.checkpoint).best_epoch == result.best_epoch
    resume(result.checkpoint, ["checkpoint.best=true", "optimizer.lr=0.1", "epochs=7"])
    assert Path("checkpoints/small_001/best.pth").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss={name: mae}", "loss.name: mse → mae: losses before and after would not be comparable; train again"),
        (
            "data.batch_size=full",
            "data.batch_size: 16 → full: the checkpoint is within an epoch; finish that epoch first",
        ),
    ],
)
def test_changes_that_would_mix_two_experiments_are_refused(override, message):
    result = train(spec_from_dict(small_spec(), "test"), stop=stop_after(3))
    with pytest.raises(UsageError) as caught:
        resume(result.checkpoint, [override])
    assert str(caught.value) == message


def test_a_finished_one_cycle_schedule_resumes_in_its_own_run():
    result = train(spec_from_dict(small_spec(scheduler={"name": "one_cycle", "max_lr": 0.2}), "test"))
    again = resume(result.checkpoint)
    assert (again.run, again.epochs) == ("small_001", 12)
    assert len(set(load(again.checkpoint).lr[6:])) == 1


def test_histograms_of_before_stay_when_no_more_are_asked_for():
    result = train(spec_from_dict(small_spec(writer__histograms=2), "test"))
    resume(result.checkpoint, ["writer.histograms=0"])
    found = series("runs/small_001")
    assert [step for step, _ in found["", "histogram", "parameters/0.weight"]] == [1, 3, 5]


def test_histograms_are_not_doubled_by_a_kill_before_the_old_event_files_are_removed():
    result = train(spec_from_dict(small_spec(writer__histograms=2), "test"))
    (events,) = Path("runs/small_001").glob("events.out.tfevents.*")
    shutil.copy(events, f"{events}.copy")
    resume(result.checkpoint)
    found = series("runs/small_001")
    assert [step for step, _ in found["", "histogram", "parameters/0.weight"]] == [1, 3, 5, 7, 9, 11]


def test_temporary_files_of_a_killed_save_are_removed_by_a_new_run(linreg):
    path = write_spec()
    train(spec_from_dict(small_spec(), "test"))
    with hold("small_001", Path("runs"), Path("checkpoints")):
        Path("checkpoints/small_001/.last.pth.123.tmp").write_text("half")
        Path("runs/small_001/.run.json.123.tmp").write_text("half")
        linreg("train", path, "-q")
        assert len(list(Path().rglob(".*.tmp"))) == 2  # of one who goes on with that run
    linreg("train", path, "-q")
    assert not list(Path().rglob(".*.tmp"))


def test_temporary_files_of_a_killed_save_are_removed():
    result = train(spec_from_dict(small_spec(), "test"))
    Path("checkpoints/small_001/.last.pth.123.tmp").write_text("half")
    Path("runs/small_001/.run.json.123.tmp").write_text("half")
    resume(result.checkpoint)
    assert not list(Path().rglob(".*.tmp"))


def test_no_old_checkpoint_is_removed_if_the_new_one_does_not_read_back(monkeypatch):
    replace_file = saving.replace_file

    def replace_and_damage(path, content):
        replace_file(path, content)
        if path.name == "last.pth":
            damage(path)

    monkeypatch.setattr(saving, "replace_file", replace_and_damage)
    message = r"^checkpoints/small_001/last.pth: does not read back as it was written; check the disk$"
    with pytest.raises(StorageError, match=message):
        train(spec_from_dict(small_spec(checkpoint={"every": 1, "keep": 1}), "test"))
    assert [load(path).epoch for path in sorted(Path("checkpoints/small_001").glob("epoch_*.pth"))] == [1, 2]


def test_temporary_files_of_a_running_process_are_kept():
    living = Path(f"checkpoints/.latest.{os.getppid()}.tmp")
    living.parent.mkdir()
    living.write_text("half")
    with create("small", Path("runs"), Path("checkpoints")):
        assert living.exists()


def test_a_model_that_is_not_finite_is_never_saved():
    spec = spec_from_dict(small_spec(), "test")
    experiment = build(spec)
    progress = state.Progress(experiment.loaders.generator.get_state(), planned_epochs=6)
    with create("small", Path("runs"), Path("checkpoints")) as run, torch.no_grad():
        run.start_session(new_session(experiment.device, "auto", 0, None), data_fingerprint="", spec="")
        experiment.model[0].bias.fill_(float("nan"))
        with pytest.raises(
            DivergedError,
            match=r"^epoch 0: model_state_dict.0.bias is no longer finite; lower optimizer.lr \(it is 0.1\)",
        ):
            saving.Saver(experiment, progress, run).save()
        experiment.model[0].bias.fill_(0.0)
        progress.position = [float("inf")]
        with pytest.raises(DivergedError, match=r"^epoch 0, step 0: loss is inf"):
            saving.Saver(experiment, progress, run).save()
    assert not list(Path("checkpoints").rglob("*.pth"))


def test_states_of_other_types_are_saved_as_plain_values():
    """An optimizer of one's own has NumPy's numbers, other mappings, and one tensor under two names."""

    @OPTIMIZERS.register("odd")
    def odd(params, *, lr: float = 0.01) -> torch.optim.Optimizer:
        optimizer, shared = torch.optim.SGD(params, lr, maximize=True), torch.ones(3)
        optimizer.param_groups[0] |= {"size": shared.shape, "scale": np.float64(0.5), "order": OrderedDict(b=1, a=2)}
        for parameter in optimizer.param_groups[0]["params"]:
            optimizer.state[parameter] = {"one": shared, "others": (shared, shared[:2])}
        return optimizer

    saved = load(train(spec_from_dict(small_spec(optimizer={"name": "odd"}), "t")).checkpoint)
    assert saved.best_epoch == 0  # the states of the best epoch are copies
    group, states = saved.optimizer_state_dict["param_groups"][0], saved.optimizer_state_dict["state"]
    assert (group["size"], group["scale"], group["order"]) == ((3,), 0.5, {"b": 1, "a": 2})
    assert [type(group[key]) for key in ("size", "scale", "order")] == [tuple, float, dict]
    assert all(state["one"].tolist() == state["others"][0].tolist() == [1.0, 1.0, 1.0] for state in states.values())


def test_tracing_the_graph_draws_nothing_that_training_would_have_drawn():
    @MODELS.register("noisy")
    def noisy(n_features: int, n_targets: int) -> torch.nn.Module:
        class Noisy(torch.nn.Linear):
            def forward(self, x):
                noise = torch.nn.functional.dropout(super().forward(x), 0.3, training=True)
                return noise * random.random() * np.random.rand()

        return Noisy(n_features, n_targets)

    plain = train(spec_from_dict(small_spec(model={"name": "noisy"}), "test"))
    traced = train(spec_from_dict(small_spec(model={"name": "noisy"}, writer__graph=True), "test"))
    assert load(plain.checkpoint).loss == load(traced.checkpoint).loss


def test_a_damaged_checkpoint_of_a_run_names_the_newest_good_one_beside_it(linreg):
    train(spec_from_dict(small_spec(checkpoint={"every": 1, "keep": 3}), "t"))
    damage("checkpoints/small_001/last.pth")
    for arguments in (("resume", "L"), ("predict", "L", "--inputs", "0.2"), ("inspect", "L"), ("evaluate", "L")):
        answer = linreg(*(argument.replace("L", "checkpoints/small_001/last.pth") for argument in arguments))
        assert (answer.code, answer.out) == (4, "")
        assert answer.err.startswith("error: checkpoints/small_001/last.pth: damaged")
        assert answer.err.endswith("the newest good one there is checkpoints/small_001/best.pth\n")
    for name in ("alone.pth", "checkpoints/small_001/strange.pth"):  # not a name that a run writes
        shutil.copy("checkpoints/small_001/last.pth", name)
        assert "newest good" not in linreg("inspect", name).err


@pytest.mark.parametrize(
    ("every", "saved"),
    [
        ({"every_seconds": 1e-9}, True),
        ({"every": 1000, "every_seconds": 1e-9}, True),
        ({"every": 1000}, False),
        ({"every_seconds": 1000}, False),
        ({}, False),  # a second has not gone by
    ],
    ids=str,
)
def test_checkpoints_come_by_epochs_by_seconds_or_by_both(every, saved):
    asked = itertools.count()

    def crash():
        if next(asked) == 9:
            raise CrashError
        return False

    with pytest.raises(CrashError):
        train(spec_from_dict(small_spec(checkpoint=every, data__batch_size=8), "test"), stop=crash)
    assert Path("checkpoints/small_001/last.pth").exists() == saved
    if saved:
        load("checkpoints/small_001/last.pth")


def test_a_change_is_kept_by_a_run_that_is_stopped_before_its_first_step():
    result = train(spec_from_dict(small_spec(), "test"))
    stopped = resume(result.checkpoint, ["optimizer.lr=0.001", "epochs=8"], stop=stop_after(1))
    saved, best = load(stopped.checkpoint), load(Path(stopped.checkpoint).with_name("best.pth"))
    assert (saved.epoch, saved.position, best.epoch) == (6, [], 6)
    assert saved.optimizer_state_dict["param_groups"][0]["lr"] == saved.spec["optimizer"]["lr"] == 0.001
    assert best.optimizer_state_dict["param_groups"][0]["lr"] == best.spec["optimizer"]["lr"] == 0.1
    assert load(resume(stopped.checkpoint).checkpoint).lr == [0.1] * 6 + [0.001] * 2


@pytest.mark.parametrize("changes", [{}, {"epochs": 60, "early_stopping": {"patience": 3, "min_delta": 1e-3}}], ids=str)
@pytest.mark.parametrize("name", ["write_plot", "make_result"])
def test_a_crash_after_the_last_save_is_repaired(linreg, monkeypatch, changes, name):
    """The checkpoint says that all is done; the picture, or what run.json says of it, is missing."""
    changes = {"checkpoint": {"every": 1}, "writer__plots": True, **changes}
    whole = train(spec_from_dict(small_spec(**changes), "t"), runs=Path("whole/runs"), checkpoints=Path("whole/ckpt"))

    def crash(*arguments, **named):
        raise CrashError

    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr(f"linreg.experiment.session.{name}", crash)
        train(spec_from_dict(small_spec(**changes), "test"))
    info = Path("runs/small_001/run.json")
    if name == "make_result":  # as if it was killed just before
        info.write_text(json.dumps({**json.loads(info.read_text()), "outcome": "running"}))
    answer = linreg("train", write_spec(**changes), "--resume", "-q")
    assert answer.out == "checkpoints/small_001/last.pth\n"
    assert differences(load(whole.checkpoint), load("checkpoints/small_001/last.pth")) == []
    assert json.loads(info.read_text())["outcome"] == whole.outcome
    assert Path("runs/small_001/losses.png").is_file()
    assert series("runs/small_001") == series("whole/runs/small_001")
    assert linreg("train", write_spec(**changes), "--resume", "-q").out == "checkpoints/small_002/last.pth\n"


def test_a_run_saved_before_its_first_step_resumes(monkeypatch):
    """The compiled engine has made room for the optimizer's state by then."""
    changes = {"engine": "compiled", "optimizer": {"name": "adam", "lr": 0.01}}
    assert_as_if_never_interrupted(changes, 1)


def test_a_change_asked_of_a_run_that_was_killed_at_its_end_is_trained(monkeypatch):
    def crash(*arguments, **named):
        raise CrashError

    with monkeypatch.context() as patch, pytest.raises(CrashError):
        patch.setattr("linreg.experiment.session.write_end", crash)
        train(spec_from_dict(small_spec(checkpoint={"every": 1}), "test"))
    again = resume("checkpoints/small_001/last.pth", ["optimizer.lr=0.001"])
    assert (again.run, load(again.checkpoint).lr) == ("small_002", [0.1] * 6 + [0.001] * 6)


def test_a_state_in_a_tuple_is_copied_for_the_best_epoch_too():
    tensor = torch.ones(2)
    copied = state.copy_of({"a": (tensor, [tensor], 0.5)})
    tensor.zero_()
    assert [copied["a"][0].tolist(), copied["a"][1][0].tolist(), copied["a"][2]] == [[1.0, 1.0], [1.0, 1.0], 0.5]
