"""`sweep`: trains all trials of a sweep, ranks them, and makes ordinary runs of the winners."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from linreg.checkpoint import load_states
from linreg.data.rows import differing
from linreg.errors import CheckpointError, DataError, DivergedError, SpecError
from linreg.experiment.evaluating import Evaluation, evaluate
from linreg.experiment.network import choose_device
from linreg.experiment.result import CHECKPOINTS, RUNS, Result
from linreg.experiment.resuming import train_or_resume
from linreg.experiment.session import StopRequested, train
from linreg.experiment.sweeps.members import Member, SharedData, members_of, waiting
from linreg.experiment.sweeps.ranking import Ranked, rank, winners
from linreg.experiment.sweeps.records import TRIALS, Results, read_text, trial_lines, write_trials
from linreg.experiment.sweeps.rounds import Progress, Rounds
from linreg.runs.folders import Run, create, hold, last_run
from linreg.runs.records import read_info
from linreg.runs.sessions import new_session, now
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import Points, Sweep, Trial, make_trials

log = logging.getLogger("linreg")

STATES = "sweep.pth"  # in the folder of the sweep's checkpoints


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
    """Return points (n_points, n_parameters) in [0, 1), by the method of a sweep."""
    n_parameters = len(settings.parameters)
    if settings.method == "sobol":
        from torch.quasirandom import SobolEngine

        engine: Any = SobolEngine(n_parameters, scramble=True, seed=settings.seed)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        points: Points = engine.draw(n_points, dtype=torch.float64).clamp(0, 1 - 1e-9).tolist()
        return points
    generator = random.Random(settings.seed)
    return [[generator.random() for _ in range(n_parameters)] for _ in range(n_points)]


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
    begin, trials = time.monotonic(), make_trials(spec, draw)
    settings = spec.sweep
    refuse_without_val(trials, settings)
    if settings.trials is not None and len(trials) < settings.trials:
        log.info("%d different trials instead of %d: the values allow no more", len(trials), settings.trials)
    members, shared = members_of(trials, settings), SharedData()
    fingerprint = _fingerprint(trials[0], shared)
    with _open_folder(spec, trials, runs, checkpoints, fingerprint, resume=resume) as run:
        session = new_session(choose_device(trials[0].spec), "sweep", 0, None)
        run.start_session(session, data_fingerprint=fingerprint, spec=spec.to_yaml())
        stop()  # from the first call on, a signal stops between steps
        lines, is_done = _train_trials(run, members, trials, shared, settings, progress, stop)
        ranking = rank(trials, lines, settings)
        chosen = winners(ranking, settings) if is_done else []
        if is_done and not chosen:
            run.write_info(outcome="diverged")
            raise DivergedError(_all_failed(ranking))
        found = []
        for one in chosen:
            trial = trials[one.trial]
            found.append(_train_winner(trial, lines, settings, runs, checkpoints, stop, resume=resume))
        is_done = is_done and all(result.outcome != "interrupted" for result in found)
        session |= {"ended": now(), "outcome": "finished" if is_done else "interrupted"}
        run.write_info(outcome=session["outcome"], winners=[result.run for result in found])
    path = _checkpoint_of(found[0], trials[chosen[0].trial]) if found else None
    has_test = path is not None and is_done and _has_test(trials[chosen[0].trial])
    return SweepResult(
        run=run.name,
        outcome=session["outcome"],
        metric=settings.metric,
        n_trials=len(trials),
        n_models=len(members),
        checkpoint=path,
        ranking=ranking,
        winners=[one.trial for one in chosen],
        runs=found,
        test=evaluate(path, part="test") if has_test and path else None,
        models=dict(Counter(str(line["how"]) for line in lines)),
        seconds=round(time.monotonic() - begin, 3),
    )


def _fingerprint(trial: Trial, shared: SharedData) -> str:
    """Return the fingerprint of the data, which all trials share; empty if it varies. Raises SpecError, DataError."""
    varies = any(key.partition(".")[0] == "data" for key in trial.parameters)
    return "" if varies else shared.rows(trial.spec).fingerprint


def _train_trials(
    run: Run,
    members: Sequence[Member],
    trials: Sequence[Trial],
    shared: SharedData,
    settings: SweepSpec,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> tuple[list[dict[str, Any]], bool]:
    """Train all members whose results are not known. Return all results, and whether these are all."""
    results = Results(run.folder)
    _take_results(members, results)
    path = run.checkpoints / STATES
    _take_states(members, path)
    rounds = Rounds(members, trials, results, shared, path=path, progress=progress, stop=stop)
    try:
        rounds.train(settings)
    except StopRequested:
        return results.lines, False
    finally:
        results.close()
        run.write_info(outcome="interrupted", stacks=[*run.info.get("stacks", []), *rounds.stacks])
    run.write_info(outcome="running")
    path.unlink(missing_ok=True)
    return results.lines, True


def refuse_without_val(trials: Sequence[Trial], settings: SweepSpec) -> None:
    """Raise a SpecError for a sweep without trials, or without a validation part to compare them on."""
    if not trials:
        raise SpecError(["sweep: no trials"])
    split, spec = trials[0].spec.data.split, trials[0].spec
    has_val = split.val is not None or split.folds is not None or split.train_ratio + split.test_ratio < 1 - 1e-9
    if settings.folds is None and not has_val:
        where = spec.where("data", "split")
        raise SpecError([f"{where}: no validation part to compare trials on; lower train_ratio, or set sweep.folds"])


@contextmanager
def _open_folder(
    spec: Sweep, trials: Sequence[Trial], runs: Path, checkpoints: Path, fingerprint: str, *, resume: bool
) -> Iterator[Run]:
    """Create the folder of a sweep, or hold that of the last one, if it is to be resumed and was interrupted. Raises
    DataError if the data has changed since."""
    name = f"{trials[0].spec.name}_sweep"
    last = last_run(name, runs) if resume else None
    if last is not None and read_info(runs / last).get("outcome") != "finished":
        folder = runs / last
        if read_text(folder / TRIALS) == trial_lines(trials) and read_text(folder / "spec.yaml") == spec.to_yaml():
            changed = differing(read_info(folder).get("data_fingerprint", fingerprint), fingerprint)
            if fingerprint and changed:
                problem = f"{folder}: data.source has changed since the sweep was interrupted ({'; '.join(changed)})"
                raise DataError(f"{problem}; restore the old data, or run the command without --resume")
            with hold(last, runs, checkpoints) as run:
                yield run
            return
        log.warning("the last sweep, %s, has another spec; starting a new one", last)
    with create(name, runs, checkpoints) as run:
        write_trials(run.folder, trials)
        yield run


def _take_results(members: Sequence[Member], results: Results) -> None:
    """Mark the members whose results are known."""
    known = {(line["trial"], line["seed"], line["fold"]): line for line in results.lines}
    for member in members:
        line = known.get((member.trial, member.spec.seed, member.fold))
        if line is not None:
            member.outcome, member.known_loss = line["outcome"], line["result_loss"]


def _take_states(members: Sequence[Member], path: Path) -> None:
    """Give the members that have not ended their saved states."""
    if not path.exists():
        return
    try:
        saved = {tuple(state["key"]): state for state in load_states(path)}
    except (CheckpointError, KeyError, TypeError) as error:
        log.warning("%s; training the trials that have not ended from their start", error)
        return
    for member in waiting(members):
        member.saved = saved.get(member.key)


def _train_winner(
    trial: Trial,
    lines: Sequence[dict[str, Any]],
    settings: SweepSpec,
    runs: Path,
    checkpoints: Path,
    stop: Callable[[], bool],
    *,
    resume: bool,
) -> Result:
    """Train a winner as an ordinary run, or finish that; its losses are those of the trial."""
    begin = train_or_resume if resume else train
    result = begin(trial.spec, runs=runs, checkpoints=checkpoints, stop=stop)
    line = next((one for one in lines if one["trial"] == trial.number and one["seed"] == trial.spec.seed), None)
    is_same = line is None or (line["loss"], line["val_loss"]) == (result.loss, result.val_loss)
    if settings.folds is None and result.outcome != "interrupted" and line is not None and not is_same:
        log.warning(
            "trial %d: its run has the losses %r and %r, and the trial %r and %r; please report this",
            trial.number, result.loss, result.val_loss, line["loss"], line["val_loss"],
        )  # fmt: skip
    return result


def _checkpoint_of(result: Result, trial: Trial) -> str:
    """Return the checkpoint with the result of a run: with early stopping, the best epoch."""
    path = Path(result.checkpoint)
    best = path.with_name("best.pth")
    return str(best if trial.spec.early_stopping is not None and best.is_file() else path)


def _has_test(trial: Trial) -> bool:
    split = trial.spec.data.split
    return split.test is not None or split.test_ratio > 0


def _all_failed(ranking: Sequence[Ranked]) -> str:
    counts = Counter(one.outcome for one in ranking)
    listed = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    return f"no trial has a result: {listed}; trial {ranking[0].trial}: {ranking[0].reason}"
