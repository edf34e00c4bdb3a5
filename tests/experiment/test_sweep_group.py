"""Sweeps by several processes: the results of one process, also after one of them is killed."""

import json
import os
import signal
import time

import pytest
import yaml

from linreg.checkpoint import load, load_states, save_states
from linreg.experiment.sweeps.group import join_parts, keep_states, own_trials
from linreg.experiment.sweeps.members import SharedData, members_of
from linreg.experiment.sweeps.records import Results
from linreg.experiment.sweeps.rounds import Rounds
from linreg.experiment.sweeps.sweeping import first_trials
from linreg.runs.records import read_info
from linreg.spec.sweeps import Trial, load_sweep
from linreg.training.shards import Exchange
from tests.conftest import same, small_spec, write_spec
from tests.faults.groups import ended, environment_of, free_port, start_group

LONG = {"model": {"name": "mlp", "hidden": [6]}, "epochs": 500, "optimizer": {"name": "adam", "lr": 0.01}}
GRID = {"optimizer.lr": [0.001, 0.003, 0.01, 0.02, 1e30], "seed": [1, 2]}
SWEEPS = {
    "grid": {"parameters": GRID},
    "halving": {"parameters": GRID, "halving": {"min_epochs": 100}},
    "tpe": {"parameters": {"optimizer.lr": {"min": 0.001, "max": 0.1, "log": True}}, "method": "tpe", "trials": 14},
}
COMMAND = ["linreg", "sweep", "spec.yaml", "--quiet", "--resume"]


def lines_of(folder):
    """Return the results by trial, without how they were trained."""
    lines = map(json.loads, (folder / "runs/small_sweep_001/results.jsonl").read_text().splitlines())
    found = [(line["trial"], {key: value for key, value in line.items() if key != "how"}) for line in lines]
    assert len(dict(found)) == len(found)
    return dict(found)


def make_folder(path, block):
    path.mkdir()
    longer = {} if "halving" in block or "method" in block else {"epochs": 2000}  # than it takes to save states
    (path / "spec.yaml").write_text(yaml.safe_dump(small_spec(**LONG | longer, sweep=block)))
    return path


def is_in_second_round(folder, kind):
    """Whether the second process has something to lose, which depends on results of the others."""
    first, states = folder / "runs/small_sweep_001", folder / "checkpoints/small_sweep_001/sweep.1.pth"
    if kind == "grid":
        return states.exists()
    file = first / ("trials.jsonl" if kind == "tpe" else "results.1.jsonl")
    text = file.read_text() if file.exists() else ""
    return text.count("\n") > 10 if kind == "tpe" else '"halved"' in text


def wait_until(is_reached, process):
    """Wait until something is reached, at most a minute, or the process has ended."""
    deadline = time.monotonic() + 60
    while not is_reached() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)


@pytest.mark.parametrize("kind", SWEEPS)
def test_any_number_of_processes_has_the_results_of_one_even_after_a_kill(tmp_path, monkeypatch, linreg, forks, kind):
    one, several = (make_folder(tmp_path / name, SWEEPS[kind]) for name in ("one", "several"))
    processes = start_group(forks.start, COMMAND, 3, cwd=several)
    if kind == "grid":  # the third must not end before the second has saved its states
        wait_until((several / "runs/small_sweep_001/results.2.jsonl").exists, processes[2])
        processes[2].send_signal(signal.SIGSTOP)
    wait_until(lambda: is_in_second_round(several, kind), processes[1])
    processes[2].send_signal(signal.SIGKILL)
    codes, errors = ended(processes)
    assert codes[2] == -9 and codes[:2] == [8, 8], errors
    assert "rank" in errors[0] or "another process of the group has ended" in errors[0]
    codes, errors = ended(start_group(forks.start, COMMAND, 2, cwd=several))
    assert codes == [0, 0], errors
    with monkeypatch.context() as patch:
        patch.chdir(one)
        assert linreg(*COMMAND[1:]).code == 0
    assert lines_of(several) == lines_of(one)
    outcomes = {"grid": {"finished", "diverged"}, "halving": {"finished", "diverged", "halved"}, "tpe": {"finished"}}
    assert {line["outcome"] for line in lines_of(one).values()} == outcomes[kind]
    found, expected = (load(folder / "checkpoints/small_001/last.pth") for folder in (several, one))
    assert same(found.model_state_dict, expected.model_state_dict)
    for folder in (several, one):
        names = sorted(path.name for path in (folder / "runs/small_sweep_001").iterdir() if path.name[0] != ".")
        assert names == ["results.jsonl", "run.json", "spec.yaml", "trials.jsonl"]
        assert not list((folder / "checkpoints/small_sweep_001").glob("*.pth"))


