"""Sweeps and cross-validation: each trial has the bits of its own single run, and no result is lost."""

import csv
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linreg.checkpoint import load, load_states, save_states
from linreg.cli.signals import StopFlag
from linreg.errors import DataError
from linreg.experiment.session import train
from linreg.experiment.sweeps import members, rounds, sweeping, training
from linreg.experiment.sweeps.interrupted import take_results
from linreg.experiment.sweeps.members import SharedData, members_of
from linreg.experiment.sweeps.ranking import rank, winners
from linreg.experiment.sweeps.records import Results
from linreg.experiment.sweeps.rounds import Rounds
from linreg.experiment.sweeps.sweeping import draw, sweep
from linreg.runs.records import read_info
from linreg.spec.schema import load_spec
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import load_sweep, make_trials, member_spec
from linreg.training.loops import EpochLosses
from tests.conftest import differences, times, write_spec

MLP = {"name": "mlp", "hidden": [4]}


def lines_of(run):
    return [json.loads(line) for line in (Path("runs") / run / "results.jsonl").read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def losses_alone(spec, folder):
    """Return the losses of a spec, trained as an ordinary run."""
    result = train(spec, runs=Path(folder) / "runs", checkpoints=Path(folder) / "checkpoints")
    return result.epochs, result.loss, result.val_loss, result.best_epoch, result.best_loss, result.best_val_loss


def assert_trials_are_single_runs(path, overrides, folder="alone"):
    """Run a sweep; compare each result that finished with the single run of its spec. Return the lines."""
    loaded = load_sweep(path, overrides)
    result = sweep(loaded)
    trials = make_trials(load_sweep(path, overrides), draw)
    lines = lines_of(result.run)
    for line in lines:
        trial = trials[line["trial"]]
        spec = member_spec(trial.spec, loaded.sweep, line["seed"] - trial.spec.seed, line["fold"])
        if line["outcome"] == "halved":
            spec = spec.model_copy(update={"epochs": line["epochs"]})
        if line["outcome"] in ("finished", "early_stopped", "halved"):
            names = ("epochs", "loss", "val_loss", "best_epoch", "best_loss", "best_val_loss")
            assert tuple(line[name] for name in names) == losses_alone(spec, folder)
    return lines


def test_the_winner_is_the_single_run_of_its_spec(linreg):
    path = write_spec(model=MLP, optimizer={"name": "adam", "lr": 0.1})
    answer = linreg("sweep", path, "optimizer.lr=0.01,0.1,0.03")
    assert answer.code == 0
    checkpoint = torch.load(answer.out.strip(), weights_only=True)
    lr = checkpoint["spec"]["optimizer"]["lr"]
    assert linreg("train", path, f"optimizer.lr={lr}", "--name", "other").code == 0
    other = torch.load("checkpoints/other_001/last.pth", weights_only=True)
    assert checkpoint["loss"] == other["loss"]
    for key, value in checkpoint["model_state_dict"].items():
        assert torch.equal(value, other["model_state_dict"][key])
    lines = lines_of("small_sweep_001")
    assert min(lines, key=lambda line: line["val_loss"])["val_loss"] == checkpoint["val_loss"][-1]
    assert {line["how"] for line in lines} == {"stack"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"engine": "textbook"},
        {"model": {**MLP, "dropout": 0.3}},
        {"loss": {"name": "mae"}},
        {"scheduler": {"name": "step", "step_size": 2}},
        {"scheduler": {"name": "plateau", "patience": 1}},
        {"data__standardize": True},
        {"early_stopping": {"patience": 2, "min_delta": 0.001}, "epochs": 30},
        {"solver": "exact", "model": {"name": "linear"}},
        {"clip_grad_norm": 0.1},
    ],
    ids=str,
)
def test_each_trial_is_its_single_run(changes):
    varied = ["ridge=0.0,0.5,2"] if "solver" in changes else ["optimizer.lr=0.01,0.1,0.4", "seed=1,2"]
    lines = assert_trials_are_single_runs(write_spec(**{"model": MLP, **changes}), varied)
    assert all(line["outcome"] != "failed" for line in lines)


def test_trials_of_different_shapes_and_optimizers_are_single_runs():
    optimizers = "optimizer={name: sgd, lr: 0.1},{name: adam, lr: 0.01},{name: rmsprop, lr: 0.001, momentum: 0.5}"
    varied = [optimizers, "model={name: linear},{name: mlp, hidden: [3, 2]},{name: polynomial, degree: 2}"]
    lines = assert_trials_are_single_runs(write_spec(), [*varied, "seed=1,2"])
    assert len(lines) == 18
    assert {line["how"] for line in lines} == {"stack", "alone"}


