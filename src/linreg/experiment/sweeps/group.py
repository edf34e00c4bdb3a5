"""A sweep by several processes: each trains its own trials, and writes their results and states to files of its own.
A cross-validation does the same with folds.

They send each other results at the start and at the end only; with `halving` and `method: tpe` after each round too. An
interrupted sweep may continue with another number of processes: the first one puts the files together.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from linreg.checkpoint import load_states, save_states
from linreg.data.fingerprint import differing
from linreg.errors import CheckpointError, DataError
from linreg.experiment.group import open_exchange
from linreg.experiment.stopping import StopRequested, stopping_together
from linreg.experiment.sweeps.interrupted import take_results, take_states
from linreg.experiment.sweeps.members import SharedData, members_of
from linreg.experiment.sweeps.records import Results, part_of, parts_of, results_of
from linreg.experiment.sweeps.rounds import Rounds
from linreg.runs.records import RESULTS
from linreg.spec.sweeps import Sweep, Trial, trials_of
from linreg.training.shards import Exchange

log = logging.getLogger("linreg")

STATES = "sweep.pth"  # in the folder of the sweep's checkpoints


def own_trials(trials: Sequence[Trial], rank: int, size: int) -> list[Trial]:
    """Return the trials of a process: every size-th one."""
    return [trial for trial in trials if trial.number % size == rank]


def parameters_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return what a process needs to know of trials."""
    return [trial.parameters for trial in trials]


def join_parts(folder: Path, states: Path) -> None:
    """Put the files of all processes of an interrupted sweep together into those of the first. states: its file with
    states. Raises StorageError."""
    parts, state_parts = parts_of(folder / RESULTS), parts_of(states)
    if parts:
        results = Results(folder / RESULTS)
        known = {_key(line) for line in results.lines}
        results.add([line for part in parts for line in results_of(part) if _key(line) not in known])
        results.close()
    if state_parts:
        save_states(states, list(_all_states([states, *state_parts])))
    for part in [*parts, *state_parts]:
        part.unlink()


def keep_states(rounds: Rounds) -> None:
    """Save the states that this process has taken from the file of the first one, which will soon have others. Raises
    StorageError, GroupError."""
    if rounds.exchange.rank > 0:
        rounds.save_states()
    rounds.exchange.collect(None)


def fingerprint_of(trial: Trial, shared: SharedData) -> str:
    """Return the fingerprint of the data, which all trials share; empty if it varies. Raises SpecError, DataError."""
    varies = any(key.partition(".")[0] == "data" for key in trial.parameters)
    return "" if varies else shared.rows(trial.spec).fingerprint


def refuse_other_data(fingerprint: str, of_first: str) -> None:
    """Raise DataError if this process reads another table than the first one. of_first: its fingerprint, empty if the
    data varies from trial to trial."""
    others = differing(of_first, fingerprint) if of_first else []
    if others:
        problem = f"data.source differs from that of rank 0 ({'; '.join(others)})"
        raise DataError(f"{problem}; give all processes the same table")


def _key(line: dict[str, object]) -> tuple[object, ...]:
    return line["trial"], line["seed"], line["fold"]


def _all_states(paths: Iterable[Path]) -> Iterable[dict[str, object]]:
    for path in paths:
        if path.exists():
            try:
                yield from load_states(path)
            except CheckpointError as error:
                log.warning("%s; training its trials from their start", error)


def follow_sweep(
    spec: Sweep, trials: Sequence[Trial], *, runs: Path, checkpoints: Path, stop: Callable[[], bool] = lambda: False
) -> str:
    """Train the trials of this process, which is not the first of its group; return the outcome. Raises the errors of
    `sweep`, and GroupError."""
    exchange, shared = open_exchange(None), SharedData()
    fingerprint = fingerprint_of(trials[0], shared)
    exchange.form(listen=stop)  # from the first call on, a signal stops between steps
    stop = exchange.relay_stop(stop)
    try:
        with stopping_together(exchange):
            name, lines, parameters, of_first = exchange.follow()
            refuse_other_data(fingerprint, of_first)
            trials = [*trials, *trials_of(spec, parameters[len(trials) :], len(trials))]
            path, states = runs / name / RESULTS, checkpoints / name / STATES
            _train_own(spec, trials, lines, shared, exchange, stop, path=path, states=states)
            exchange.wait_for_first()
    except StopRequested:
        return "interrupted"
    return "finished"


def _train_own(
    spec: Sweep,
    trials: Sequence[Trial],
    lines: Iterable[dict[str, Any]],
    shared: SharedData,
    exchange: Exchange,
    stop: Callable[[], bool],
    *,
    path: Path,
    states: Path,
) -> None:
    """Train the trials of this process, and those that the first one draws later. lines: the results that are known;
    path, states: the files of the first process with results and states."""
    members = members_of(own_trials(trials, exchange.rank, exchange.size), spec.sweep)
    take_results(members, lines)
    take_states(members, states)
    results = Results(part_of(path, exchange.rank))
    rounds = Rounds(
        members, trials, results, shared,
        n_models=len(members), path=part_of(states, exchange.rank), progress=None, stop=stop, exchange=exchange,
    )  # fmt: skip
    n_sent = n_stacks = 0
    try:
        keep_states(rounds)
        while True:
            rounds.train(spec.sweep)
            exchange.collect((results.lines[n_sent:], rounds.stacks[n_stacks:]))
            parameters = exchange.follow()
            n_sent, n_stacks = len(results.lines), len(rounds.stacks)
            new = trials_of(spec, parameters, len(rounds.trials))
            if not new:
                return
            rounds.add(members_of(own_trials(new, exchange.rank, exchange.size), spec.sweep), new)
    finally:
        results.close()
