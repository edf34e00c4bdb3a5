"""Sweeps with `method: tpe`: trials are drawn from results, and an interruption changes none of them."""

import json
import math
import random
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import optuna
import pytest

from linreg.errors import StorageError
from linreg.experiment.sweeps import sweeping
from linreg.experiment.sweeps.sweeping import first_trials, sweep
from linreg.experiment.sweeps.tpe import next_trials
from linreg.runs.records import read_info
from linreg.spec import sweeps
from linreg.spec.sweeps import load_sweep, member_spec, trials_of
from tests.conftest import times, write_spec
from tests.experiment.test_sweeps import MLP, lines_of, losses_alone

RATE = "optimizer.lr={min: 0.001, max: 0.5, log: true}"
TPE = "sweep.method=tpe"


def trials_in(run):
    return [json.loads(line) for line in (Path("runs") / run / "trials.jsonl").read_text().splitlines()]


def in_order(lines):
    """Return results in the order of the members, without how each was trained."""
    return sorted(
        ({**line, "how": ""} for line in lines), key=lambda line: str([line["trial"], line["seed"], line["fold"]])
    )


def results_of(trials, loss_of, **keys):
    """Return the results of trials, each trained once."""
    line = {"seed": 1, "fold": None, "outcome": "finished", "epochs": 5, "n_parameters": 2, "reason": None}
    return [{**line, "trial": trial.number, "result_loss": loss_of(trial.parameters), **keys} for trial in trials]


def distance(parameters):
    """Return how far a learning rate is from 0.01, in powers of ten."""
    return abs(math.log10(parameters["optimizer.lr"] / 0.01))


def grown(spec, n_trials, loss_of):
    """Draw trials in rounds, whose losses are given by a function."""
    trials = first_trials(spec)
    while len(trials) < n_trials:
        trials += next_trials(spec, trials, results_of(trials, loss_of))
    return trials


def sweep_until(spec, n_ended):
    """Resume a sweep, or start it, and stop when a number of trainings have ended."""
    seen = [0]
    return sweep(spec, resume=True, progress=lambda n_done, *_: seen.append(n_done), stop=lambda: seen[-1] >= n_ended)


def test_later_trials_are_near_the_good_ones():
    spec = load_sweep(write_spec(), ["optimizer.lr={min: 1e-6, max: 10.0, log: true}", "sweep.trials=60", TPE])
    trials = grown(spec, 60, distance)
    first, last = ([distance(trial.parameters) for trial in part] for part in (trials[:10], trials[-20:]))
    assert np.median(last) < 0.5 * np.median(first)


def test_later_trials_have_the_good_values():
    models = "model={name: linear},{name: polynomial, degree: 2},{name: polynomial, degree: 3},{name: mlp, hidden: [2]}"
    spec = load_sweep(write_spec(), [models, RATE, "sweep.trials=60", TPE])
    trials = grown(spec, 60, lambda parameters: distance(parameters) + (parameters["model"].get("degree") != 3))
    assert sum(trial.parameters["model"].get("degree") == 3 for trial in trials[-20:]) >= 10


def test_rounds_grow_with_what_is_known():
    spec = load_sweep(write_spec(), [RATE, "sweep.trials=100", TPE])
    trials, sizes = first_trials(spec), []
    while new := next_trials(spec, trials, results_of(trials, distance)):
        assert [trial.number for trial in new] == list(range(len(trials), len(trials) + len(new)))
        trials += new
        sizes.append(len(new))
    assert sizes == [8, 8, 8, 8, 10, 13, 16, 19]
    assert len(first_trials(load_sweep(write_spec(), [RATE, "sweep.trials=5", TPE]))) == 5


def test_the_seed_decides_what_is_drawn():
    one, same, other = (
        [
            trial.parameters
            for trial in grown(load_sweep(write_spec(), [RATE, "sweep.trials=26", TPE, seed]), 26, distance)
        ]
        for seed in ("sweep.seed=1", "sweep.seed=1", "sweep.seed=2")
    )
    assert one == same
    assert one[10:] != other[10:]


