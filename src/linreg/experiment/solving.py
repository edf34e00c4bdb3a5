"""`solver: exact`: the optimum of least squares by passes over the data, as a run and a checkpoint like any other."""

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from linreg.checkpoint import Checkpoint, save
from linreg.data.dataset import refuse_shapes
from linreg.data.mapped import MappedPoints
from linreg.data.pipeline import with_mask
from linreg.data.preprocessing import (
    Feature,
    Preprocessed,
    Preprocessing,
    categorical_of,
    is_needed,
    learn,
    make_recode_fn,
    refuse_infinite,
    to_dict,
)
from linreg.data.sources import Block, Points, Samples
from linreg.data.statistics import Statistics
from linreg.errors import DataError, DivergedError, SpecError
from linreg.exact.closed_form import MOST_COLUMNS, Equations, Exact, LinearPart, linear_part
from linreg.exact.equation import equation
from linreg.experiment.building import build_network, choose_device
from linreg.experiment.data import Survey, open_points, survey
from linreg.experiment.result import Result, new_session
from linreg.runs.folders import create, environment
from linreg.runs.writer import EpochRecord, open_writer
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators
from linreg.system.files import replace_file

log = logging.getLogger("linreg")

ENGINE = "exact"


@dataclass(frozen=True)
class Solved:
    """An optimum, and the model that has it."""

    exact: Exact
    model: nn.Module
    network: nn.Module
    preprocessing: Preprocessing
    described: dict[str, Any]
    points: Points
    surveyed: Survey
    device: torch.device


def solve(spec: ExperimentSpec, *, runs: Path, checkpoints: Path) -> Result:
    """Solve a spec, in a new run. Raises what `train` raises; a model without a closed form is a SpecError."""
    begin = time.monotonic()
    solved = solve_exactly(spec)
    exact = solved.exact
    record = EpochRecord(0, exact.loss, exact.val_loss, 0.0)
    with create(spec.name, runs, checkpoints) as run:
        session = new_session(solved.device, ENGINE, 0, None)
        run.write_info(
            name=run.name, outcome="running", sessions=[session], data_fingerprint=solved.surveyed.fingerprint
        )
        replace_file(run.folder / "spec.yaml", spec.to_yaml())
        with open_writer(run.folder) as writer:
            writer.write_spec(spec.to_yaml())
            writer.write(record, solved.network)
        save(run.last, _checkpoint(spec, solved, record, {"name": run.name, "id": run.info["id"]}))
        run.publish()
        session |= {"ended": session["started"], "epochs": 1, "outcome": "finished"}
        run.write_info(outcome="finished")
        return Result(
            run=run.name,
            checkpoint=str(run.last),
            outcome="finished",
            epochs=1,
            loss=exact.loss,
            val_loss=exact.val_loss,
            best_epoch=0,
            best_loss=exact.loss,
            best_val_loss=exact.val_loss,
            device=str(solved.device),
            engine=ENGINE,
            seconds=round(time.monotonic() - begin, 3),
            exact_loss=exact.loss,
            exact_val_loss=exact.val_loss,
            fit=equation(exact.fit, solved.model.state_dict(), list(solved.points.target_names)),
        )


def solve_exactly(spec: ExperimentSpec) -> Solved:
    """Read the points in blocks: to count them, to learn the preprocessing if there is any, and to solve."""
    if spec.unused:
        log.info("solver: exact: %s: not used", ", ".join(spec.unused))
    device = choose_device(spec)
    points = open_points(spec)
    where = spec.where("data", "source")
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    surveyed = survey(points, spec)
    medians = partial(points.medians, surveyed.mask) if isinstance(points, MappedPoints) else None
    keeps = points.missing == "median" and medians is None
    statistics = Statistics(len(points.feature_names), len(points.target_names), medians=keeps)
    needed = is_needed(points, spec.data.standardize)
    features = [Feature(name) for name in points.feature_names]
    preprocessing = None
    if needed:
        for block, mask in with_mask(points, surveyed.mask):
            _learn_from(block, mask, points, statistics, where)
        preprocessing = learn(statistics, points, standardize=spec.data.standardize, where=where, medians=medians)
        features = preprocessing.features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        n_columns = sum(len(feature.columns) for feature in features)
        network = build_network(spec, n_columns, len(points.target_names), torch.device("cpu"))
    part = _solvable_part(spec, network, n_columns)
    equations = Equations(part, features, preprocessing, len(points.target_names))
    recode = make_recode_fn(features, points)
    for block, mask in with_mask(points, surveyed.mask):
        if preprocessing is None:
            _learn_from(block, mask, points, statistics, where)
        equations.add(recode(block), block.y, block.weight, mask)
    if preprocessing is None:  # what is learnt are the ranges of the features alone
        preprocessing = learn(statistics, points, standardize=False, where=where)
    if not equations.train.total_weight > 0 or (equations.val.n_rows and not equations.val.total_weight > 0):
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; give some of its points weight")
    try:
        exact = equations.solve(ridge=spec.ridge, is_result=True)
    except OverflowError as error:
        raise DataError(f"{where}: {error}") from None
    for told in exact.left_out:
        log.warning("%s", told)
    coefficients = exact.fit["coefficients"].T
    with torch.no_grad():
        part.layer.weight.copy_(coefficients[:, int(part.intercept) :])
        if part.intercept:
            part.layer.bias.copy_(coefficients[:, 0])
    if not all(torch.isfinite(parameter).all() for parameter in network.parameters()):
        raise DivergedError(
            f"{where}: the solution does not fit {spec.dtype}; set dtype: float64, or standardize: true"
        )
    model = Preprocessed(preprocessing, network) if needed else network
    return Solved(
        exact, model, network, preprocessing, to_dict(preprocessing.features, points), points, surveyed, device
    )


def _solvable_part(spec: ExperimentSpec, network: nn.Module, n_columns: int) -> LinearPart:
    """Take a network apart; one without a closed form is a SpecError."""
    part = linear_part(spec, network)
    if part is None:
        what = "has no closed form: it is not one linear layer after a basis without parameters"
        if n_columns > MOST_COLUMNS:
            what = f"has {n_columns} columns, and the closed form takes at most {MOST_COLUMNS}"
        raise SpecError([f"{spec.where('model')}: {spec.model.name} {what}; use solver: gradient"])
    return part


def _learn_from(block: Block, mask: np.ndarray[Any, Any], points: Points, statistics: Statistics, where: str) -> None:
    refuse_infinite(block, points, where)
    chosen = slice(None) if mask.all() else mask  # a slice copies nothing
    statistics.add(block.x[chosen], block.y[chosen], categorical_of(points))


def _checkpoint(spec: ExperimentSpec, solved: Solved, record: EpochRecord, run: dict[str, str]) -> Checkpoint:
    names, targets = list(solved.points.feature_names), list(solved.points.target_names)
    return Checkpoint(
        epoch=1,
        model_state_dict=dict(solved.model.state_dict()),
        optimizer_state_dict={},
        scheduler_state_dict=None,
        loss=[record.loss],
        val_loss=[record.val_loss],
        lr=[0.0],
        spec=spec.to_dict(),
        planned_epochs=1,
        preprocessing=solved.described,
        n_features=len(names),
        n_targets=len(targets),
        feature_names=names,
        target_names=targets,
        position=[],
        loader_state=torch.Generator().get_state(),
        **generators.states(torch.device("cpu")),
        best=None,
        fit=solved.exact.fit,
        resumed_at=[],
        outcome="finished",
        run=run,
        data_fingerprint=solved.surveyed.fingerprint,
        environment=environment(solved.device),
    )
