"""Calibrates the intervals of a trained model: what a checkpoint keeps as `intervals`."""

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from linreg.data.rows import Rows
from linreg.errors import DataError
from linreg.experiment.building import Experiment
from linreg.experiment.data import open_parts
from linreg.experiment.intervals.folds import solve_folds, train_folds
from linreg.experiment.intervals.leverages import leave_out
from linreg.experiment.intervals.scores import scores_of
from linreg.experiment.solving import Solved
from linreg.experiment.sweeps.members import SharedData
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class Calibration:
    """The `intervals` of the checkpoints of a run: of its last epoch and of its best one."""

    last: dict[str, Any]
    best: dict[str, Any]


def calibrate(
    experiment: Experiment, best_state: Mapping[str, torch.Tensor] | None, pause: Callable[[], None]
) -> Calibration:
    """Calibrate the intervals of a trained experiment, in further passes over its data. The global generators stay.

    best_state: the state of the model at the best epoch, or None. pause: called between steps of models that are
    trained for cv_plus; it may raise. Raises DataError, and DivergedError if one of these models diverges."""
    spec = experiment.spec
    assert spec.intervals is not None
    if spec.intervals.method == "cv_plus":
        shared, before = SharedData(), generators.states(experiment.device)
        _refuse_changed(spec, shared.rows(spec), experiment.data.fingerprint)
        log.info("intervals: training %d models, each without a fold", spec.intervals.n_folds)
        try:
            kept = {"method": "cv_plus", "folds": train_folds(spec, shared, pause)}
        finally:
            generators.set_states(before, experiment.device)
        return Calibration(kept, kept)
    rows, parts = open_parts(spec)  # with shards also those of other processes
    _refuse_changed(spec, rows, experiment.data.fingerprint)
    last = scores_of(experiment.model, spec, rows, experiment.data.features, parts)
    best = last
    if best_state is not None:
        model = copy.deepcopy(experiment.model)
        model.load_state_dict(best_state)
        best = scores_of(model, spec, rows, experiment.data.features, parts)
    return Calibration({"method": "split", "scores": last}, {"method": "split", "scores": best})


def calibrate_solved(spec: ExperimentSpec, solved: Solved) -> dict[str, Any] | None:
    """Calibrate the intervals of an exact solution; None if its spec has none. The first process of a group reads all
    rows for it. Raises SpecError, DataError."""
    method = None if spec.intervals is None else spec.intervals.method
    cut = solved.rows.cut
    if method is not None and cut is not None and not cut.shards.are_own:
        rows, parts = open_parts(spec)
        _refuse_changed(spec, rows, solved.rows.fingerprint)
        solved = replace(solved, rows=rows, parts=parts)
    match method:
        case "split":
            scores = scores_of(solved.model, spec, solved.rows, solved.features, solved.parts)
            return {"method": method, "scores": scores}
        case "cv_plus":
            return {"method": method, "folds": solve_folds(spec, solved.rows, solved.parts)}
        case "jackknife_plus":
            return {"method": method, **leave_out(spec, solved)}
    return None


def _refuse_changed(spec: ExperimentSpec, rows: Rows, fingerprint: str) -> None:
    if rows.fingerprint != fingerprint:
        where = spec.where("data", "source")
        raise DataError(f"{where}: has changed during training, so its rows cannot calibrate; train again")