def test_numbers_can_be_typed_again_and_values_stay_as_they_are():
    components = "optimizer={name: sgd, lr: 0.1},{name: adam, lr: 0.01}"
    options = ["data.batch_size={min: 4, max: 64, log: true}", "seed={min: 1, max: 9}", components, TPE]
    spec = load_sweep(write_spec(), [*options, "model.bias=true,false", "epochs={min: 3, max: 9}", "sweep.trials=60"])
    for trial in grown(spec, 60, lambda parameters: parameters["data.batch_size"]):
        assert all(type(trial.parameters[key]) is int for key in ("data.batch_size", "seed", "epochs"))
        assert 4 <= trial.parameters["data.batch_size"] <= 64
        assert trial.parameters["optimizer"] in ({"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": 0.01})
        assert trial.parameters["model.bias"] in (True, False)
    rates = [
        trial.parameters["optimizer.lr"]
        for trial in grown(load_sweep(write_spec(), [RATE, "sweep.trials=40", TPE]), 40, distance)
    ]
    assert all(float(f"{rate:.3g}") == rate for rate in rates)
    assert min(rates) >= 0.001 and max(rates) <= 0.5


def test_optuna_is_told_the_rounded_values_and_the_mean_of_seeds_and_folds(monkeypatch):
    added = []
    add_trial = optuna.Study.add_trial
    monkeypatch.setattr(optuna.Study, "add_trial", lambda study, trial: added.append(trial) or add_trial(study, trial))
    options = [RATE, "model.hidden=[2],[3]", "sweep.trials=18", "sweep.seeds=2", "sweep.folds=2", TPE]
    run = sweep(load_sweep(write_spec(model=MLP, epochs=2), options)).run
    lines, trials = lines_of(run), trials_in(run)
    assert len(added) == 10
    for trial, frozen in zip(trials[:10], added, strict=True):
        own = [line["result_loss"] for line in in_order(lines) if line["trial"] == trial["trial"]]
        assert len(own) == 4
        assert frozen.value == pytest.approx(np.mean(own), rel=1e-15)
        hidden = [[2], [3]].index(trial["parameters"]["model.hidden"])
        assert frozen.params == {"optimizer.lr": trial["parameters"]["optimizer.lr"], "model.hidden": hidden}


def test_a_large_r2_is_as_good_as_a_small_loss():
    options = [RATE, "sweep.trials=60", TPE]
    by_loss = load_sweep(write_spec(), options)
    by_r2 = load_sweep(write_spec(), [*options, "sweep.metric=r2"])
    trials = grown(by_loss, 42, distance)
    lines = results_of(trials, distance)
    reversed_lines = [{**line, "r2": -line["result_loss"], "result_loss": 1.0} for line in lines]
    expected = next_trials(by_loss, trials, lines)
    assert [t.parameters for t in next_trials(by_r2, trials, reversed_lines)] == [t.parameters for t in expected]


def test_trials_that_diverge_repel_later_ones():
    spec = load_sweep(write_spec(), ["optimizer.lr={min: 1e-4, max: 1e4, log: true}", "sweep.trials=60", TPE])
    trials = first_trials(spec)
    while len(trials) < 60:  # the best rates are just below those that diverge
        lines = results_of(trials, lambda parameters: -math.log10(parameters["optimizer.lr"]))
        for line in lines:
            if line["result_loss"] < 0:
                line.update(outcome="diverged", result_loss=None, reason="epoch 0")
        trials += next_trials(spec, trials, lines)
    rates = [trial.parameters["optimizer.lr"] for trial in trials[10:]]
    assert sum(rate > 1 for rate in rates) < 30  # 45 without their results


def test_a_sweep_where_everything_diverges_ends(linreg):
    answer = linreg("sweep", write_spec(epochs=40), "optimizer.lr={min: 1e11, max: 1e13}", TPE, "--trials", "14")
    assert answer.code == 6
    assert "error: no trial has a result: 14 diverged" in answer.err


def test_no_combination_is_trained_twice(linreg):
    path = write_spec(epochs=2)
    answer = linreg(
        "sweep", path, "optimizer.lr=0.1,0.2,0.3", "data.batch_size={min: 5, max: 8}", TPE, "--trials", "20"
    )
    assert answer.code == 0, answer.err
    assert "12 different trials instead of 20: the values allow no more" in answer.err
    assert "12 models of 12 trials in " in answer.err
    parameters = [str(trial["parameters"]) for trial in trials_in("small_sweep_001")]
    assert len(set(parameters)) == len(parameters) == 12
    assert sorted(line["trial"] for line in lines_of("small_sweep_001")) == list(range(12))