def test_seeds_and_folds_are_single_runs_too():
    path = write_spec(data__split={"test_ratio": 0.2, "train_ratio": 0.5})
    lines = assert_trials_are_single_runs(path, ["optimizer.lr=0.1,0.2", "sweep.seeds=2", "sweep.folds=3"])
    assert len(lines) == 12


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_halving_leaves_survivors_and_losers_as_they_are_alone(dropout):
    path = write_spec(model={**MLP, "dropout": dropout}, epochs=13)
    varied = ["optimizer.lr={min: 0.001, max: 0.5, log: true}", "sweep.trials=9"]
    lines = assert_trials_are_single_runs(path, [*varied, "sweep.halving={factor: 3, min_epochs: 2}"])
    assert sorted(line["epochs"] for line in lines) == [2] * 6 + [6] * 2 + [13]


@given(
    hidden=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    optimizer=st.sampled_from(["sgd", "adam", "adamw", "rmsprop", "adagrad"]),
    n_trials=st.integers(1, 5),
    batch_size=st.integers(1, 20),
    halving=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(
    max_examples=times(4, 8),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_trial_is_its_single_run(tmp_path_factory, hidden, optimizer, n_trials, batch_size, halving, seed):
    os.chdir(tmp_path_factory.mktemp("sweep"))
    model = {"name": "mlp", "hidden": hidden}
    path = write_spec(
        model=model, optimizer={"name": optimizer, "lr": 0.1}, seed=seed, data__batch_size=batch_size, epochs=4
    )
    varied = ["optimizer.lr={min: 0.001, max: 0.2, log: true}", f"sweep.trials={n_trials}", f"sweep.seed={seed}"]
    assert_trials_are_single_runs(path, varied + ["sweep.halving={factor: 2, min_epochs: 1}"] * halving)


def test_a_trial_that_diverges_is_reported_and_the_others_finish(linreg):
    answer = linreg("sweep", write_spec(epochs=40), "optimizer.lr=0.1,1e12,0.2")
    assert answer.code == 0
    assert "warning: trial 1 (optimizer.lr=1000000000000.0): diverged: epoch 0, step 2" in answer.err
    lines = {line["trial"]: line for line in lines_of("small_sweep_001")}
    assert [lines[trial]["outcome"] for trial in range(3)] == ["finished", "diverged", "finished"]
    assert lines[1]["reason"].startswith("epoch 0, step 2")
    alone = linreg("train", "small.yaml", "optimizer.lr=1e12")
    assert alone.code == 6
    assert lines[1]["reason"] in alone.err
    assert "- 1 1e+12 - 0 diverged" in [" ".join(line.split()) for line in answer.err.splitlines()]


def test_a_sweep_without_any_result_has_the_exit_code_of_divergence(linreg):
    answer = linreg("sweep", write_spec(epochs=40), "optimizer.lr=1e12,1e13")
    assert answer.code == 6
    assert "error: no trial has a result: 2 diverged; trial 0: epoch 0, step 2" in answer.err
    assert answer.out == ""


def test_a_missing_table_is_reported_before_the_training(linreg):
    path = write_spec(data__source={"name": "csv", "path": "absent.csv", "target": "y"})
    answer = linreg("sweep", path, "optimizer.lr=0.1,0.2,0.3,0.4")
    assert answer.code == 3
    assert "absent.csv: no such file" in answer.err
    assert not Path("runs").exists()


def test_trials_that_all_fail_stop_the_sweep(linreg):
    path = write_spec(data__source={"name": "csv", "path": "absent.csv", "target": "y"})
    answer = linreg("sweep", path, "data.batch_size=4,5,6,7")
    assert answer.code == 2
    assert "absent.csv: no such file" in answer.err
    assert "the first 3 trials failed" in answer.err


def test_other_data_is_refused_when_a_sweep_is_resumed():
    write_table()
    path, varied = write_spec(data__source=SOURCE, engine="textbook"), ["optimizer.lr=0.05,0.1,0.2,0.3"]
    assert sweep(load_sweep(path, varied), stop=_StopAfter(2)).outcome == "interrupted"
    table = Path("t.csv").read_text()
    Path("t.csv").write_text(table.replace("\n", "\n0.5,0.5,0.5,0\n", 1))
    with pytest.raises(DataError, match=r"runs/small_sweep_001: data.source has changed .* \(30 rows, now 31;"):
        sweep(load_sweep(path, varied), resume=True)
    Path("t.csv").write_text(table)
    assert sweep(load_sweep(path, varied), resume=True).run == "small_sweep_001"


class _StopAfter:
    def __init__(self, n_calls):
        self.n_left = n_calls

    def __call__(self):
        self.n_left -= 1
        return self.n_left < 0


@pytest.mark.parametrize("n_calls", [1, 45, 80])
def test_an_interrupted_sweep_goes_on_without_repeating_a_result(n_calls):
    path, varied = write_spec(engine="textbook"), ["optimizer.lr=0.05,0.1,0.2,0.3"]
    expected = lines_of(sweep(load_sweep(path, varied)).run)
    stopped = sweep(load_sweep(path, [*varied, "name=again"]), stop=_StopAfter(n_calls))
    assert stopped.outcome == "interrupted"
    assert stopped.checkpoint is None
    before = lines_of(stopped.run)
    with (Path("runs") / stopped.run / "results.jsonl").open("a") as file:
        file.write('{"trial": 3, "cut')
    result = sweep(load_sweep(path, [*varied, "name=again"]), resume=True)
    assert (result.run, result.outcome) == (stopped.run, "finished")
    after = lines_of(result.run)
    assert after[: len(before)] == before
    assert sorted(after, key=lambda line: line["trial"]) == expected
    assert len(after) == 4


def test_another_spec_starts_another_sweep(linreg):
    path = write_spec()
    sweep(load_sweep(path, ["optimizer.lr=0.05,0.1"]), stop=_StopAfter(1))
    assert sweep(load_sweep(path, ["optimizer.lr=0.05,0.2"]), resume=True).run == "small_sweep_002"
    assert sweep(load_sweep(path, ["optimizer.lr=0.05,0.2"]), resume=True).run == "small_sweep_003"


@pytest.mark.parametrize("files", [[], [".lock"], [".lock", "run.json"], [".lock", "run.json", "spec.yaml"]], ids=str)
def test_a_sweep_that_was_killed_at_its_start_is_started_in_its_folder(files, caplog):
    path = write_spec()
    sweep(load_sweep(path, ["optimizer.lr=0.3,0.4"]), stop=_StopAfter(1))
    folder = Path("runs/small_sweep_001")
    for file in set(names(folder)) - set(files):
        (folder / file).unlink()
    result = sweep(load_sweep(path, ["optimizer.lr=0.1,0.2"]), resume=True)
    assert result.run == folder.name
    assert [line["trial"] for line in lines_of(result.run)] == [0, 1]
    assert names("runs") == ["small_001", "small_sweep_001"]
    assert caplog.text == ""


def test_an_interrupted_run_with_the_name_of_a_sweep_is_not_taken_for_it():
    path = write_spec(name="small_sweep")
    assert train(load_spec(path), stop=_StopAfter(2)).run == "small_sweep_001"
    before = read_info(Path("runs/small_sweep_001"))
    assert sweep(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), resume=True).run == "small_sweep_002"
    assert read_info(Path("runs/small_sweep_001")) == before


WINNERS = ["optimizer.lr=0.05,0.1,0.2", "sweep.keep=2"]


@pytest.mark.parametrize(
    ("solver", "interrupted"),
    [("gradient", "small_001"), ("gradient", "small_002"), ("gradient", "none"), ("exact", "none")],
)
@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_the_runs_of_winners_go_on_and_are_not_repeated(interrupted, has_checkpoint, solver):
    path = write_spec(**({} if solver == "gradient" else {"solver": "exact"}))
    varied = WINNERS if solver == "gradient" else ["ridge=0.0,0.5,2", "sweep.keep=2"]
    whole = sweep(load_sweep(path, varied), runs=Path("whole/runs"), checkpoints=Path("whole/checkpoints"))
    stopped = sweep(load_sweep(path, varied), stop=(Path("runs") / interrupted).exists)
    expected = ["small_001", "small_002", "small_sweep_001"]
    assert stopped.outcome == ("finished" if interrupted == "none" else "interrupted")
    assert names("runs") == (expected if interrupted != "small_001" else ["small_001", "small_sweep_001"])
    info = Path("runs/small_sweep_001/run.json")  # killed before the end was written
    info.write_text(info.read_text().replace('"outcome": "finished"', '"outcome": "running"'))
    if not has_checkpoint:
        for file in Path("checkpoints/small_001").glob("*.pth"):
            file.unlink()
    result = sweep(load_sweep(path, varied), resume=True)
    assert (result.outcome, result.winners) == ("finished", whole.winners)
    assert names("runs") == expected
    for ours, theirs in zip(result.runs, whole.runs, strict=True):
        saved, wanted = load(ours.checkpoint), load(theirs.checkpoint)
        ignored = set() if solver == "gradient" else {"rng_state", "numpy_rng_state", "python_rng_state"}
        assert set(differences(saved, wanted)) <= ignored
        assert (ours.run, ours.loss, ours.fit, ours.exact_loss) == (
            theirs.run,
            theirs.loss,
            theirs.fit,
            theirs.exact_loss,
        )
        trial = read_info(Path("runs") / ours.run)["winner_of"]["trial"]
        assert trial == whole.winners[whole.runs.index(theirs)]


def test_another_run_of_the_same_spec_is_not_taken_for_the_winners():
    path = write_spec()
    train(make_trials(load_sweep(path, WINNERS), draw)[2].spec)
    assert [one.run for one in sweep(load_sweep(path, WINNERS)).runs] == ["small_002", "small_003"]
    assert [one.run for one in sweep(load_sweep(path, WINNERS), resume=True).runs] == ["small_004", "small_005"]


def test_exact_solutions_are_kept_when_a_sweep_is_interrupted(pause_at_each_step, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_A_CHUNK", 0.0)
    path, varied = write_spec(solver="exact"), ["ridge=0.0,0.1,0.5,2"]
    stopped = sweep(load_sweep(path, varied), stop=_StopAfter(3))
    assert stopped.outcome == "interrupted"
    assert [line["trial"] for line in lines_of(stopped.run)] == [0, 1]
    assert sweep(load_sweep(path, varied), resume=True).outcome == "finished"
    assert [line["trial"] for line in lines_of(stopped.run)] == [0, 1, 2, 3]


def test_resume_names_the_command_that_continues_a_sweep(linreg):
    sweep(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), stop=_StopAfter(1))
    command = "linreg sweep runs/small_sweep_001/spec.yaml --resume"
    for name in ("small_sweep_001", "checkpoints/small_sweep_001"):
        answer = linreg("resume", name)
        assert (answer.code, answer.err) == (4, f"error: {name}: a sweep, not a run; continue it with: {command}\n")
    assert linreg(*command.split()[1:]).code == 0
    assert names("runs") == ["small_001", "small_sweep_001"]
    answer = linreg("resume", "small_sweep_001")
    assert answer.err == "error: small_sweep_001: a sweep, not a run; linreg runs lists the runs of its winners\n"


def test_the_states_of_a_sweep_are_not_taken_for_a_checkpoint(linreg, monkeypatch):
    sweep(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), stop=_StopAtSave(monkeypatch, 2))
    path = "checkpoints/small_sweep_001/sweep.pth"
    answer = linreg("resume", path)
    hint = "to continue it, run its linreg sweep command with --resume"
    assert (answer.code, answer.err) == (4, f"error: {path}: the states of a sweep; {hint}\n")