def test_the_files_of_processes_are_put_together(tmp_path):
    def line(trial, loss):
        return json.dumps({"trial": trial, "seed": 1, "fold": None, "loss": loss}) + "\n"

    (tmp_path / "results.jsonl").write_text(line(0, 0.5))
    (tmp_path / "results.1.jsonl").write_text(line(1, 0.25) + line(3, 0.125)[:20])
    (tmp_path / "results.2.jsonl").write_text(line(0, 9.0) + line(2, 1.0))
    save_states(tmp_path / "sweep.1.pth", [{"key": [3, 0, None], "loss": [1.0]}])
    (tmp_path / "sweep.2.pth").write_bytes(b"damaged")
    for _ in range(2):
        join_parts(tmp_path, tmp_path / "sweep.pth")
        assert (tmp_path / "results.jsonl").read_text() == line(0, 0.5) + line(1, 0.25) + line(2, 1.0)
        assert [state["key"] for state in load_states(tmp_path / "sweep.pth")] == [[3, 0, None]]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["results.jsonl", "sweep.pth"]


def test_each_trial_has_one_process():
    trials = [Trial(number, {}, None) for number in range(7)]
    parts = [own_trials(trials, rank, 3) for rank in range(3)]
    assert [[trial.number for trial in part] for part in parts] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_process_whose_trials_all_fail_does_not_end_the_sweep(tmp_path, forks):
    """Coefficients above 3e38 do not fit float32, and every second trial, all of the second process, has it."""
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{i * i}e39\n" for i in range(30)))
    table = {"name": "csv", "path": "t.csv", "target": "y"}
    spec = small_spec(data__source=table, data__split={"train_ratio": 0.8}, solver="exact")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = ["linreg", "sweep", "spec.yaml", "ridge=0.1,0.2,0.3,0.4", "dtype=float64,float32", "--quiet"]
    codes, errors = ended(start_group(forks.start, command, 2, cwd=tmp_path))
    assert codes == [0, 0], errors
    assert errors[0].count("warning: trial ") == 4  # those of the second process
    assert errors[1] == ""
    outcomes = [line["outcome"] for _, line in sorted(lines_of(tmp_path).items())]
    assert outcomes == ["finished", "failed"] * 4


@pytest.mark.parametrize(
    "command", [["cv", "--folds", "2"], ["sweep", "optimizer.lr=0.01,0.02"]], ids=lambda one: one[0]
)
def test_all_processes_need_the_same_table(tmp_path, forks, command):
    table = {"name": "csv", "path": "t.csv", "target": "y"}
    port = free_port()
    processes = []
    for rank in (0, 1):
        folder = tmp_path / str(rank)
        folder.mkdir()
        (folder / "t.csv").write_text("x,y\n" + "".join(f"{i},{i * i + rank}\n" for i in range(30)))
        (folder / "spec.yaml").write_text(yaml.safe_dump(small_spec(data__source=table)))
        shared = ["--runs", str(tmp_path / "runs"), "--checkpoints", str(tmp_path / "checkpoints"), "--quiet"]
        environment = {**os.environ, **environment_of(rank, 2, port, timeout=60)}
        whole = ["linreg", command[0], "spec.yaml", *command[1:], *shared]
        processes.append(forks.start(whole, cwd=folder, env=environment))
    codes, errors = ended(processes)
    assert codes == [8, 3], errors
    assert "error: rank 1: data.source differs from that of rank 0" in errors[1]


