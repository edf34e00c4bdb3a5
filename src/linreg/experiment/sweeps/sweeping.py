"""`sweep`: trains all trials of a sweep, ranks them, and makes ordinary runs of the winners."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from linreg.errors import DivergedError, SpecError
from linreg.experiment.evaluating import Evaluation, evaluate
from linreg.experiment.group import open_exchange
from linreg.experiment.network import choose_device
from linreg.experiment.result import CHECKPOINTS, RUNS, Result
from linreg.experiment.stopping import StopRequested, stopping_together
from linreg.experiment.sweeps.group import STATES, fingerprint_of, join_parts, keep_states, own_trials, parameters_of
from linreg.experiment.sweeps.interrupted import open_folder, take_results, take_states
from linreg.experiment.sweeps.members import SharedData, members_of
from linreg.experiment.sweeps.picture import write_ranking
from linreg.experiment.sweeps.ranking import Ranked, rank, winners
from linreg.experiment.sweeps.records import (
    ENGINE,
    TRIALS,
    Results,
    read_text,
    read_trials,
    write_trials,
)
from linreg.experiment.sweeps.rounds import Progress, Rounds
from linreg.experiment.sweeps.tpe import next_trials, require_optuna, versions_for
from linreg.experiment.sweeps.winners import train_winners
from linreg.runs.folders import Run
from linreg.runs.records import RESULTS
from linreg.runs.sessions import new_session, now
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import Points, Sweep, Trial, make_trials
from linreg.system.place import alone
from linreg.training.shards import Exchange

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class Trained:
    """What a sweep has trained. lines: the results of the members that have ended; is_done: whether these are all."""

    trials: list[Trial]
    lines: list[dict[str, Any]]
    is_done: bool


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep. run: its folder; checkpoint: of the winner's run, None without one; ranking: all trials,
    the best first; runs: of the winners; test: the winner on the test part, or None without one; models: how many were
    trained in stacks, alone, and solved."""

    run: str
    outcome: str
    metric: str
    n_trials: int
    n_models: int
    checkpoint: str | None
    ranking: list[Ranked]
    winners: list[int]
    runs: list[Result] = field(default_factory=list)
    test: Evaluation | None = None
    models: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def draw(settings: SweepSpec, n_points: int) -> Points:
    """Return points (n_points, n_parameters) in [0, 1), by the method of a sweep; random ones for its first trials if
    later ones depend on results."""
    n_parameters = len(settings.parameters)
    if settings.method == "sobol":
        from torch.quasirandom import SobolEngine

        engine: Any = SobolEngine(n_parameters, scramble=True, seed=settings.seed)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        points: Points = engine.draw(n_points, dtype=torch.float64).clamp(0, 1 - 1e-9).tolist()
        return points
    generator = random.Random(settings.seed)
    return [[generator.random() for _ in range(n_parameters)] for _ in range(n_points)]


def first_trials(spec: Sweep) -> list[Trial]:
    """Return the trials that do not depend on results. Raises SpecError with the problems of all of them."""
    trials, settings = make_trials(spec, draw), spec.sweep
    refuse_without_val(trials, settings)
    refuse_chosen_calibration(trials, settings)
    if settings.grows:
        require_optuna(spec)
    elif settings.trials is not None:
        _report_missing(settings.trials, len(trials))
    return trials


def n_planned(settings: SweepSpec, trials: Sequence[Trial]) -> int:
    """Return the number of the trials, with those that are drawn later."""
    return settings.trials if settings.grows and settings.trials is not None else len(trials)


