"""`cv`: folds that share their pieces, interruptions, and rows left out one by one."""

import csv
import io
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn import linear_model, model_selection

from linreg.checkpoint import load_states
from linreg.experiment import gathering
from linreg.experiment.measuring import Measured
from linreg.experiment.network import errors_of
from linreg.experiment.solving import solve_exactly
from linreg.experiment.sweeps import rounds, training
from linreg.experiment.sweeps.cross_validation import cross_validate
from linreg.experiment.sweeps.members import SharedData, build_member, members_of
from linreg.experiment.sweeps.predictions import OfModel, Predictions
from linreg.experiment.sweeps.records import Results, part_of, results_of
from linreg.experiment.sweeps.sweeping import draw
from linreg.runs.records import read_info
from linreg.spec.schema import load_spec
from linreg.spec.sweeps import load_sweep, make_trials
from linreg.training import loops
from tests.conftest import write_spec
from tests.faults.groups import ended, environment_of, start_group

N = 60


@pytest.fixture
def table():
    """t.csv with features a, b, times t, and the target y; return x (N, 2) and y (N,)."""
    random = np.random.default_rng(0)
    x = random.normal(2, 1, (N, 2))
    y = x @ [1.0, -2.0] + 3 + random.normal(size=N)
    lines = [
        f"{a!r},{b!r},{time},{target!r}"
        for (a, b), time, target in zip(x.tolist(), random.permutation(N), y.tolist(), strict=True)
    ]
    with open("t.csv", "w") as file:
        file.write("\n".join(["a,b,t,y", *lines]))
    return x, y


def exact_spec(**changes):
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}
    return write_spec(**{"solver": "exact", "data__source": source, **changes})


@pytest.fixture
def gathered(monkeypatch):
    """Count how often the rows are added to pieces."""
    calls, gather = [], gathering._own
    monkeypatch.setattr(gathering, "_own", lambda *args: calls.append(1) or gather(*args))
    return calls


@pytest.mark.parametrize("by", ["random", "order", {"time": "t"}, {"stratify": "y"}])
@pytest.mark.parametrize("test_ratio", [0.0, 0.1])
def test_exact_folds_take_one_pass_and_are_single_runs(linreg, table, gathered, by, test_ratio):
    path = exact_spec(data__split={"by": by, "test_ratio": test_ratio})
    folds = json.loads(linreg("cv", path, "--folds", "4", "--json").out)["folds"]
    assert len(gathered) == 1
    for number, fold in enumerate(folds):
        solved = solve_exactly(load_spec(path, ["data.split.folds=4", f"data.split.fold={number}"]))
        assert (solved.exact.loss, solved.exact.val_loss) == (fold["loss"], fold["val_loss"])


def test_a_sweep_of_ridges_over_folds_takes_one_pass(linreg, table, gathered):
    assert linreg("sweep", exact_spec(), "ridge=0.0,1,10", "--folds", "5").code == 0
    assert len(gathered) == 2  # one for the folds, one for the winner's run


@pytest.mark.parametrize("changes", [{"data__standardize": True}, {"penalty": {"name": "ridge"}}])
def test_folds_that_learn_something_are_gathered_one_by_one(linreg, table, gathered, changes):
    path = exact_spec(**changes)
    folds = json.loads(linreg("cv", path, "--folds", "3", "--json").out)["folds"]
    assert len(gathered) == 3
    solved = solve_exactly(load_spec(path, ["data.split.folds=3", "data.split.fold=2"]))
    assert (solved.exact.loss, solved.exact.val_loss) == (folds[2]["loss"], folds[2]["val_loss"])


def predictions_of(result, column="y_predicted"):
    with open(result["predictions"], newline="") as file:
        lines = list(csv.DictReader(file))
    return np.array([int(line["row"]) - 1 for line in lines]), np.array([float(line[column]) for line in lines])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("test_ratio", [0.0, 0.2])