class _StopAtSave:
    """Asks for a stop after some saves of the states of a sweep."""

    def __init__(self, monkeypatch, n_saves):
        self.n_left = n_saves
        monkeypatch.setattr(rounds, "SECONDS_BETWEEN_SAVES", 0.0)
        monkeypatch.setattr(rounds, "SHARE_OF_SAVING", 1e9)
        monkeypatch.setattr(rounds, "save_states", self.save)

    def save(self, path, states):
        save_states(path, states)
        self.n_left -= 1

    def __call__(self):
        return self.n_left <= 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"name": "adam", "lr": 0.1}},
        {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
        {"model": {**MLP, "dropout": 0.2}},
        {"scheduler": {"name": "plateau", "patience": 1}},
        {"early_stopping": {"patience": 3}},
        {"engine": "textbook"},
    ],
    ids=str,
)
def test_an_interrupted_stack_goes_on_from_its_saved_epoch(changes, monkeypatch):
    path = write_spec(**{"model": MLP, "epochs": 12, **changes})
    varied = ["optimizer.lr=0.05,0.1,0.2", "seed=1,2"]
    expected = lines_of(sweep(load_sweep(path, varied)).run)
    again = [*varied, "name=again"]
    stopped = sweep(load_sweep(path, again), stop=_StopAtSave(monkeypatch, 5))
    assert stopped.outcome == "interrupted"
    states = Path("checkpoints") / stopped.run / "sweep.pth"
    assert max(len(state["loss"]) for state in load_states(states)) == 5
    began = []
    restore = members._restore
    monkeypatch.setattr(
        members, "_restore", lambda member, saved: began.append(len(saved["loss"])) or restore(member, saved)
    )
    result = sweep(load_sweep(path, again), resume=True)
    assert 5 in began
    assert sorted(lines_of(result.run), key=lambda line: line["trial"]) == sorted(
        expected, key=lambda line: line["trial"]
    )
    assert not states.exists()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("early", [None, {"patience": 3, "min_delta": 0.001}])
