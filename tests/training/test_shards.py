"""Shards: the same losses and parameters, to the last bit, on any number of processes."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

from linreg.checkpoint import load
from linreg.errors import GroupError, UsageError
from linreg.experiment import sharing
from linreg.experiment.building import build
from linreg.experiment.group import open_exchange
from linreg.experiment.session import train
from linreg.spec.schema import load_spec, spec_from_dict
from linreg.system.place import Place
from linreg.training.shards import group
from linreg.training.shards.exchange import add_in_order, shards_of
from linreg.training.shards.group import GroupExchange
from linreg.training.shards.signs import Signs
from tests.conftest import small_spec, write_spec
from tests.faults.groups import ended, start_group


def test_gradients_of_shards_are_those_of_the_mini_batch():
    """One step of gradient descent on all rows, in float64, against the formula."""
    spec = small_spec(
        data__shards=3, data__batch_size="full", dtype="float64", optimizer__lr=0.1, epochs=1,
        data__source={"name": "friedman1", "n_samples": 50, "n_features": 5},
    )  # fmt: skip
    experiment = build(spec_from_dict(spec, "test"))
    before = [parameter.detach().clone() for parameter in experiment.network.parameters()]
    x, y = experiment.dataset.rows(torch.as_tensor(experiment.data.train_data.indices))
    loss = experiment.engine.train_epoch()
    error = x @ before[0].T + before[1] - y
    assert loss == pytest.approx(float((error**2).mean()), rel=1e-14)
    after = list(experiment.network.parameters())
    np.testing.assert_allclose(after[0].detach(), before[0] - 0.1 * 2 * (error.T @ x) / len(x), rtol=1e-12)
    np.testing.assert_allclose(after[1].detach(), before[1] - 0.1 * 2 * error.mean(0), rtol=1e-12)


def test_each_row_is_in_one_mini_batch_of_an_epoch():
    spec = small_spec(data__shards=4, data__batch_size=7, data__source={"name": "linear", "n_samples": 53})
    experiment = build(spec_from_dict(spec, "test"))
    seen, orders = [], []
    rows = experiment.dataset.rows
    experiment.dataset.rows = lambda index: seen.append(index.tolist()) or rows(index)
    for _ in range(2):
        seen.clear()
        experiment.engine.train_epoch()
        orders.append([row for piece in seen for row in piece])
        assert sorted(orders[-1]) == sorted(experiment.data.train_data.indices)
        assert {len(piece) for piece in seen} <= {1, 2, 3}
    assert orders[0] != orders[1]


def test_shards_are_divided_among_processes_in_their_order():
    for n_shards in (1, 4, 7):
        for size in range(1, n_shards + 1):
            parts = [shards_of(n_shards, rank, size) for rank in range(size)]
            assert [shard for part in parts for shard in part] == list(range(n_shards))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    rows = torch.tensor([[1e20], [1.0], [-1e20]])
    assert add_in_order(rows).tolist() == [0.0]  # in another order it would be 1


def test_a_resumed_run_continues_in_the_middle_of_an_epoch(linreg):
    changes = {"data__shards": 3, "model": {"name": "mlp", "hidden": [6], "dropout": 0.2}, "data__batch_size": 4}
    path = write_spec(**changes)
    whole = json.loads(linreg("train", path, "--json").out)
    calls = 0

    def stop():
        nonlocal calls
        calls += 1
        return calls == 9

    stopped = train(load_spec(path), stop=stop)
    assert stopped.outcome == "interrupted"
    resumed = json.loads(linreg("resume", stopped.run, "--json").out)
    assert (resumed["loss"], resumed["val_loss"]) == (whole["loss"], whole["val_loss"])


def test_check_says_whether_processes_pay(linreg, monkeypatch):
    """An exchange of a linear model takes 0.25 ms, and five of them are worthwhile."""
    path = write_spec(data__shards=2)
    assert "shards: a step" not in linreg("check", write_spec("one.yaml")).err
    measure, steps = sharing._seconds_of_step, iter([0.5, 0.25e-3, 0.5, 0.5, 0.5] * 2)  # the fastest counts
    monkeypatch.setattr(sharing, "_seconds_of_step", lambda _: next(steps))
    text = "shards: a step takes about 0.25 ms, and its exchange between processes 0.25 ms; more processes make it"
    assert f"{text} slower below a batch size of about 80\n" in linreg("check", path).err
    checked = json.loads(linreg("check", path, "--json").out)
    assert (checked["step_seconds"], checked["worthwhile_batch_size"]) == (0.25e-3, 80)
    monkeypatch.setattr(sharing, "_seconds_of_step", lambda _: 1.3e-3)
    assert "a step takes about 1.3 ms" in linreg("check", path).err
    assert "0.25 ms; more processes make it faster\n" in linreg("check", path).err
    monkeypatch.setattr(sharing, "_seconds_of_step", measure)
    assert json.loads(linreg("check", path, "--json").out)["step_seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--processes", "2"], "data.shards: missing, and 2 processes share one run; add for instance shards: 2"),
        (["--processes", "3", "data.shards=2"], "data.shards: 2 for 3 processes, and each needs one"),
        (["data.shards=2", "engine=compiled"], "data.shards: engine: compiled has no shards; remove one"),
        (["data.shards=0"], "data.shards: must be > 0, got 0"),
    ],
)
def test_what_processes_cannot_share_is_refused_before_they_start(linreg, arguments, problem):
    answer = linreg("train", write_spec(), *arguments)
    assert answer.code == 2
    assert problem in answer.err


def test_a_command_with_processes_that_fails_leaves_the_environment_as_it_was(linreg, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    diverging = linreg("train", write_spec(data__shards=2, optimizer__lr=1e30), "--processes", "2")
    assert diverging.code == 6
    assert dict(os.environ) == before


def test_a_run_continues_with_another_number_of_processes(linreg, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = write_spec(data__shards=3, epochs=4)
    whole = json.loads(linreg("train", path, "--epochs", "8", "--name", "whole", "--json").out)
    assert linreg("train", path).code == 0
    before = dict(os.environ)
    assert linreg("resume", "small_001", "--epochs", "8", "--processes", "2").code == 0
    assert dict(os.environ) == before
    found = load("checkpoints/small_001/last.pth")
    assert (found.loss[-1], found.val_loss[-1]) == (whole["loss"], whole["val_loss"])


def test_a_command_that_torchrun_has_restarted_resumes_its_run(linreg, monkeypatch):
    path = write_spec(data__shards=2, epochs=30)
    calls = iter(range(1000))
    stopped = train(load_spec(path), stop=lambda: next(calls) == 20)
    assert stopped.outcome == "interrupted"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = json.loads(linreg("train", path, "--json").out)
    assert (again["run"], again["outcome"]) == (stopped.run, "finished")


def group_of(rank, size=2, timeout=20):
    return GroupExchange(Place(rank, size), timeout=timeout)


def test_processes_that_were_restarted_do_not_meet_those_before_them():
    """The store of torchrun has what the processes wrote that it has ended."""
    server = dist.TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
    deadline = time.monotonic() + 20

    def meet(rank):
        return group_of(rank)._meet(dist.TCPStore("127.0.0.1", server.port, 2, False), deadline)

    with ThreadPoolExecutor(2) as threads:
        first = [meeting.result() for meeting in [threads.submit(meet, rank) for rank in (0, 1)]]
        first[0].set("address", "of a process that has ended")
        assert first[1].get("address") == b"of a process that has ended"
        late = threads.submit(meet, 1)
        time.sleep(0.2)
        assert not late.done()  # all that it waits for is there, from before
        second = [threads.submit(meet, 0).result(), late.result()]
    assert not any(store.check(["address"]) for store in second)
    second[0].set("address", "new")
    assert second[1].get("address") == b"new"


def test_a_process_that_hangs_while_the_group_connects_is_noticed(monkeypatch):
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: time.sleep(2))  # gloo waits without end
    with pytest.raises(GroupError, match="rank 1 did not connect in time; see its message"):
        group_of(0, timeout=0.1)._connect(dist.HashStore())


def test_a_process_that_hangs_is_noticed_after_the_timeout(tmp_path, forks):
    long = small_spec(data__shards=2, epochs=100_000, model={"name": "mlp", "hidden": [4]})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(long))
    command = ["linreg", "train", "spec.yaml", "--quiet"]
    processes = start_group(forks.start, command, 2, timeout=4, cwd=tmp_path)
    metrics, deadline = tmp_path / "runs/small_001/metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGSTOP)
    answer = processes[0].communicate(timeout=60)[1]
    assert processes[0].returncode == 8
    assert "error: rank 1 did not answer in time; see its message, and resume the run" in answer
    processes[1].kill()
    processes[1].communicate()


def test_processes_that_train_together_need_a_gpu_each(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="2 processes on this machine, and 1 GPU; start one process for each GPU, or"):
        open_exchange(load_spec(write_spec(data__shards=2, device="auto")))
    assert not chosen
    assert open_exchange(load_spec(write_spec(data__shards=2, device="cpu"))).size == 2
    assert open_exchange(None).size == 2  # models of their own may share one
    assert chosen == [0]


def signs_of_two(timeout=0.3):
    store = dist.HashStore()
    return [Signs(store, rank, 2, timeout) for rank in (0, 1)]


def test_a_process_without_a_sign_is_silent_after_the_timeout():
    first, second = signs_of_two()
    silent = first.watch()
    assert silent() is None
    deadline = time.monotonic() + 0.9
    while time.monotonic() < deadline:
        second.give()
        assert silent() is None
        time.sleep(0.02)
    time.sleep(0.4)
    assert silent() == 1


def test_all_hear_of_a_process_that_was_asked_to_stop():
    first, second = signs_of_two()
    asked = []
    first.asked, second.asked = (lambda: False), lambda: bool(asked)
    for one in (second, first):
        one.give(at_once=True)
        assert not one.hears_stop
    asked.append(True)
    second.give()  # not due
    assert not second.hears_stop
    for one in (second, first):
        one.give(at_once=True)
        assert one.hears_stop


def test_long_work_without_steps_gives_signs(monkeypatch):
    first, second = signs_of_two()
    monkeypatch.setattr(group, "_formed", [group.Formed(second, None)])
    silent = first.watch()
    assert silent() is None
    with group_of(1).at_work():
        time.sleep(0.6)
        assert silent() is None
    time.sleep(0.6)
    assert silent() == 1


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LINREG_TIMEOUT", "soon", "LINREG_TIMEOUT=soon: must be a number of seconds > 0"),
        ("LINREG_TIMEOUT", "0", "LINREG_TIMEOUT=0: must be a number of seconds > 0"),
        ("RANK", "2", "the environment has RANK=2, WORLD_SIZE=2, LOCAL_RANK=0; start the processes by torchrun"),
        ("RANK", "0", "the environment lacks MASTER_ADDR and MASTER_PORT; start the processes by torchrun"),
        ("RANK", "x", "the environment has RANK=x, WORLD_SIZE=2, LOCAL_RANK=0"),
    ],
)
def test_a_wrong_environment_of_a_group_is_refused(linreg, monkeypatch, name, value, problem):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, value)
    answer = linreg("train", write_spec(data__shards=2))
    assert answer.code == 2
    assert problem in answer.err


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_what_float32_loses_is_seen_in_the_rows_of_all_processes(tmp_path, linreg, forks, memory):
    lines = [f"{100_000_000 + (i % 4 if i >= 40 else 0)},{i % 7}" for i in range(80)]  # the first 40 rows do not vary
    (tmp_path / "t.csv").write_text("\n".join(["t,y", *lines]) + "\n")
    table = {"name": "csv", "path": "t.csv", "target": "y"}
    write_spec("spec.yaml", data__source=table, data__shards=2, data__memory=memory, epochs=1, optimizer__lr=1e-20)
    command = ["train", "spec.yaml", "--quiet"]
    warning = linreg(*command).err
    assert "column 't' varies too little for float32" in warning
    codes, errors = ended(start_group(forks.start, ["linreg", *command], 2, cwd=tmp_path))
    assert codes == [0, 0], errors
    assert errors == [warning, ""]