def test_each_row_left_out_is_a_loop_with_scikit_learn(linreg, table, bias, standardize, test_ratio):
    x, y = table
    path = exact_spec(
        data__split={"test_ratio": test_ratio}, data__standardize=standardize, model={"name": "linear", "bias": bias}
    )
    result = json.loads(linreg("cv", path, "--leave-one-out", "--json").out)
    rows, found = predictions_of(result)
    assert len(rows) == N - (N - int(N * 0.8)) * (test_ratio > 0)
    model = linear_model.LinearRegression(fit_intercept=bias)
    expected = model_selection.cross_val_predict(model, x[rows], y[rows], cv=model_selection.LeaveOneOut())
    if bias or not standardize:
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert result["mean"]["val_loss"] == pytest.approx(((y[rows] - found) ** 2).mean(), rel=1e-12)
    assert result["mean"]["mae"] == pytest.approx(abs(y[rows] - found).mean(), rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"ridge": 3.0},
        {"model": {"name": "polynomial", "degree": 3}},
        {"data__target_transform": {"name": "log"}},
        {"data__source__sample_weight": "w"},
        {"data__source__target": ["y", "w"]},
        {"data__source__features": ["a", "b", "g"], "data__source__categorical": "g"},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_each_row_left_out_is_a_fit_of_the_others(linreg, changes):
    """Compared with fits of tables without the row."""
    random = np.random.default_rng(1)
    lines = [
        f"{random.normal(2, 1)!r},{random.normal()!r},{'uvw'[i % 3]},{random.uniform(0.1, 3)!r},{random.uniform(1, 9)!r}"
        for i in range(24)
    ]

    def write(some):
        with open("t.csv", "w") as file:
            file.write("\n".join(["a,b,g,w,y", *some]))

    write(lines)
    plain = {"data__split": {"train_ratio": 1.0}, **changes}
    result = json.loads(linreg("cv", exact_spec(**plain), "--leave-one-out", "--json").out)
    _, found = predictions_of(result)
    for row in (0, 7, 23):
        write(lines[:row] + lines[row + 1 :])
        assert linreg("train", "small.yaml", "-q").code == 0
        write(lines)
        answer = linreg("predict", "--input", "t.csv", "-q")
        predicted = float(list(csv.DictReader(io.StringIO(answer.out)))[row]["y_predicted"])
        tolerance = 1e-4 if "dtype" in changes else 1e-9
        assert found[row] == pytest.approx(predicted, rel=tolerance)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"solver": "gradient"}, "solver: --leave-one-out needs solver: exact; use --folds"),
        ({"penalty": {"name": "lasso", "strength": 1.0}}, "penalty: --leave-one-out takes no penalty"),
        ({"data__split": {"by": {"group": "t"}}}, "data.split.by: --leave-one-out leaves out single rows, not by group"),
        ({"data__split": {"folds": 3, "fold": 0}}, "data.split.folds: --leave-one-out measures all rows; remove folds"),
    ],
)  # fmt: skip
def test_rows_are_not_left_out_where_that_means_nothing(linreg, table, changes, problem):
    answer = linreg("cv", exact_spec(**changes), "--leave-one-out")
    assert answer.code == 2
    assert problem in answer.err


def test_a_row_that_determines_a_coefficient_alone_is_reported(linreg):
    with open("t.csv", "w") as file:
        file.write("a,b,y\n" + "\n".join(f"8,{i % 4},{i * i % 7}" for i in range(8)) + "\n19,1,4\n")
    answer = linreg("cv", exact_spec(), "--leave-one-out")
    assert answer.code == 3
    assert (
        "row 9: without this row a coefficient is not determined; remove it or a column, or use --folds" in answer.err
    )


