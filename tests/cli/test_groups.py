"""Commands in a group of processes: who does what, and what a signal or a lost process does to them."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from linreg.checkpoint import load
from linreg.cli.app import SHARED, app
from linreg.cli.signals import StopFlag, Stopped, stop_on_signals
from linreg.runs.records import read_info
from tests.conftest import same, small_spec, write_spec
from tests.faults.groups import ended, start_fresh, start_group

NOT_SHARED = sorted({one.name for one in [*app.registered_commands, *app.registered_groups]} - SHARED)
LONG = small_spec(
    epochs=100_000, data__shards=2, model={"name": "mlp", "hidden": [4]}, checkpoint={"every_seconds": 0.1}
)


@pytest.fixture
def second(monkeypatch):
    """The environment of the second of two processes."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("command", NOT_SHARED)
def test_only_the_first_process_does_a_command_that_is_not_shared(linreg, second, command):
    answer = linreg(command, "no such argument")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_the_first_process_of_a_group_does_a_command_by_itself(linreg, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "name: small" in linreg("check", write_spec()).out


def test_a_group_with_more_processes_than_shards_is_refused_by_each(linreg, second):
    answer = linreg("train", write_spec(data__shards=1))
    assert answer.code == 2
    assert "error: rank 1: small.yaml:" in answer.err
    assert "data.shards: 1 for 2 processes, and each needs one; use more, or fewer processes" in answer.err


def test_a_repeated_signal_lets_a_process_of_a_group_save(second):
    with stop_on_signals() as stop:
        assert not stop()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    assert stop.exit_code == 143
    with pytest.raises(Stopped), stop_on_signals():  # nobody watches
        os.kill(os.getpid(), signal.SIGTERM)


def begin(folder, start):
    """Start a long training by two processes, and wait until it has saved. start: starts the launcher; by `start_fresh`
    it forks them, and by `Forks.start` it starts fresh ones, because it has imported torch. Return the launcher."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(LONG))
    command = ["linreg", "train", "spec.yaml", "--quiet", "--processes", "2"]
    launcher = start(command, cwd=folder, env=dict(os.environ))
    last, deadline = folder / "checkpoints/small_001/last.pth", time.monotonic() + 90
    while not last.exists() and time.monotonic() < deadline and launcher.poll() is None:
        time.sleep(0.05)
    return launcher


def ranks_of(launcher):
    """Return the processes of a launcher, in the order of their ranks, in which it has started them."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            numbers = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else ["", ""]
        except OSError:  # it has ended
            continue
        if numbers[1] == str(launcher.pid):
            found.append((int(numbers[19]), int(folder.name)))  # the time of its start
    return [pid for _, pid in sorted(found)]


@pytest.mark.parametrize(
    ("receiver", "kind"), [("launcher", "forked"), ("rank 1", "forked"), ("rank 1", "fresh"), ("all", "forked")]
)
def test_a_signal_to_any_process_saves_the_run_of_all_once(tmp_path, receiver, kind, linreg, forks):
    launcher = begin(tmp_path, start_fresh if kind == "forked" else forks.start)
    ranks = ranks_of(launcher)
    assert len(ranks) == 2
    receivers = {"launcher": [launcher.pid], "rank 1": [ranks[1]], "all": [launcher.pid, *ranks]}[receiver]
    begin_of_end = time.monotonic()
    for pid in receivers:
        os.kill(pid, signal.SIGTERM)
    codes, errors = ended([launcher])
    assert codes == [143], errors
    assert time.monotonic() - begin_of_end < 25  # torchrun kills after 30 s
    assert errors == ["interrupted; resume with: linreg resume checkpoints/small_001/last.pth\n"]
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    info, saved = read_info(tmp_path / "runs/small_001"), load(tmp_path / "checkpoints/small_001/last.pth")
    assert (info["outcome"], saved.outcome) == ("interrupted", "interrupted")
    if receiver == "all":
        n_epochs = saved.epoch + 2
        assert linreg("resume", "small_001", "--epochs", n_epochs).code == 0
        whole = json.loads(linreg("train", "spec.yaml", "--epochs", n_epochs, "--name", "whole", "--json").out)
        found, expected = load("checkpoints/small_001/last.pth"), load(whole["checkpoint"])
        assert found.loss == expected.loss
        assert same(found.model_state_dict, expected.model_state_dict)


def test_the_end_of_the_agent_counts_as_a_signal():
    assert not StopFlag(agent=os.getppid())()
    stop = StopFlag(agent=os.getpid())  # not the parent
    assert stop()
    assert stop.exit_code == 143


@pytest.mark.parametrize("kind", ["forked", "fresh"])
def test_a_process_that_is_killed_is_reported_by_its_rank(tmp_path, monkeypatch, kind, forks):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    launcher = begin(tmp_path, start_fresh if kind == "forked" else forks.start)
    os.kill(ranks_of(launcher)[1], signal.SIGKILL)
    codes, errors = ended([launcher])
    assert codes == [137], errors
    assert errors[0].count("error: rank 1: ended by SIGKILL; resume the run\n") == 1
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("kind", ["forked", "fresh"])
def test_processes_stop_when_their_launcher_is_killed(tmp_path, kind, forks):
    launcher = begin(tmp_path, start_fresh if kind == "forked" else forks.start)
    ranks = ranks_of(launcher)
    assert len(ranks) == 2
    launcher.kill()
    launcher.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    info, saved = read_info(tmp_path / "runs/small_001"), load(tmp_path / "checkpoints/small_001/last.pth")
    assert (info["outcome"], saved.outcome) == ("interrupted", "interrupted")


def test_a_signal_after_the_last_epoch_ends_all_processes(tmp_path):
    """One that has finished, and has had a signal, must not wait for the others in torch's launcher."""
    write_spec(str(tmp_path / "spec.yaml"), data__shards=2, epochs=2, writer={"plots": True})
    command = ["linreg", "train", "spec.yaml", "--quiet", "--processes", "2"]
    launcher = start_fresh(command, cwd=tmp_path, env=dict(os.environ))
    saved, deadline = tmp_path / "checkpoints/small_001/last.pth", time.monotonic() + 60
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    begin_of_end = time.monotonic()
    launcher.terminate()  # while the first process draws the picture
    codes, errors = ended([launcher])
    assert codes in ([143], [0]), errors  # 0 on a machine that draws fast
    assert time.monotonic() - begin_of_end < 20
    assert load(saved).outcome == "finished"


def test_a_run_that_was_killed_at_its_end_is_finished_at_once(tmp_path, linreg):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec(data__shards=2, epochs=2)))
    assert linreg("train", "spec.yaml").code == 0
    info = tmp_path / "runs/small_001/run.json"
    info.write_text(info.read_text().replace('"outcome": "finished"', '"outcome": "running"'))
    begin_of_end = time.monotonic()
    resumed = start_fresh(["linreg", "resume", "small_001", "--processes", "2"], cwd=tmp_path, env=dict(os.environ))
    codes, errors = ended([resumed])
    assert codes == [0], errors
    assert time.monotonic() - begin_of_end < 30
    assert read_info(tmp_path / "runs/small_001")["outcome"] == "finished"


def test_a_process_that_does_not_start_is_reported_by_its_rank(tmp_path, forks):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(LONG))

    def start(command, *, env, **places):
        return forks.start(["linreg", "--version"] if env["RANK"] == "2" else command, env=env, **places)

    processes = start_group(start, ["linreg", "train", "spec.yaml", "data.shards=3"], 3, timeout=4, cwd=tmp_path)
    codes, errors = ended(processes)
    assert codes == [8, 8, 0], errors
    assert "error: rank 2 did not start in time; see its message, and run the command again" in errors[0]
    assert "error: rank 1: rank 2 did not start in time" in errors[1]
    assert not (tmp_path / "runs").exists()