def sweep(
    spec: Sweep,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> SweepResult:
    """Train all trials of a sweep, in a new folder, and train the winners as ordinary runs.

    resume: continue the last sweep of this spec if it was interrupted; no trial that has ended is trained again.
    progress: called with each member that has ended. stop: as in `train`. Raises SpecError with the problems of all
    trials, DataError, StorageError, and DivergedError if no trial has a result.
    """
    begin, trials = time.monotonic(), first_trials(spec)
    settings, shared = spec.sweep, SharedData()
    fingerprint = fingerprint_of(trials[0], shared)
    exchange = open_exchange(None)
    exchange.form()
    stop = exchange.relay_stop(stop)
    with open_folder(spec, trials, runs, checkpoints, fingerprint, kind=ENGINE, resume=resume) as run:
        session = _new_session(spec, trials[0])
        run.start_session(session, data_fingerprint=fingerprint, spec=spec.to_yaml())
        if not read_text(run.folder / TRIALS):  # last: without it nothing was trained
            write_trials(run.folder, trials)
        trials = read_trials(spec, run.folder, trials) if settings.grows else trials
        stop()  # from the first call on, a signal stops between steps
        trained = _train_trials(run, spec, trials, shared, fingerprint, exchange, progress, stop)
        trials, lines, is_done = trained.trials, trained.lines, trained.is_done
        ranking = rank(trials, lines, settings)
        chosen = winners(ranking, settings) if is_done else []
        own = [trials[one.trial] for one in chosen]
        with exchange.closing(), alone():
            if is_done and not chosen:
                raise _without_winner(run, session, ranking)
            if chosen and trials[0].spec.writer.plots:
                write_ranking(run.folder, ranking, chosen, settings)
            found = train_winners(own, run, lines, runs=runs, checkpoints=checkpoints, stop=stop)
        is_done = is_done and all(result.outcome != "interrupted" for result in found)
        session |= {"ended": now(), "outcome": "finished" if is_done else "interrupted"}
        run.write_info(outcome=session["outcome"], winners=[result.run for result in found])
    path = _checkpoint_of(found[0], own[0]) if found else None
    n_trials = len(trials) if trained.is_done else n_planned(settings, trials)
    return SweepResult(
        run=run.name,
        outcome=session["outcome"],
        metric=settings.metric,
        n_trials=n_trials,
        n_models=n_trials * settings.n_trainings,
        checkpoint=path,
        ranking=ranking,
        winners=[one.trial for one in chosen],
        runs=found,
        test=evaluate(path, part="test") if path and is_done and _has_test(own[0]) else None,
        models=dict(Counter(str(line["how"]) for line in lines)),
        seconds=round(time.monotonic() - begin, 3),
    )


def _new_session(spec: Sweep, trial: Trial) -> dict[str, Any]:
    session = new_session(choose_device(trial.spec), ENGINE, 0, None)
    session["environment"] |= versions_for(spec.sweep)
    return session


def _train_trials(
    run: Run,
    spec: Sweep,
    trials: Sequence[Trial],
    shared: SharedData,
    fingerprint: str,
    exchange: Exchange,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> Trained:
    """Train all members whose results are not known, and then those of the trials that are drawn from the results."""
    settings = spec.sweep
    path = run.checkpoints / STATES
    join_parts(run.folder, path)
    results = Results(run.folder / RESULTS)
    members = members_of(own_trials(trials, exchange.rank, exchange.size), settings)
    take_results(members, results.lines)
    take_states(members, path)
    n_models = len(range(0, n_planned(settings, trials), exchange.size)) * settings.n_trainings
    rounds = Rounds(
        members, trials, results, shared,
        n_models=n_models, path=path, progress=progress, stop=stop, exchange=exchange,
    )  # fmt: skip
    try:
        with stopping_together(exchange):
            exchange.lead(lambda: (run.name, results.lines, parameters_of(trials), fingerprint))
            keep_states(rounds)
            while True:
                rounds.train(settings)
                for lines, stacks in exchange.collect(None)[1:]:
                    rounds.take(lines, stacks)
                with exchange.at_work():
                    new = next_trials(spec, rounds.trials, results.lines)
                if new:
                    write_trials(run.folder, [*rounds.trials, *new])
                exchange.lead(partial(parameters_of, new))
                if not new:
                    break
                rounds.add(members_of(own_trials(new, exchange.rank, exchange.size), settings), new)
        join_parts(run.folder, path)
    except StopRequested:
        return Trained(rounds.trials, results.lines, is_done=False)
    finally:
        results.close()
        run.write_info(outcome="interrupted", stacks=[*run.info.get("stacks", []), *rounds.stacks])
    run.write_info(outcome="running")
    path.unlink(missing_ok=True)
    if settings.grows:
        _report_missing(n_planned(settings, trials), len(rounds.trials))
    return Trained(rounds.trials, results.lines, is_done=True)


def _report_missing(n_wanted: int, n_trials: int) -> None:
    """Report that there are fewer trials than asked for."""
    if n_trials < n_wanted:
        log.info("%d different trials instead of %d: the values allow no more", n_trials, n_wanted)


def refuse_without_val(trials: Sequence[Trial], settings: SweepSpec) -> None:
    """Raise a SpecError for a sweep without trials, or without a validation part to compare them on."""
    if not trials:
        raise SpecError(["sweep: no trials"])
    split, spec = trials[0].spec.data.split, trials[0].spec
    has_val = split.val is not None or split.folds is not None or split.total < 1 - 1e-9
    if settings.folds is None and not has_val:
        where = spec.where("data", "split")
        raise SpecError([f"{where}: no validation part to compare trials on; lower train_ratio, or set sweep.folds"])


def refuse_chosen_calibration(trials: Sequence[Trial], settings: SweepSpec) -> None:
    """Raise a SpecError for a sweep that chooses on rows that calibrate the intervals of its winner."""
    spec = next((trial.spec for trial in trials if trial.spec.intervals is not None), None)
    if spec is None or spec.intervals is None:
        return
    divides = [key for key in settings.parameters if key.startswith(("data.split", "data.source"))]
    problem = None
    if divides:
        problem, hint = f"{divides[0]} divides the rows anew", "sweep without it, or without intervals"
    elif spec.intervals.method == "split" and settings.repeats > 1:
        problem, hint = "sweep.repeats divides the rows anew", "remove repeats"
    elif spec.intervals.method != "split" and settings.folds is not None:
        problem, hint = "sweep.folds measures on the training part", "use method: split, or sweep without folds"
    if problem is not None:
        where = spec.where("intervals")
        raise SpecError([f"{where}: {problem}, so the sweep would choose on rows that calibrate; {hint}"])


def _checkpoint_of(result: Result, trial: Trial) -> str:
    """Return the checkpoint with the result of a run: with early stopping, the best epoch."""
    path = Path(result.checkpoint)
    best = path.with_name("best.pth")
    return str(best if trial.spec.early_stopping is not None and best.is_file() else path)


def _has_test(trial: Trial) -> bool:
    split = trial.spec.data.split
    return split.test is not None or split.test_ratio > 0


def _without_winner(run: Run, session: dict[str, Any], ranking: Sequence[Ranked]) -> DivergedError:
    """End a sweep of which all trials have failed; return the error."""
    session |= {"ended": now(), "outcome": "diverged"}
    run.write_info(outcome="diverged", winners=[])
    counts = Counter(one.outcome for one in ranking)
    listed = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    return DivergedError(f"no trial has a result: {listed}; trial {ranking[0].trial}: {ranking[0].reason}")