NETWORK = {"name": "mlp", "hidden": [4]}


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "exact"},
        {"model": NETWORK, "epochs": 40},
        {"model": {**NETWORK, "dropout": 0.1}, "epochs": 4, "engine": "textbook"},
    ],
    ids=str,
)
def test_an_interrupted_cross_validation_continues_with_the_same_results(monkeypatch, changes):
    monkeypatch.setattr(rounds, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(loops, "SECONDS_A_CHUNK", 0.0)
    path = write_spec(**changes)

    def spec():
        return load_sweep(path, ["sweep.folds=5", "data.split.test_ratio=0.1"])

    whole = cross_validate(spec(), runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))
    calls, n_resumes = 0, 0

    def stop():
        nonlocal calls
        calls += 1
        return calls > 1 + n_resumes  # each time it gets farther

    while (result := cross_validate(spec(), resume=True, stop=stop)).outcome == "interrupted":
        assert result.predictions is None
        calls, n_resumes = 0, n_resumes + 1
        assert n_resumes < 200
    assert n_resumes > 0
    assert (result.folds, result.mean, result.sd) == (whole.folds, whole.mean, whole.sd)
    assert Path(result.predictions).read_text() == Path(whole.predictions).read_text()
    assert [folder.name for folder in Path("runs").iterdir() if folder.is_dir()] == ["small_cv_001"]
    names = sorted(file.name for file in Path("runs/small_cv_001").iterdir() if not file.name.startswith("."))
    assert names == ["predictions.csv", "results.jsonl", "run.json", "spec.yaml", "trials.jsonl"]
    assert not list(Path("checkpoints/small_cv_001").glob("*.pth"))


def test_a_cross_validation_that_torchrun_has_restarted_is_resumed(linreg, monkeypatch):
    path = write_spec(model=NETWORK, epochs=40)
    calls = iter(range(1000))
    spec = load_sweep(path, ["sweep.folds=5"])
    assert cross_validate(spec, stop=lambda: next(calls) == 2).outcome == "interrupted"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    result = json.loads(linreg("cv", path, "--folds", "5", "--json").out)
    assert (result["run"], result["outcome"]) == ("small_cv_001", "finished")


def test_a_fold_whose_predictions_are_cut_off_has_no_result(tmp_path):
    known = Predictions(tmp_path, ["y"])
    points = Measured(np.array([3, 5]), np.array([[1.0], [2.0]]), np.array([[0.5], [0.25]]), None)
    known.add([OfModel(0, 42, [points]), OfModel(1, 42, [points])])
    part = tmp_path / "predictions.part"
    assert part.read_text() == "4,0,42,1.0,0.5\n6,0,42,2.0,1.75\n4,1,42,1.0,0.5\n6,1,42,2.0,1.75\n"
    part.write_text(part.read_text()[:-3])
    again = Predictions(tmp_path, ["y"], [(0, 42)])
    assert again.counts() == {(0, 42): 2}
    again.add([OfModel(1, 42, [points])])
    again.finish(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == (
        "row,fold,seed,y,y_predicted\n4,0,42,1.0,0.5\n4,1,42,1.0,0.5\n6,0,42,2.0,1.75\n6,1,42,2.0,1.75\n"
    )
    assert not part.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": "exact"},
        {"solver": "exact", "data__standardize": True, "data__shards": 3},
        {"model": {"name": "mlp", "hidden": [4]}, "epochs": 3, "optimizer": {"name": "adam", "lr": 0.01}},
    ],
)
def test_folds_by_several_processes_are_those_of_one(linreg, forks, changes):
    path = write_spec(data__source={"name": "friedman1", "n_samples": 80}, **changes)
    arguments = ["cv", path, "--folds", "3", "--repeats", "2", "--json"]
    one = json.loads(linreg(*arguments).out)
    if changes == {"solver": "exact"}:  # one start by the launcher
        out = linreg(*arguments, "--processes", "2").out
    else:
        (out, _), (other, _) = (
            process.communicate(timeout=60)
            for process in start_group(forks.start, ["linreg", *arguments], 2, cwd=Path.cwd())
        )
        assert other == ""
    several = json.loads(out)
    for fold in [*one["folds"], *several["folds"]]:
        del fold["how"]  # in a stack, or alone
    keys = ("folds", "mean", "sd", "outcome")
    assert [several[key] for key in keys] == [one[key] for key in keys]
    assert Path(several["predictions"]).read_text() == Path(one["predictions"]).read_text()
    assert sorted(path.name for path in Path(several["predictions"]).parent.iterdir()) == sorted(
        path.name for path in Path(one["predictions"]).parent.iterdir()
    )