def test_halving_goes_on_from_its_saved_states(monkeypatch, dropout, early):
    path = write_spec(model={**MLP, "dropout": dropout}, epochs=12, early_stopping=early)
    varied = ["optimizer.lr={min: 0.01, max: 0.3, log: true}", "sweep.trials=8"]
    varied += ["sweep.halving={factor: 2, min_epochs: 1}"]
    expected = lines_of(sweep(load_sweep(path, varied)).run)
    n_interrupted = 0
    for n_saves in (1, 4, 6):
        again = [*varied, f"name=again{n_saves}"]
        stopped = sweep(load_sweep(path, again), stop=_StopAtSave(monkeypatch, n_saves))
        n_interrupted += stopped.outcome == "interrupted"
        result = sweep(load_sweep(path, again), resume=True)
        found = lines_of(result.run if stopped.outcome == "interrupted" else stopped.run)
        assert [{**line, "how": ""} for line in sorted(found, key=str)] == [
            {**line, "how": ""} for line in sorted(expected, key=str)
        ]
    assert n_interrupted >= 1


def test_halving_counts_results_from_before_an_interruption(tmp_path):
    trials = make_trials(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), draw)
    ended, *running = members_of(trials, SweepSpec(seeds=2))
    for member, loss in zip(running, (1.0, 0.8, 0.8), strict=True):
        member.records = [EpochLosses(0, loss, loss)]
    line = {"trial": 0, "seed": ended.spec.seed, "fold": None, "outcome": "early_stopped", "result_loss": 0.0}
    results = Results(tmp_path / "results.jsonl")
    results.add([line])
    take_results([ended, *running], results.lines)
    of_sweep = Rounds(
        [ended, *running], trials, results, SharedData(), n_models=4, path=tmp_path, progress=None, stop=lambda: False
    )
    results.close()
    of_sweep._write = lambda: None
    of_sweep._halve(1)  # trial 0 has the mean (0 + 1) / 2, and trial 1 has 0.8
    assert [member.outcome for member in (ended, *running)] == ["early_stopped", "running", "halved", "halved"]


