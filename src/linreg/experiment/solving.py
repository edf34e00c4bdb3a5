"""`solver: exact`: computes the least-squares optimum by passes over the data, and writes a run and a checkpoint."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from linreg.checkpoint import Checkpoint, save
from linreg.data.derived import UnfitRowError
from linreg.data.learning import Recipe, is_needed, learn, learn_from
from linreg.data.preprocessing import Feature, Preprocessed, Preprocessing, columns_of, rows_as_data_errors, to_dict
from linreg.data.rows import Rows, select, used_blocks
from linreg.data.split import TEST, TRAIN, VAL, Parts
from linreg.data.statistics import Statistics
from linreg.data.transform import Recode
from linreg.errors import DataError, DivergedError, SpecError
from linreg.exact.closed_form import MOST_COLUMNS, Equations, Exact, LinearPart, linear_part
from linreg.experiment.data import open_parts, recipe_of
from linreg.experiment.metrics import Metrics
from linreg.experiment.network import build_network, choose_device, errors_of
from linreg.experiment.result import Result, make_result
from linreg.runs.folders import Run, create
from linreg.runs.sessions import new_session
from linreg.runs.writer import EpochRecord, open_writer
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators

log = logging.getLogger("linreg")

ENGINE = "exact"


@dataclass(frozen=True)
class Solved:
    """An optimum, and the model with its coefficients."""

    exact: Exact
    model: nn.Module
    network: nn.Module
    described: dict[str, Any]
    features: list[Feature]
    rows: Rows
    parts: Parts
    device: torch.device


def solve(spec: ExperimentSpec, *, runs: Path, checkpoints: Path) -> Result:
    """Solve a spec, in a new run. Raises the errors of `train`, and SpecError for a model without a closed form."""
    begin = time.monotonic()
    solved = solve_exactly(spec)
    exact = solved.exact
    record = EpochRecord(0, exact.loss, exact.val_loss, 0.0)
    with create(spec.name, runs, checkpoints) as run:
        session = new_session(solved.device, ENGINE, 0, None)
        run.start_session(session, data_fingerprint=solved.rows.fingerprint, spec=spec.to_yaml())
        with open_writer(run.folder) as writer:
            writer.write_spec(spec.to_yaml())
            writer.write(record, solved.network)
        save(run.last, _checkpoint(spec, solved, record, run))
        run.publish()
        session |= {"ended": session["started"], "epochs": 1, "outcome": "finished"}
        run.write_info(outcome="finished")
        return make_result(
            run,
            "finished",
            [record],
            device=solved.device,
            engine=ENGINE,
            seconds=time.monotonic() - begin,
            exact=exact,
            model=solved.model,
            target_names=solved.rows.target_names,
        )


def solve_exactly(spec: ExperimentSpec, *, rows: Rows | None = None) -> Solved:
    """Solve a spec, in three passes over the rows: count them, learn the preprocessing if it is needed, add
    equations. rows: those of the spec, if they are open already."""
    if spec.unused:
        log.info("solver: exact: %s: not used", ", ".join(spec.unused))
    device, where, recipe = choose_device(spec), spec.where("data", "source"), recipe_of(spec)
    rows, parts = open_parts(spec, rows)
    preprocessing = learn_from(rows, parts, recipe, where=where) if is_needed(rows, recipe) else None
    features = [Feature(name) for name in rows.feature_names] if preprocessing is None else preprocessing.features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        columns = columns_of(features) if preprocessing is None else preprocessing.columns
        network = build_network(spec, len(columns), len(rows.target_names), torch.device("cpu"))
    part = _solvable_part(spec, network, len(columns))
    learnt = preprocessing is not None
    if part.intercept and not len(part.basis):
        preprocessing = _centred(preprocessing, features, rows, parts)
    equations = Equations(part, columns, preprocessing, len(rows.target_names))
    recode = Recode(features, rows)
    ranges = Statistics(len(rows.feature_names), len(rows.target_names))
    for block, positions in used_blocks(rows, parts):
        codes = parts.codes[positions]
        mask = codes == TRAIN
        if not learnt and mask.any():
            ranges.add_ranges(block.x[mask])
        x = recode(block)
        with rows_as_data_errors(preprocessing, x, block.y, block.where):
            equations.add(x, block.y, block.weight, codes)
    if not learnt:  # only the ranges
        features = learn(ranges, rows, Recipe(), where=where).features
    exact = _solution(spec, equations, where)
    if recipe.target is not None:
        names = [recipe.target.name(name) for name in rows.target_names]
        exact = replace(exact, fit={**exact.fit, "targets": names})
    part.set_coefficients(exact.fit["coefficients"].T)
    if not all(torch.isfinite(parameter).all() for parameter in network.parameters()):
        raise DivergedError(
            f"{where}: the solution does not fit {spec.dtype}; set dtype: float64, or standardize: true"
        )
    model = network if preprocessing is None else Preprocessed(preprocessing, network)
    if preprocessing is None or spec.dtype == "float32" or recipe.target is not None:
        exact = _measured(spec, exact, model, rows, parts, recode)
    return Solved(exact, model, network, to_dict(features, rows), features, rows, parts, device)


def _centred(preprocessing: Preprocessing | None, features: list[Feature], rows: Rows, parts: Parts) -> Preprocessing:
    """Return a preprocessing that also subtracts a typical value from each column of numbers that has no mean.

    The fit is the same, without cancellation between the intercept and large columns, such as seconds since 1970."""
    if preprocessing is None:
        preprocessing = Preprocessing(features, len(rows.target_names), fills=False)
    head = rows.head()
    used = parts.codes[: len(head.x)] != TEST
    head = select(head, used) if used.any() else head
    try:
        x, y = preprocessing(torch.from_numpy(head.x)), preprocessing.scaled(torch.from_numpy(head.y))
    except UnfitRowError:  # the pass over all rows reports it, with its place
        return preprocessing
    for values, mean, scale in (
        (x, preprocessing.mean, preprocessing.scale),
        (y, preprocessing.y_mean, preprocessing.y_scale),
    ):
        # the first row and a mean of differences: exact for equal numbers
        typical = values[0] + (values - values[0]).mean(dim=0)
        mean.copy_(torch.where((mean == 0) & (scale == 1), typical, mean))
    for position, column in enumerate(preprocessing.columns):
        if column.kind == "indicator":
            preprocessing.mean[position] = 0.0
    return preprocessing


def _measured(spec: ExperimentSpec, exact: Exact, model: nn.Module, rows: Rows, parts: Parts, recode: Recode) -> Exact:
    """Return the optimum with the losses of the stored model, which rounds. Warn if they differ noticeably."""
    metrics = [Metrics(len(rows.target_names)) for _ in range(2)]
    for block, positions in used_blocks(rows, parts):
        codes, y, error = parts.codes[positions], block.y, errors_of(model, recode(block), block.y, spec.dtype)
        for measured, chosen in zip(metrics, (codes == TRAIN, codes == VAL), strict=True):
            if chosen.any():
                measured.add(y[chosen], error[chosen], None if block.weight is None else block.weight[chosen])
    loss, val_loss = (measured.loss() if measured.n_samples else None for measured in metrics)
    assert loss is not None
    variance = exact.fit["residual_variance"]
    is_perfect = variance is not None and bool((variance == 0).all())
    same_units = spec.data.target_transform is None
    if same_units and abs(loss - exact.loss) > 1e-6 * exact.loss and not is_perfect:
        remedy = "dtype: float64, or standardize: true" if spec.dtype == "float32" else "standardize: true"
        log.warning(
            "%s: the stored model has the loss %.6g instead of %.6g, as its precision rounds; set %s",
            spec.where("data", "source"), loss, exact.loss, remedy,
        )  # fmt: skip
    return replace(exact, loss=loss, val_loss=val_loss)


def _solvable_part(spec: ExperimentSpec, network: nn.Module, n_columns: int) -> LinearPart:
    """Return the linear part of a network. Raises SpecError if it has no closed form."""
    part = linear_part(network) if spec.loss.name == "mse" else None
    if part is None:
        reason = "has no closed form: it is not one linear layer after a basis without parameters"
        if n_columns > MOST_COLUMNS:
            reason = f"has {n_columns} columns, and the closed form takes at most {MOST_COLUMNS}"
        raise SpecError([f"{spec.where('model')}: {spec.model.name} {reason}; use solver: gradient"])
    return part


def _solution(spec: ExperimentSpec, equations: Equations, where: str) -> Exact:
    train, val = equations.train, equations.val
    if not train.total_weight > 0 or (val.n_rows and not val.total_weight > 0):
        raise DataError(f"{where}: sample_weight: every weight of a part is 0; use some weights > 0")
    try:
        exact = equations.solve(ridge=spec.ridge, is_result=True)
    except OverflowError as error:
        raise DataError(f"{where}: {error}") from None
    for warning in exact.left_out:
        log.warning("%s", warning)
    return exact


def _checkpoint(spec: ExperimentSpec, solved: Solved, record: EpochRecord, run: Run) -> Checkpoint:
    names, targets = list(solved.rows.feature_names), list(solved.rows.target_names)
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
        run={"name": run.name, "id": run.info["id"]},
        data_fingerprint=solved.rows.fingerprint,
        environment=run.session["environment"],
    )