def test_trials_are_written_before_they_are_trained():
    written = []
    result = sweep(
        load_sweep(write_spec(epochs=2), [RATE, "sweep.trials=26", TPE]),
        progress=lambda n_done, n_models, text: written.append((n_done, n_models, len(trials_in("small_sweep_001")))),
    )
    assert result.n_trials == 26
    assert {n_models for _, n_models, _ in written} == {26}
    assert {n_trials for _, _, n_trials in written} == {10, 18, 26}
    for n_done, _, n_trials in written:  # the trials of a round when those before it have ended
        assert n_done <= n_trials <= {10: 18, 18: 26}.get(n_done, 10 if n_done < 10 else 18 if n_done < 18 else 26)


def test_later_trials_are_single_runs():
    spec = load_sweep(
        write_spec(model=MLP, epochs=3), [RATE, "seed={min: 1, max: 9}", "sweep.trials=14", "sweep.seeds=2", TPE]
    )
    run = sweep(spec).run
    trials = trials_of(spec, [trial["parameters"] for trial in trials_in(run)])
    lines = [line for line in lines_of(run) if line["trial"] >= 10]
    assert len(lines) == 8
    for line in lines:
        trial = trials[line["trial"]]
        alone = losses_alone(member_spec(trial.spec, spec.sweep, line["seed"] - trial.spec.seed, None), "alone")
        assert (
            tuple(line[name] for name in ("epochs", "loss", "val_loss", "best_epoch", "best_loss", "best_val_loss"))
            == alone
        )


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"engine": "textbook", "epochs": 2}, []),
        ({"engine": "textbook", "epochs": 3}, ["optimizer.lr={min: 0.001, max: 1e15, log: true}"]),
        ({"model": MLP, "epochs": 2}, ["sweep.folds=2", "sweep.seeds=2"]),
        ({"engine": "textbook", "epochs": 2}, ["sweep.seeds=3", "sweep.metric=r2"]),
    ],
    ids=str,
)
def test_interruptions_change_no_trial_and_no_result(changes, options):
    path, options = write_spec(**changes), [RATE, "data.batch_size=8,16", "sweep.trials=22", TPE, *options]
    expected = sweep(load_sweep(path, options)).run
    again, chance = load_sweep(path, [*options, "name=again"]), random.Random(1)
    n_ended, ends = 0, set()
    while (result := sweep_until(again, n_ended + chance.randint(1, 9))).outcome == "interrupted":
        n_ended = len(lines_of("again_sweep_001"))
        ends.add((len(trials_in("again_sweep_001")), n_ended))
    assert result.run == "again_sweep_001"
    assert {n_trials for n_trials, _ in ends} == {10, 18, 22}
    assert len(ends) >= 4
    assert trials_in("again_sweep_001") == trials_in(expected)
    assert in_order(lines_of("again_sweep_001")) == in_order(lines_of(expected))
    has_diverged = any(line["outcome"] == "diverged" for line in lines_of(expected))
    assert has_diverged == any("1e15" in option for option in options)


class Killed(BaseException):
    """What ends a sweep where nothing expects it."""


@pytest.mark.parametrize("is_written", [False, True])
def test_a_sweep_that_ends_between_rounds_goes_on_with_the_same_trials(is_written, monkeypatch):
    path, options = write_spec(epochs=2), [RATE, "sweep.trials=26", TPE]
    expected = sweep(load_sweep(path, options)).run
    again = load_sweep(path, [*options, "name=again"])
    write_trials = sweeping.write_trials

    def write_and_end(folder, trials):
        if is_written or len(trials) == 10:
            write_trials(folder, trials)
        if len(trials) > 10:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sweeping, "write_trials", write_and_end)
        sweep(again)
    assert len(lines_of("again_sweep_001")) == 10
    assert len(trials_in("again_sweep_001")) == (18 if is_written else 10)
    assert sweep(again, resume=True).run == "again_sweep_001"
    assert trials_in("again_sweep_001") == trials_in(expected)
    assert in_order(lines_of("again_sweep_001")) == in_order(lines_of(expected))