def test_a_trial_whose_state_is_not_finite_does_not_end_the_others(monkeypatch):
    path, varied = (
        write_spec(model=MLP, epochs=12, optimizer={"name": "adam", "lr": 0.1}),
        ["optimizer.lr=0.05,0.1,0.2"],
    )
    expected = lines_of(sweep(load_sweep(path, varied)).run)
    state_of = rounds.state_of

    def with_an_infinite_state(member):
        state = state_of(member)
        if member.trial == 1 and state["optimizer"]["state"]:  # the square of a gradient overflows
            state["optimizer"]["state"][0]["exp_avg_sq"] = torch.tensor([1.0, torch.inf])
        return state

    monkeypatch.setattr(rounds, "state_of", with_an_infinite_state)
    again = [*varied, "name=again"]
    stopped = sweep(load_sweep(path, again), stop=_StopAtSave(monkeypatch, 5))
    states = load_states(Path("checkpoints") / stopped.run / "sweep.pth")
    assert [state["key"][0] for state in states] == [0, 2]
    found = lines_of(sweep(load_sweep(path, again), resume=True).run)
    found, expected = ([{**line, "how": ""} for line in lines] for lines in (found, expected))
    assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("damage", ["cut", "bit", "key", "shape", "other"])
def test_damaged_states_are_not_used(damage, monkeypatch, caplog):
    path, varied = write_spec(model=MLP, epochs=12), ["optimizer.lr=0.05,0.1"]
    expected = lines_of(sweep(load_sweep(path, varied)).run)
    again = [*varied, "name=again"]
    states = Path("checkpoints") / sweep(load_sweep(path, again), stop=_StopAtSave(monkeypatch, 5)).run / "sweep.pth"
    content, saved = states.read_bytes(), load_states(states)
    if damage == "cut":
        states.write_bytes(content[:-100])
    elif damage == "bit":
        states.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    elif damage == "key":
        del saved[0]["optimizer"]
        save_states(states, saved)
    elif damage == "shape":
        saved[1]["model"]["0.weight"] = torch.zeros(2, 2)
        save_states(states, saved)
    else:
        states.write_bytes((Path("checkpoints") / "small_001" / "last.pth").read_bytes())
    with caplog.at_level("WARNING", "linreg"):
        result = sweep(load_sweep(path, again), resume=True)
    found, expected = ([{**line, "how": ""} for line in lines] for lines in (lines_of(result.run), expected))
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert "from their start" in caplog.text or "from its start" in caplog.text


def test_a_sweep_leaves_one_folder_and_the_runs_of_the_winners(linreg):
    answer = linreg("sweep", write_spec(), "optimizer.lr=0.01,0.1,0.2,0.3,0.4", "sweep.keep=2")
    assert answer.code == 0
    assert names("runs") == ["small_001", "small_002", "small_sweep_001"]
    assert names("runs/small_sweep_001") == [
        ".lock", "results.jsonl", "run.json", "spec.yaml", "trials.jsonl",
    ]  # fmt: skip
    assert linreg("sweep", "runs/small_sweep_001/spec.yaml").code == 0  # the spec repeats the sweep
    first, second = (lines_of(f"small_sweep_00{number}") for number in (1, 2))
    assert first == second
    assert linreg("runs").code == 0


def test_the_test_part_is_measured_once_for_the_winner(linreg):
    answer = linreg(
        "sweep", write_spec(data__split={"train_ratio": 0.6, "test_ratio": 0.2}), "optimizer.lr=0.1,0.2", "--json"
    )
    result = json.loads(answer.out)
    evaluated = json.loads(linreg("evaluate", result["checkpoint"], "--part", "test", "--json").out)
    assert result["test"]["metrics"] == evaluated["metrics"]
    assert set(result["test"]) == {"part", "n_samples", "metrics"}
    assert "y on the test part, measured once: mse " in answer.err
    assert "the best of 2, so optimistic" in answer.err