@pytest.mark.parametrize("receiver", [0, 1, 2])
def test_a_signal_to_one_process_interrupts_the_sweep_of_all(tmp_path, forks, receiver):
    folder = make_folder(tmp_path / "several", SWEEPS["grid"])
    processes = start_group(forks.start, COMMAND, 3, cwd=folder)
    wait_until((folder / "checkpoints/small_sweep_001/sweep.1.pth").exists, processes[1])
    begin = time.monotonic()
    processes[receiver].send_signal(signal.SIGTERM)
    codes, errors = ended(processes)
    assert codes == [143, 143, 143], errors
    assert time.monotonic() - begin < 25  # torchrun kills after 30 s
    assert errors[1:] == ["", ""]
    assert read_info(folder / "runs/small_sweep_001")["outcome"] == "interrupted"


def test_states_of_other_processes_are_saved_before_the_first_one_saves_its_own(tmp_path):
    """The first process takes the file with the states of all for its own."""
    spec = load_sweep(write_spec(sweep={"parameters": {"seed": [1, 2]}}))
    trials = first_trials(spec)
    members, path = members_of(trials, spec.sweep), tmp_path / "sweep.1.pth"
    members[1].saved = {"key": list(members[1].key), "loss": [0.5]}

    saved = []

    class Second(Exchange):
        def collect(self, value):
            saved.extend(tuple(state["key"]) for state in load_states(path))
            return []

    results = Results(tmp_path / "results.1.jsonl")
    arguments = {"n_models": 2, "path": path, "progress": None, "stop": lambda: False, "exchange": Second(1, 2)}
    keep_states(Rounds(members, trials, results, SharedData(), **arguments))
    results.close()
    assert saved == [members[1].key]


def test_the_others_wait_for_the_run_of_the_winner(tmp_path, forks):
    """An agent of torchrun that ends may end the store in which the agents meet."""
    spec = small_spec(**LONG | {"epochs": 1500}, sweep={"parameters": {"optimizer.lr": [0.01, 0.02]}})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    processes = start_group(forks.start, COMMAND, 2, cwd=tmp_path)
    wait_until(lambda: processes[1].poll() is not None, processes[0])
    assert read_info(tmp_path / "runs/small_001")["outcome"] == "finished"
    assert ended(processes)[0] == [0, 0]


SLOW = """
import time
from pathlib import Path
from linreg.experiment.sweeps import sweeping

def slowly(function):
    def call(*arguments, **options):
        Path("reached").touch()
        time.sleep(3)
        return function(*arguments, **options)
    return call

sweeping.NAME = slowly(sweeping.NAME)
"""


@pytest.mark.parametrize("receivers", [[0, 1], [1]])
@pytest.mark.parametrize("name", ["join_parts", "next_trials", "train_winners"])
def test_a_signal_while_the_first_process_works_alone_interrupts_the_sweep(tmp_path, forks, name, receivers):
    (tmp_path / "slow.py").write_text(SLOW.replace("NAME", name))
    spec = small_spec(epochs=2, sweep={"parameters": {"optimizer.lr": [0.01, 0.02]}})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    processes = start_group(forks.start, [*COMMAND, "--plugin", "slow.py"], 2, cwd=tmp_path)
    wait_until((tmp_path / "reached").exists, processes[0])
    time.sleep(0.5)  # until the second one waits
    for rank in receivers:
        processes[rank].send_signal(signal.SIGTERM)
    codes, errors = ended(processes)
    assert codes == [143, 143], errors
    assert "error" not in errors[0] + errors[1]
    assert read_info(tmp_path / "runs/small_sweep_001")["outcome"] == "interrupted"


def test_a_kill_of_the_first_process_is_noticed_by_those_that_wait(tmp_path, forks):
    (tmp_path / "slow.py").write_text(SLOW.replace("NAME", "train_winners"))
    spec = small_spec(epochs=2, sweep={"parameters": {"optimizer.lr": [0.01, 0.02]}})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    processes = start_group(forks.start, [*COMMAND, "--plugin", "slow.py"], 2, cwd=tmp_path)
    wait_until((tmp_path / "reached").exists, processes[0])
    time.sleep(0.5)  # until the second one waits
    processes[0].kill()
    codes, errors = ended(processes)
    assert codes == [-9, 8], errors
    assert "error: rank 1: rank 0 has ended; see its message" in errors[1]