def test_kills_change_no_trial_and_no_result():
    path = write_spec(engine="textbook", epochs=60)
    command = [sys.executable, "-m", "linreg", "sweep", path, RATE, TPE, "--trials", "22", "--quiet", "--resume"]
    subprocess.run([*command, "--name", "whole"], check=True, capture_output=True, timeout=120)
    chance, n_kills, n_kills_at_most = random.Random(4), 0, times(3, 6)
    for _ in range(40):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            _, errors = process.communicate(timeout=chance.uniform(0.9, 2.0) if n_kills < n_kills_at_most else 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            n_kills += 1
            folders = sorted(Path("runs").glob("small_sweep_*"))
            if folders and read_info(folders[-1]).get("outcome") == "finished":  # killed at its end
                break
            continue
        assert process.returncode == 0, errors
        break
    assert n_kills >= 2
    *empty, last = sorted(Path("runs").glob("small_sweep_*"))
    assert not any((folder / "results.jsonl").exists() for folder in empty)
    assert trials_in(last.name) == trials_in("whole_sweep_001")
    assert in_order(lines_of(last.name)) == in_order(lines_of("whole_sweep_001"))


def interrupted(path, options):
    """Interrupt a sweep in its second round; return the path of its trials."""
    stopped = sweep_until(load_sweep(path, options), 14)
    assert stopped.outcome == "interrupted"
    assert (stopped.n_trials, stopped.n_models) == (26, 26)
    assert len(trials_in(stopped.run)) == 18
    return Path("runs") / stopped.run / "trials.jsonl"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: text + "[]\n",
        lambda text: text.replace('"trial": 17', '"trial": 71'),
        lambda text: text[: text.rindex("{")] + '{"optimizer.lr": 0.9}}\n',
        lambda text: text[: text.rindex("{")] + '{"optimizer.lr": -0.9}}\n',
        lambda text: text[: text.rindex("{")] + '{"optimizer.lr": 0.12345}}\n',
        lambda text: text[: text.rindex("{")] + '{"lr": 0.01}}\n',
    ],
)
def test_damaged_trials_are_refused(change):
    path, options = write_spec(engine="textbook", epochs=2), [RATE, "sweep.trials=26", TPE]
    file = interrupted(path, options)
    before = file.read_text()
    file.write_text(change(before))
    with pytest.raises(StorageError, match=r"small_sweep_001/trials.jsonl: damaged; run the command without --resume"):
        sweep(load_sweep(path, options), resume=True)
    file.write_text(before)
    assert sweep(load_sweep(path, options), resume=True).run == "small_sweep_001"


def test_other_first_trials_start_another_sweep(caplog):
    path, options = write_spec(engine="textbook", epochs=2), [RATE, "sweep.trials=26", TPE]
    file = interrupted(path, options)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(['{"trial": 0, "parameters": {"optimizer.lr": 0.123}}\n', *lines[1:]]))
    with caplog.at_level("WARNING", "linreg"):
        assert sweep(load_sweep(path, options), resume=True).run == "small_sweep_002"
    assert "small_sweep_001, has another spec" in caplog.text


def test_a_combination_that_is_no_spec_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr(sweeps, "MOST_ENDS", 1)
    spec = load_sweep(
        write_spec(solver="exact"), ["solver=exact,gradient", "ridge={min: 0.0, max: 1.0}", "sweep.trials=30", TPE]
    )
    trials = trials_of(spec, [{"solver": "exact", "ridge": 0.1 * number} for number in range(10)])
    with caplog.at_level("WARNING", "linreg"):
        new = next_trials(spec, trials, results_of(trials, lambda parameters: 1.0))
    assert len(new) == 8
    assert [trial.number for trial in new] == list(range(10, 18))
    assert {trial.parameters["solver"] for trial in new} == {"exact"}
    assert "a drawn trial is left out: " in caplog.text
    assert "ridge needs solver: exact" in caplog.text