def test_a_killed_group_loses_no_fold_that_any_process_has_ended(linreg, forks, monkeypatch):
    changes = {"model": NETWORK, "engine": "textbook", "epochs": 800}  # a fold at a time
    command = ["cv", write_spec(**changes, data__source={"name": "friedman1", "n_samples": 60}), "--folds", "6"]
    whole = json.loads(linreg(*command, "--json", "--name", "whole").out)
    processes = start_group(forks.start, ["linreg", *command, "--quiet"], 2, cwd=Path.cwd())
    folder, of_second = Path("runs/small_cv_001"), Path("runs/small_cv_001/results.1.jsonl")
    deadline = time.monotonic() + 60
    while not (of_second.exists() and of_second.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    codes, errors = ended(processes)
    assert codes == [8, -9], errors
    ended_folds = [line["fold"] for path in folder.glob("results*") for line in results_of(path)]
    assert 0 < len(ended_folds) < 6

    trained, train_alone = [], training._train_alone
    monkeypatch.setattr(
        training, "_train_alone", lambda member, *rest: trained.append(member.fold) or train_alone(member, *rest)
    )
    result = json.loads(linreg(*command, "--json", "--resume").out)
    assert sorted(ended_folds + trained) == list(range(6))
    assert (result["run"], result["folds"]) == ("small_cv_001", whole["folds"])
    assert Path(result["predictions"]).read_text() == Path(whole["predictions"]).read_text()
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    assert names == ["predictions.csv", "results.jsonl", "run.json", "spec.yaml", "trials.jsonl"]
    assert not list(Path("checkpoints/small_cv_001").glob("*.pth"))


SLOW = """
import os
import time
from linreg import LOSSES

@LOSSES.register("slow")
def slow():
    "Slow in one process."
    from torch.nn.functional import mse_loss

    def loss(yhat, y):
        time.sleep(0.2 if os.environ["RANK"] == os.environ.get("SLOW", "1") else 0)
        return mse_loss(yhat, y)

    return loss
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_a_process_is_waited_for_as_long_as_it_works(forks, hangs):
    Path("slow.py").write_text(SLOW)
    path = write_spec(epochs=12, loss={"name": "slow"}, data__batch_size="full")  # 5 s, with the validation
    command = ["linreg", "cv", path, "--folds", "2", "--quiet", "--plugin", "slow.py"]
    processes = start_group(forks.start, command, 2, cwd=Path.cwd(), timeout=4)
    of_second, deadline = Path("runs/small_cv_001/results.1.jsonl"), time.monotonic() + 60
    while not of_second.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if hangs:
        processes[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    _, error = processes[0].communicate(timeout=60)
    assert processes[0].returncode == (8 if hangs else 0), error
    assert ("error: rank 1 did not answer in time; see its message, and resume the run" in error) == hangs
    assert time.monotonic() - begin > 4
    processes[1].kill()
    processes[1].communicate()


@pytest.mark.parametrize(("slow", "receivers"), [(1, [0, 1]), (1, [0]), (1, [1]), (0, [0]), (0, [1])])
def test_a_signal_stops_all_processes_also_one_that_waits(linreg, forks, monkeypatch, slow, receivers):
    monkeypatch.setenv("SLOW", str(slow))
    Path("slow.py").write_text(SLOW)
    path = write_spec(epochs=100, loss={"name": "slow"}, data__batch_size="full")
    command = ["cv", path, "--folds", "2", "--plugin", "slow.py"]
    processes = start_group(forks.start, ["linreg", *command], 2, cwd=Path.cwd())
    ready, deadline = part_of(Path("runs/small_cv_001/results.jsonl"), 1 - slow), time.monotonic() + 60
    while not (ready.exists() and ready.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # until it waits for the slow one
    for rank in receivers:
        processes[rank].send_signal(signal.SIGTERM)
    codes, errors = ended(processes)
    assert codes == [143, 143], errors
    assert errors[0].splitlines()[-1] == "interrupted; to continue, run the same command with --resume"
    assert errors[1] == ""
    assert read_info(Path("runs/small_cv_001"))["outcome"] == "interrupted"


def test_predictions_of_any_size_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("linreg.experiment.sweeps.records.MOST_BYTES", 10)
    points = Measured(np.arange(100), np.ones((100, 1)), np.zeros((100, 1)), None)
    Predictions(tmp_path, ["y"]).add([OfModel(0, 42, [points])])
    assert Predictions(tmp_path, ["y"], [(0, 42)]).counts() == {(0, 42): 100}


def test_folds_are_kept_when_their_predictions_cannot_be_written(linreg, monkeypatch):
    path = write_spec(epochs=2)
    answer = linreg("cv", path, "--folds", "3", "--output", "missing/p.csv")
    assert answer.code == 5, answer.err
    Path("missing").mkdir()
    monkeypatch.setattr(rounds, "train_members", lambda *_, **__: iter([]))  # nothing is left to train
    answer = linreg("cv", path, "--folds", "3", "--output", "missing/p.csv", "--resume", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["run"] == "small_cv_001"
    assert len(Path("missing/p.csv").read_text().splitlines()) > 1


def test_a_process_that_waits_for_the_first_one_ends_at_a_signal(forks):
    """Processes that have not met have nothing to save."""
    command = ["linreg", "cv", write_spec(epochs=1), "--folds", "2"]
    store = dist.TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
    store.set("linreg/group", "group")
    environment = {**os.environ, **environment_of(1, 2, store.port, timeout=60)}
    second = forks.start(command, cwd=Path.cwd(), env=environment)
    store.wait(["group/1"], timedelta(seconds=60))  # it waits for the first to confirm that
    second.send_signal(signal.SIGTERM)
    codes, errors = ended([second], seconds=10)
    assert codes == [143], errors


def test_processes_of_a_group_start_no_groups(linreg, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for command in (["cv"], ["sweep", "epochs=1,2"], ["train"]):
        answer = linreg(command[0], write_spec(data__shards=2), *command[1:], "--processes", "2")
        assert answer.code == 2
        assert "--processes: torchrun has started several already; remove one" in answer.err


def test_a_save_keeps_the_states_of_folds_that_wait_for_their_turn(tmp_path):
    """Another process began them, before an interruption."""
    spec = load_sweep(write_spec(), ["sweep.folds=2"])
    trials, shared, path = make_trials(spec, draw), SharedData(), tmp_path / "cv.pth"
    trained, waiting = members_of(trials, spec.sweep)
    waiting.saved = {"key": list(waiting.key), "loss": [0.5]}
    build_member(trained, shared)
    results = Results(tmp_path / "results.jsonl")
    several = rounds.Rounds(
        [trained, waiting], trials, results, shared, n_models=2, path=path, progress=None, stop=lambda: False
    )
    several._due_at = 0.0
    several._save(lambda: None, 1)
    results.close()
    assert [tuple(state["key"]) for state in load_states(path)] == [trained.key, waiting.key]


def test_leaving_out_each_row_takes_one_process(linreg):
    answer = linreg("cv", write_spec(solver="exact"), "--leave-one-out", "--processes", "2")
    assert answer.code == 2
    assert "--leave-one-out: solves once, by one process; remove --processes" in answer.err


def test_points_are_moved_to_the_device_of_the_model():
    class Elsewhere(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

        def forward(self, x):
            assert x.device == self.weight.device
            return torch.ones(len(x), 1)

    assert errors_of(Elsewhere(), np.zeros((3, 2)), np.full((3, 1), 5.0), "float32").tolist() == [[4.0]] * 3
