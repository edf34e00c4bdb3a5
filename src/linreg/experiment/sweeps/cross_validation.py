"""`cross_validate`: trains a spec on each fold, and measures it on the rows of the fold."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linreg.errors import DataError, DivergedError
from linreg.experiment.data import open_parts
from linreg.experiment.group import open_exchange
from linreg.experiment.measuring import metrics_of
from linreg.experiment.network import choose_device
from linreg.experiment.result import CHECKPOINTS, RUNS
from linreg.experiment.stopping import StopRequested, stopping_together
from linreg.experiment.sweeps.group import join_parts, keep_states, refuse_other_data
from linreg.experiment.sweeps.interrupted import open_folder, take_results, take_states
from linreg.experiment.sweeps.leave_one_out import leave_one_out
from linreg.experiment.sweeps.members import Member, SharedData, members_of
from linreg.experiment.sweeps.predictions import OfModel, Predictions, lines_of, write_predictions
from linreg.experiment.sweeps.records import Results, part_of, write_trials
from linreg.experiment.sweeps.rounds import BAD, Progress, Rounds
from linreg.experiment.sweeps.sweeping import draw
from linreg.runs.folders import Run, create
from linreg.runs.records import RESULTS
from linreg.runs.sessions import new_session, now
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import Sweep, Trial, make_trials
from linreg.training.shards import Exchange

ENGINE = "cv"  # of the sessions in run.json
STATES = "cv.pth"  # in the folder of its checkpoints
METRICS = ("loss", "val_loss", "rmse", "mae", "r2")


@dataclass(frozen=True)
class CrossValidation:
    """The result of a cross-validation. folds: the result of each, as in results.jsonl, with `n_val`, the number of its
    rows; mean, sd: of each metric over the folds; predictions: the file with the predictions for the rows of each
    fold, by the model that was trained without them."""

    run: str
    outcome: str
    folds: list[dict[str, Any]]
    mean: dict[str, float]
    sd: dict[str, float]
    predictions: str | None


def cross_validate(
    spec: Sweep,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    output: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> CrossValidation:
    """Cross-validate a spec whose sweep block has folds and no parameters.

    output: the file for the predictions; by default predictions.csv in the folder of the run. resume: continue the last
    cross-validation of this spec if it was interrupted. In a group each process trains its own folds, and this one, the
    first, writes. Raises SpecError, DataError, StorageError, GroupError, and DivergedError if a fold diverges.
    """
    trials, shared, exchange = make_trials(spec, draw), SharedData(), open_exchange(None)
    members = _members(spec, trials)
    rows, _ = open_parts(members[0].spec, shared.rows(members[0].spec))  # before anything is written
    exchange.form()
    stop = exchange.relay_stop(stop)
    with open_folder(spec, trials, runs, checkpoints, rows.fingerprint, kind=ENGINE, resume=resume) as run:
        session = new_session(choose_device(trials[0].spec), ENGINE, 0, None)
        run.start_session(session, data_fingerprint=rows.fingerprint, spec=spec.to_yaml())
        write_trials(run.folder, trials)
        stop()
        outcome = "failed"
        try:
            targets = rows.target_names
            lines, predictions = _train(run, members, trials, shared, targets, exchange, progress, stop)
            counts, path = predictions.counts(), None
            with exchange.closing():
                _refuse_bad(lines)
                if len(lines) == len(members):
                    path = output or run.folder / "predictions.csv"
                    predictions.finish(path)
            if path is not None:
                (run.checkpoints / STATES).unlink(missing_ok=True)
            outcome = "interrupted" if path is None else "finished"
        except DivergedError:
            outcome = "diverged"
            raise
        finally:
            session |= {"ended": now(), "outcome": outcome}
            run.write_info(outcome=outcome)
        ordered = sorted(lines, key=lambda line: (line["seed"], line["fold"]))
        return _result(run, outcome, [{**line, "n_val": counts[line["fold"], line["seed"]]} for line in ordered], path)


def follow_cross_validation(
    spec: Sweep, *, runs: Path, checkpoints: Path, stop: Callable[[], bool] = lambda: False
) -> str:
    """Train the folds of this process, which is not the first of its group, and send it their results; return the
    outcome. Raises the errors of `cross_validate`."""
    exchange, trials, shared = open_exchange(None), make_trials(spec, draw), SharedData()
    members = _members(spec, trials)[exchange.rank :: exchange.size]
    rows = shared.rows(trials[0].spec if not members else members[0].spec)
    exchange.form(listen=stop)  # from the first call on, a signal stops between steps
    stop = exchange.relay_stop(stop)
    try:
        with stopping_together(exchange):
            name, lines, fingerprint = exchange.follow()
            refuse_other_data(rows.fingerprint, fingerprint)
            take_results(members, lines)
            take_states(members, checkpoints / name / STATES)
            results = Results(part_of(runs / name / RESULTS, exchange.rank))
            predictions = Predictions(runs / name, rows.target_names, rank=exchange.rank)
            path = part_of(checkpoints / name / STATES, exchange.rank)
            rounds = _rounds(members, trials, results, shared, predictions, path, exchange, None, stop)
            with closing(results):
                keep_states(rounds)
                rounds.train(SweepSpec())
                exchange.collect((results.lines, predictions.lines))
            exchange.wait_for_first()
    except StopRequested:
        return "interrupted"
    return "finished"


def _members(spec: Sweep, trials: Sequence[Trial]) -> list[Member]:
    """Return the trainings of all folds."""
    members = members_of(trials, spec.sweep)
    for member in members:
        member.keeps_predictions = True
    return members


def leave_each_out(
    spec: Sweep, *, runs: Path = RUNS, checkpoints: Path = CHECKPOINTS, output: Path | None = None
) -> CrossValidation:
    """Measure a spec with `solver: exact` on each row, by the model of all other rows. output: as in `cross_validate`.
    Raises SpecError, DataError, StorageError."""
    (trial,) = make_trials(spec, draw)
    solved, measured = leave_one_out(trial.spec)
    target_names = solved.rows.target_names
    metrics = metrics_of(measured, len(target_names))
    n_rows = sum(len(points.rows) for points in measured)
    with create(f"{trial.spec.name}_cv", runs, checkpoints) as run:
        session = new_session(choose_device(trial.spec), ENGINE, 0, None)
        run.start_session(session, data_fingerprint=solved.rows.fingerprint, spec=spec.to_yaml())
        path = output or run.folder / "predictions.csv"
        write_predictions(path, lines_of(OfModel(None, trial.spec.seed, measured)), target_names)
        session |= {"ended": now(), "outcome": "finished"}
        run.write_info(outcome="finished")
    mean = {"loss": solved.exact.loss, "val_loss": metrics.loss(), **metrics.summary()}
    fold = {"trial": 0, "seed": trial.spec.seed, "fold": "each row", "outcome": "finished", "n_val": n_rows, **mean}
    plain = {name: value for name, value in mean.items() if name in METRICS and value is not None}
    return CrossValidation(run.name, "finished", [fold], plain, {}, str(path))


def _train(
    run: Run,
    members: Sequence[Member],
    trials: Sequence[Trial],
    shared: SharedData,
    target_names: Sequence[str],
    exchange: Exchange,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> tuple[list[dict[str, Any]], Predictions]:
    """Train the members whose results are not known, in a group those of this process; return all results, fewer if it
    was stopped, and predictions."""
    path = run.checkpoints / STATES
    join_parts(run.folder, path)
    results = Results(run.folder / RESULTS)
    take_results(members, results.lines)
    take_states(members, path)
    known = [(line["fold"], line["seed"]) for line in results.lines]
    predictions = Predictions(run.folder, target_names, known)
    own = members[:: exchange.size]
    rounds = _rounds(own, trials, results, shared, predictions, path, exchange, progress, stop)
    try:
        with stopping_together(exchange):
            exchange.lead(lambda: (run.name, results.lines, shared.rows(members[0].spec).fingerprint))
            keep_states(rounds)
            rounds.train(SweepSpec())
            for lines, predicted in exchange.collect(([], [])):
                predictions.add_lines(predicted)
                results.add(lines)
        join_parts(run.folder, path)
    except StopRequested:
        pass
    finally:
        results.close()
    return results.lines, predictions


def _refuse_bad(lines: Iterable[Mapping[str, Any]]) -> None:
    """Raise the error of the first fold that has diverged or failed."""
    for line in lines:
        if line["outcome"] in BAD:
            error = DivergedError if line["outcome"] == "diverged" else DataError
            raise error(f"fold {line['fold']}, seed {line['seed']}: {line['reason']}")


def _rounds(
    members: Sequence[Member],
    trials: Sequence[Trial],
    results: Results,
    shared: SharedData,
    predictions: Predictions,
    path: Path,
    exchange: Exchange,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> Rounds:
    """Make the rounds of some members, which keep their predictions. path: of the file with their states."""

    def keep(ended: Sequence[Member]) -> None:
        predictions.add(OfModel(one.fold, one.spec.seed, one.predictions) for one in ended)
        for one in ended:
            one.predictions = []

    return Rounds(
        members, trials, results, shared,
        n_models=len(members), path=path, progress=progress, stop=stop, keep=keep, exchange=exchange,
    )  # fmt: skip


def _result(run: Run, outcome: str, folds: list[dict[str, Any]], path: Path | None) -> CrossValidation:
    mean, sd = {}, {}
    for name in METRICS:
        values: list[Any] = [fold[name] for fold in folds]
        if values and None not in values:
            mean[name] = float(np.mean(values))
            sd[name] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    sd = {name: value for name, value in sd.items() if math.isfinite(value)}
    return CrossValidation(run.name, outcome, folds, mean, sd, None if path is None else str(path))