@pytest.mark.parametrize("n_values", [2, 40])
def test_every_end_and_value_is_checked_before_anything_is_written(linreg, n_values):
    values = ",".join(map(str, range(1, n_values)))
    answer = linreg(
        "sweep", write_spec(), "optimizer.lr={min: -0.001, max: 100}", f"seed={values},-3", f"epochs={values},x",
        TPE, "--trials", "11",
    )  # fmt: skip
    assert answer.code == 2
    assert "optimizer.lr=-0.001: optimizer.lr: must be > 0, got -0.001" in answer.err
    assert "seed: must be >= 0, got -3" in answer.err
    assert "epochs: must be a whole number, got 'x'" in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["optimizer.lr=1,2", TPE], "sweep: trials: missing"),
        ([RATE, TPE, "--trials", "20", "sweep.halving={min_epochs: 2}"], "halving: method: tpe learns from whole trainings; remove halving"),
        (["seed={min: 1, max: 9000000000000000}", TPE, "--trials", "20"], "parameters: seed: the range is too wide for method: tpe"),
        (["optimizer.lr={min: -1e308, max: 1e308}", TPE, "--trials", "20"], "parameters: optimizer.lr: the range is too wide"),
    ],
)  # fmt: skip
def test_wrong_sweeps_are_refused(linreg, arguments, problem):
    answer = linreg("sweep", write_spec(), *arguments)
    assert answer.code == 2, answer.err
    assert problem in answer.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["sweep", "check"])
def test_without_optuna_the_message_says_what_to_install(linreg, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "optuna", None)
    answer = linreg(command, write_spec(), RATE, TPE, "sweep.trials=20")
    assert answer.code == 2
    assert "override 'sweep.method=tpe': sweep.method: tpe needs Optuna, got " in answer.err
    assert "; pip install 'linreg[optuna]', or use method: random" in answer.err
    assert not Path("runs").exists()
    assert linreg("sweep", write_spec(), RATE, "sweep.trials=3").code == 0


def test_check_says_that_later_trials_depend_on_results(linreg):
    options = [write_spec(model=MLP), RATE, TPE, "sweep.trials=24", "sweep.seeds=2"]
    answer = linreg("check", *options)
    assert answer.err.startswith("ok: 48 models of 24 trials, about ")
    assert "  20 models in stacks, 13 parameters each" in answer.err
    assert "  28 models of 14 trials that depend on the results of those before" in answer.err
    checked = json.loads(linreg("check", *options, "--json").out)
    assert (checked["n_trials"], checked["n_later_trials"], checked["n_models"]) == (24, 14, 48)
    assert not Path("runs").exists()


def test_optuna_prints_nothing_and_keeps_its_settings():
    path = write_spec(epochs=2)
    command = [sys.executable, "-m", "linreg", "sweep", path, RATE, TPE, "--trials", "12", "--quiet"]
    assert subprocess.run(command, check=True, capture_output=True, timeout=120).stderr == b""
    level = optuna.logging.get_verbosity()
    sweep(load_sweep(path, [RATE, TPE, "sweep.trials=12"]))
    assert optuna.logging.get_verbosity() == level


def test_the_spec_in_the_folder_repeats_the_sweep(linreg):
    assert linreg("sweep", write_spec(epochs=2), RATE, TPE, "--trials", "14").code == 0
    assert linreg("sweep", "runs/small_sweep_001/spec.yaml").code == 0
    assert trials_in("small_sweep_002") == trials_in("small_sweep_001")
    assert lines_of("small_sweep_002") == lines_of("small_sweep_001")


def test_the_run_has_the_version_of_optuna(linreg):
    for method in ("tpe", "random"):
        assert linreg("sweep", write_spec(epochs=1), RATE, f"sweep.method={method}", "--trials", 2).code == 0
    drawn, other = (json.loads(Path(f"runs/small_sweep_00{n}/run.json").read_text())["sessions"][0] for n in (1, 2))
    assert drawn["environment"] == {**other["environment"], "optuna": version("optuna")}


def test_no_trials_are_drawn_later_by_another_method():
    spec = load_sweep(write_spec(), [RATE, "sweep.trials=20"])
    assert len(first_trials(spec)) == 20
    trials = first_trials(spec)[:12]
    assert next_trials(spec, trials, results_of(trials, distance)) == []
