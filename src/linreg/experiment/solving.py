"""`solver: exact`: the optimum of least squares by passes over the data, as a run and a checkpoint like any other."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from linreg.checkpoint import Checkpoint, save
from linreg.datasets import Block, Points, Samples
from linreg.equation import equation
from linreg.errors import DataError, DivergedError, SpecError
from linreg.experiment.building import build_network, choose_device
from linreg.experiment.data import Survey, categorical_of, open_points, survey, with_mask
from linreg.experiment.exact import MOST_COLUMNS, Equations, Exact, linear_part
from linreg.experiment.result import Result, new_session
from linreg.loaders import refuse_shapes
from linreg.preprocessing import (
    Preprocessed,
    Preprocessing,
    Statistics,
    is_needed,
    learn,
    make_recode_fn,
    refuse_infinite,
    to_dict,
)
from linreg.runs import create, environment
from linreg.spec import ExperimentSpec
from linreg.storage import replace_file
from linreg.writer import EpochRecord, open_writer

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
    """Read the points in blocks, three times: to count them, to learn the preprocessing, to solve."""
    if spec.unused:
        log.info("solver: exact: %s: not used", ", ".join(spec.unused))
    device = choose_device(spec)
    points = open_points(spec)
    where = spec.where("data", "source")
    if isinstance(points, Samples):
        refuse_shapes(points, where=where)
    surveyed = survey(points, spec)
    statistics = Statistics(len(points.feature_names), len(points.target_names), medians=points.missing == "median")
    for block, mask in with_mask(points, surveyed.mask):
        refuse_infinite(block, points, where)
        statistics.add(block.x[mask], block.y[mask], categorical_of(points))
    preprocessing = learn(statistics, points, standardize=spec.data.standardize, where=where)
    needed = is_needed(points, spec.data.standardize)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        n_columns = len(preprocessing.column_names)
        network = build_network(spec, n_columns, len(points.target_names), torch.device("cpu"))
    part = linear_part(spec, network)
    if part is None:
        what = "has no closed form: it is not one linear layer after a basis without parameters"
        if n_columns > MOST_COLUMNS:
            what = f"has {n_columns} columns, and the closed form takes at most {MOST_COLUMNS}"
        raise SpecError([f"{spec.where('model')}: {spec.model.name} {what}; use solver: gradient"])
    equations = Equations(part, preprocessing.features, preprocessing if needed else None, len(points.target_names))
    for x, block, mask in _recoded(points, surveyed, preprocessing):
        equations.add(x, block.y, block.weight, mask)
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


def _recoded(
    points: Points, surveyed: Survey, preprocessing: Preprocessing
) -> Iterator[tuple[np.ndarray[Any, Any], Block, np.ndarray[Any, Any]]]:
    recode = make_recode_fn(preprocessing.features, points)
    for block, mask in with_mask(points, surveyed.mask):
        yield recode(block), block, mask


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
        rng_state=torch.get_rng_state(),
        cuda_rng_state=None,
        best=None,
        fit=solved.exact.fit,
        resumed_at=[],
        outcome="finished",
        run=run,
        data_fingerprint=solved.surveyed.fingerprint,
        environment=environment(solved.device),
    )
