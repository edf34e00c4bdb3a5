"""`cross_validate`: trains a spec on each fold, and measures it on the rows of the fold."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linreg.errors import DataError, DivergedError
from linreg.experiment.data import open_parts
from linreg.experiment.network import choose_device
from linreg.experiment.result import CHECKPOINTS, RUNS
from linreg.experiment.session import StopRequested
from linreg.experiment.sweeps.members import Member, SharedData, members_of
from linreg.experiment.sweeps.rounds import Progress
from linreg.experiment.sweeps.sweeping import draw
from linreg.experiment.sweeps.training import train_members
from linreg.runs.folders import Run, create
from linreg.runs.sessions import new_session, now
from linreg.spec.sweeps import Sweep, make_trials
from linreg.system.files import replace_file

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
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> CrossValidation:
    """Cross-validate a spec whose sweep block has folds and no parameters.

    output: the file for the predictions; by default predictions.csv in the folder of the run. Raises SpecError,
    DataError, StorageError, and DivergedError if a fold diverges.
    """
    trials = make_trials(spec, draw)
    members = members_of(trials, spec.sweep)
    for member in members:
        member.keeps_predictions = True
    shared = SharedData()
    rows, _ = open_parts(members[0].spec, shared.rows(members[0].spec))  # before anything is written
    with create(f"{trials[0].spec.name}_cv", runs, checkpoints) as run:
        session = new_session(choose_device(trials[0].spec), "cv", 0, None)
        run.start_session(session, data_fingerprint=rows.fingerprint, spec=spec.to_yaml())
        stop()
        outcome = "failed"
        try:
            _train(members, shared, progress, stop)
            outcome = "finished"
        except StopRequested:
            outcome = "interrupted"
        finally:
            session |= {"ended": now(), "outcome": outcome}
            run.write_info(outcome=outcome)
        path = None
        if outcome == "finished":
            path = output or run.folder / "predictions.csv"
            replace_file(path, _predictions(members, rows.target_names))
        return _result(run, outcome, members, path)


def _train(
    members: Sequence[Member],
    shared: SharedData,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> None:
    n_done = 0

    def ended(member: Member) -> None:
        nonlocal n_done
        n_done += 1
        if not member.is_trained:
            error = DivergedError if member.outcome == "diverged" else DataError
            raise error(f"fold {member.fold}, seed {member.spec.seed}: {member.reason}")
        if progress:
            progress(n_done, len(members), "")

    def pause() -> None:
        if stop():
            raise StopRequested

    for _ in train_members(
        members, shared, until=None, ended=ended, pause=pause, save=lambda synchronize, n_epochs: None
    ):
        pause()


def _result(run: Run, outcome: str, members: Sequence[Member], path: Path | None) -> CrossValidation:
    folds = [
        {**member.line(), "n_val": sum(len(points.rows) for points in member.predictions)}
        for member in members
        if member.is_trained
    ]
    mean, sd = {}, {}
    for name in METRICS:
        values: list[Any] = [fold[name] for fold in folds]
        if values and None not in values:
            mean[name] = float(np.mean(values))
            sd[name] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    sd = {name: value for name, value in sd.items() if math.isfinite(value)}
    return CrossValidation(run.name, outcome, folds, mean, sd, None if path is None else str(path))


def _predictions(members: Sequence[Member], target_names: Sequence[str]) -> str:
    """Return the predictions of all members as CSV, in the order of the rows, which are counted from 1."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "fold", "seed", *target_names, *(f"predicted_{name}" for name in target_names)])
    lines: list[list[Any]] = []
    for member in members:
        for points in member.predictions:
            yhat = points.y.astype(np.float64) - points.error
            for row, y, predicted in zip(points.rows.tolist(), points.y.tolist(), yhat.tolist(), strict=True):
                lines.append([row + 1, member.fold, member.spec.seed, *y, *predicted])
    lines.sort(key=lambda line: line[:3])
    writer.writerows(lines)
    return buffer.getvalue()