def test_early_stopping_ranks_by_the_best_epoch(linreg):
    path = write_spec(epochs=30, early_stopping={"patience": 2, "min_delta": 0.01})
    answer = linreg("sweep", path, "optimizer.lr=0.1,0.9")
    assert answer.out.strip().endswith("best.pth")
    result = json.loads(linreg("sweep", path, "optimizer.lr=0.1,0.9", "--json").out)
    lines = {line["trial"]: line for line in lines_of(result["run"])}
    assert {one["trial"]: one["mean"] for one in result["ranking"]} == {
        trial: line["best_val_loss"] for trial, line in lines.items()
    }


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_other_metrics_are_those_of_evaluate(linreg, metric):
    answer = linreg("sweep", write_spec(), "optimizer.lr=0.01,0.1", f"sweep.metric={metric}", "--json")
    result = json.loads(answer.out)
    evaluated = json.loads(linreg("evaluate", result["checkpoint"], "--part", "val", "--json").out)
    assert result["ranking"][0]["mean"] == pytest.approx(evaluated["metrics"]["y"][metric], rel=1e-6)  # rows in float32
    means = [one["mean"] for one in result["ranking"]]
    assert means == sorted(means, reverse=metric == "r2")


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_a_trial_that_diverges_has_no_metric(linreg, metric):
    answer = linreg("sweep", write_spec(), "optimizer.lr=1e12,0.1", f"sweep.metric={metric}", "--json")
    assert answer.code == 0, answer.err
    ranking = json.loads(answer.out)["ranking"]
    assert [(one["trial"], one["outcome"]) for one in ranking] == [(1, "finished"), (0, "diverged")]
    assert ranking[1]["mean"] is None


def test_the_order_in_which_trainings_end_does_not_change_the_ranking():
    trials = make_trials(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), draw)
    losses = {0: [0.1, 0.2, 0.3], 1: [0.3, 0.1, 0.2]}  # their sums have other last bits in other orders
    lines = [_line(trial, fold, loss) for trial in losses for fold, loss in enumerate(losses[trial])]
    rankings = [rank(trials, order, SweepSpec(folds=3)) for order in itertools.permutations(lines)]
    assert all(ranking == rankings[0] for ranking in rankings)
    assert all(list(one.scores) == [(1, 0), (1, 1), (1, 2)] for ranking in rankings for one in ranking)


def _line(trial, fold, loss, n_parameters=2):
    return {
        "trial": trial, "seed": 1, "fold": fold, "outcome": "finished", "epochs": 5,
        "n_parameters": n_parameters, "result_loss": loss, "reason": None,
    }  # fmt: skip


def test_one_standard_error_takes_the_smallest_model_near_the_best():
    trials = make_trials(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2,0.3"]), draw)
    scores = {0: [1.0, 2.0, 3.0], 1: [1.2, 2.1, 3.3], 2: [2.0, 3.0, 4.0]}
    sizes = {0: 9, 1: 5, 2: 1}
    lines = [_line(t, fold, loss, sizes[t]) for t, losses in scores.items() for fold, loss in enumerate(losses)]
    ranked = rank(trials, lines, SweepSpec(folds=3, select="one_se"))
    assert [one.trial for one in ranked] == [0, 1, 2]
    # the standard error of trial 0 is 1 / sqrt(3): trial 1, 0.2 above, is within, and trial 2, 1.0 above, is not
    assert winners(ranked, SweepSpec(folds=3, select="one_se"))[0].trial == 1
    assert winners(ranked, SweepSpec(folds=3))[0].trial == 0
    assert ranked[1].gap == pytest.approx(0.2)
    margin = 4.302652729911275 * np.std([0.2, 0.1, 0.3], ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    assert ranked[1].interval == pytest.approx((0.2 - margin, 0.2 + margin))


def test_the_order_of_the_results_does_not_change_a_mean():
    trials = make_trials(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2"]), draw)
    lines = [_line(trial, fold, loss) for trial in (0, 1) for fold, loss in enumerate((0.1, 0.2, 0.3))]
    assert rank(trials, lines[::-1], SweepSpec(folds=3)) == rank(trials, lines, SweepSpec(folds=3))


def test_trials_are_drawn_the_same_and_can_be_typed_again():
    varied = ["optimizer.lr={min: 1e-4, max: 0.1, log: true}", "data.batch_size={min: 4, max: 64, log: true}"]
    for method in ("random", "sobol"):
        options = [*varied, "sweep.trials=200", f"sweep.method={method}"]
        first, second = (make_trials(load_sweep(write_spec(), options), draw) for _ in range(2))
        assert [trial.parameters for trial in first] == [trial.parameters for trial in second]
        rates = np.array([trial.parameters["optimizer.lr"] for trial in first])
        assert all(float(f"{rate:.3g}") == rate for rate in rates)
        assert rates.min() >= 1e-4 and rates.max() <= 0.1
        assert 0.4 < (rates < 10**-2.5).mean() < 0.6
        sizes = [trial.parameters["data.batch_size"] for trial in first]
        assert all(isinstance(size, int) and 4 <= size <= 64 for size in sizes)


def test_an_interrupted_sweep_says_how_far_it_is(linreg, monkeypatch):
    stop = _StopAfter(45)
    monkeypatch.setattr(StopFlag, "__call__", lambda flag: stop())
    answer = linreg("sweep", write_spec(engine="textbook"), "optimizer.lr=0.1,0.2,0.3")
    assert answer.code == 143
    assert "1 of 3 models of 3 trials in " in answer.err
    assert "not trained" not in answer.err
    assert "interrupted; to continue, run the same command with --resume" in answer.err
    assert answer.out == ""


def test_equal_values_make_one_trial(linreg):
    assert len(make_trials(load_sweep(write_spec(), ["optimizer.lr=0.1,0.1,0.2"]), draw)) == 2


def test_the_ranking_shows_nothing_that_is_the_same_for_all_trials(linreg):
    block = {"parameters": {"optimizer.lr": [0.1, 0.2], "seed": [3], "optimizer.momentum": [0.0]}}
    answer = linreg("sweep", write_spec(sweep=block))
    (head,) = [line.split() for line in answer.err.splitlines() if line.startswith("rank")]
    assert head == ["rank", "trial", "optimizer.lr", "val_loss"]


def test_a_small_space_has_fewer_trials_than_asked_for(linreg):
    answer = linreg("sweep", write_spec(), "data.batch_size={min: 8, max: 9}", "--trials", "5")
    assert answer.code == 0
    assert "2 different trials instead of 5" in answer.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing varies; add a key with values"),
        (["optimizer.lr=0.1,-2,x"], "optimizer.lr=-2: optimizer.lr: must be > 0, got -2"),
        (["optimizer.lrr=1,2"], "unknown param of optimizer sgd; did you mean 'lr'?"),
        (["optimizer.lr={min: 1, max: 0.1}"], "sweep.parameters.optimizer.lr: min must be < max, got 1 and 0.1"),
        (["optimizer.lr={min: 0, max: 1, log: true}"], "log needs min > 0, got 0"),
        (["optimizer.lr={min: 0.1, max: 1}"], "sweep: trials: missing; a range is drawn from"),
        (["optimizer.lr={min: 0.1, max: 1}", "sweep.method=grid"], "method: grid takes values"),
        (["optimizer.lr=1,2", "sweep.method=grid", "--trials", "3"], "a grid has all combinations; remove trials"),
        (["optimizer.lr=1,2", "optimizer={name: sgd},{name: adam}"], "optimizer and optimizer.lr overlap"),
        (["optimizer.lr=1,2", "sweep.select=one_se"], "one_se needs several measurements"),
        (["optimizer.lr=1,2", "--folds", "1"], "sweep.folds: must be >= 2, got 1"),
        (["optimizer.lr=1,2", "sweep.fold=3"], "sweep.fold: unknown key; did you mean 'folds'?"),
        (["optimizer.lr=1,2", "data.split.train_ratio=1.0"], "no validation part to compare trials on"),
        (["optimizer.lr=1,2", "data.split={folds: 3, fold: 0}", "--folds", "3"], "divides the rows into folds"),
        (
            ["optimizer.lr=1,2", "sweep.halving={min_epochs: 2}", "sweep.metric=r2"],
            "halving compares trials by val_loss",
        ),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_is_written(linreg, arguments, problem):
    answer = linreg("sweep", write_spec(), *arguments)
    assert answer.code == 2, answer.err
    assert problem in answer.err
    assert not Path("runs").exists()


def test_train_names_the_command_for_a_sweep(linreg):
    assert linreg("sweep", write_spec(sweep={"parameters": {"optimizer.lr": [0.1, 0.2]}})).code == 0
    answer = linreg("train", "small.yaml")
    assert answer.code == 2
    assert "sweep: this command takes one model; use linreg sweep, or remove the block" in answer.err
    for override in ("optimizer.lr=0.1,0.2", "model.hidden=[3],[4]"):
        answer = linreg("train", write_spec(), override)
        assert answer.code == 2
        assert "; for several values, use linreg sweep" in answer.err


def write_table(n_rows=30):
    generator = np.random.default_rng(5)
    x, group = generator.normal(size=(n_rows, 2)), np.repeat(np.arange(n_rows // 3), 3)
    y = x @ [1.0, -2.0] + 0.5 + generator.normal(size=n_rows)
    rows = np.column_stack([x, y, group])
    Path("t.csv").write_text("a,b,y,g\n" + "\n".join(",".join(map(repr, row)) for row in rows.tolist()) + "\n")
    return x, y


SOURCE = {"name": "csv", "path": "t.csv", "target": "y", "exclude": "g"}


@pytest.mark.parametrize("standardize", [False, True])
def test_exact_cross_validation_is_a_loop_over_folds_by_hand(linreg, standardize):
    x, y = write_table()
    path = write_spec(data__source=SOURCE, solver="exact", data__standardize=standardize)
    answer = linreg("cv", path, "--folds", "4", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    with open(result["predictions"]) as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1, 31))
    fold_of = np.array([int(row["fold"]) for row in rows])
    predicted = np.array([float(row["y_predicted"]) for row in rows])
    design = np.column_stack([np.ones(30), x])
    for fold in range(4):
        chosen = fold_of == fold
        coefficients, *_ = np.linalg.lstsq(design[~chosen], y[~chosen], rcond=None)
        expected = design[chosen] @ coefficients
        assert predicted[chosen] == pytest.approx(expected, rel=1e-9)
        rmse = np.sqrt(np.mean((y[chosen] - expected) ** 2))
        assert result["folds"][fold]["rmse"] == pytest.approx(rmse, rel=1e-9)
        assert result["folds"][fold]["n_val"] == chosen.sum()
    rmses = [fold["rmse"] for fold in result["folds"]]
    assert result["mean"]["rmse"] == pytest.approx(np.mean(rmses))
    assert result["sd"]["rmse"] == pytest.approx(np.std(rmses, ddof=1))


def test_cross_validation_keeps_groups_whole_and_repeats_with_other_folds(linreg):
    write_table()
    path = write_spec(data__source=SOURCE, data__split={"by": {"group": "g"}}, solver="exact")
    answer = linreg("cv", path, "--folds", "3", "--repeats", "2", "--output", "out.csv")
    assert answer.code == 0, answer.err
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for repeat in range(2):
        folds = {}
        for row in rows:
            if int(row["fold"]) // 3 == repeat:
                folds.setdefault((int(row["row"]) - 1) // 3, set()).add(row["fold"])
        assert len(folds) == 10
        assert all(len(found) == 1 for found in folds.values())
    assert answer.out.splitlines()[0].split() == ["fold", "n_val", "loss", "val_loss", "rmse", "mae", "r2"]
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == [*map(str, range(6)), "mean", "sd"]


def test_cross_validation_of_a_network_has_the_losses_of_its_folds(linreg):
    write_table()
    path = write_spec(data__source=SOURCE, model=MLP, data__standardize=True)
    result = json.loads(linreg("cv", path, "--folds", "3", "--json").out)
    for fold in range(3):
        answer = linreg("train", path, f"data.split={{folds: 3, fold: {fold}}}", "--json")
        alone = json.loads(answer.out)
        assert result["folds"][fold]["val_loss"] == alone["val_loss"]
        assert result["folds"][fold]["how"] == "stack"


def test_cross_validation_refuses_parameters(linreg):
    answer = linreg("cv", write_spec(sweep={"parameters": {"optimizer.lr": [0.1, 0.2]}}))
    assert answer.code == 2
    assert "cv trains one model; use linreg sweep --folds 5" in answer.err


def test_a_fold_that_diverges_ends_the_cross_validation(linreg):
    answer = linreg("cv", write_spec(optimizer__lr=1e12))
    assert answer.code == 6
    assert "error: fold 0, seed 42: epoch" in answer.err


def test_check_counts_the_models_of_a_sweep_and_writes_nothing(linreg):
    path = write_spec(model=MLP, data__source={"name": "linear", "n_samples": 48})
    models = "model={name: mlp, hidden: [4]},{name: mlp, hidden: [4], dropout: 0.5}"
    answer = linreg("check", path, "optimizer.lr=0.1,0.2,0.3", models, "sweep.folds=4", "--json")
    assert answer.code == 0, answer.err
    checked = json.loads(answer.out)
    assert (checked["n_trials"], checked["n_models"]) == (6, 24)
    found = {cohort["how"]: (cohort["n_models"], cohort["n_parameters"]) for cohort in checked["cohorts"]}
    assert found == {"stack": (12, 13), "alone": (12, 13)}
    assert checked["seconds"] >= 0
    answer = linreg("check", path, "optimizer.lr=0.1,0.2")
    assert answer.err.startswith("ok: 2 models of 2 trials, about ")
    assert "  2 models in stacks, 13 parameters each" in answer.err
    assert "sweep:" in answer.out
    assert not Path("runs").exists()
    assert not Path("checkpoints").exists()


def test_a_sweep_is_not_taken_for_a_run(linreg):
    assert linreg("sweep", write_spec(), "optimizer.lr=0.1,0.2").code == 0
    answer = linreg("evaluate", "small_sweep_001")
    assert answer.code == 4
    assert "small_sweep_001: a sweep, not a run; linreg runs lists the runs of its winners" in answer.err


def test_data_is_read_once(monkeypatch):
    calls = []
    read_rows = members.read_rows
    monkeypatch.setattr(members, "read_rows", lambda spec: calls.append(spec) or read_rows(spec))
    sweep(load_sweep(write_spec(), ["optimizer.lr=0.1,0.2,0.3", "sweep.folds=3"]))
    assert len(calls) == 1


def test_sobol_covers_evenly():
    points = np.array(sweeping.draw(SweepSpec(parameters={"a": {"min": 0, "max": 1}}, trials=8, method="sobol"), 8))
    assert sorted((points[:, 0] * 8).astype(int)) == list(range(8))


def test_the_metrics_of_early_stopping_are_those_of_the_best_epoch_in_every_stack():
    path = write_spec(model=MLP, epochs=12, early_stopping={"patience": 3, "min_delta": 0.001})
    varied = ["optimizer.lr={min: 0.01, max: 0.3, log: true}", "sweep.trials=8"]
    varied += ["sweep.halving={factor: 2, min_epochs: 1}"]
    lines = lines_of(sweep(load_sweep(path, varied)).run)
    for line in lines:
        assert line["rmse"] ** 2 == pytest.approx(
            line["best_val_loss"], rel=0.1
        )  # a mean over batches beside one over points
