"""`solver: exact`: computes the least-squares optimum by passes over the data. `exact_run` writes the run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from linreg.data.derived import UnfitRowError
from linreg.data.learning import Recipe, is_needed, learn, learn_from
from linreg.data.preprocessing import Feature, Preprocessed, Preprocessing, columns_of, to_dict
from linreg.data.rows import Rows, select, used_blocks
from linreg.data.split import CALIBRATION, TEST, TRAIN, VAL, Parts
from linreg.data.statistics import merged_ranges
from linreg.data.transform import Recode
from linreg.errors import DataError, DivergedError, SpecError
from linreg.exact.closed_form import MOST_COLUMNS, Equations, Exact, LinearPart, linear_part
from linreg.exact.least_squares import Triangle
from linreg.experiment.data import open_parts, recipe_of
from linreg.experiment.gathering import Gathered, gather
from linreg.experiment.group import open_exchange
from linreg.experiment.metrics import Metrics
from linreg.experiment.network import build_network, choose_device, errors_of
from linreg.experiment.pieces import Pieces, penalty_of, pieces_of
from linreg.spec.schema import ExperimentSpec
from linreg.training.shards import Exchange

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


def note_unused(spec: ExperimentSpec) -> None:
    """Log the keys of a spec that an exact solution does not use."""
    if spec.unused:
        log.info("solver: exact: %s: not used", ", ".join(spec.unused))


def follow_solution(spec: ExperimentSpec) -> None:
    """Solve a spec with the other processes of a group, and write nothing. Raises the errors of `solve_exactly`."""
    exchange = open_exchange(spec)
    solve_exactly(spec, exchange=exchange)
    exchange.wait_for_first()


def solve_exactly(
    spec: ExperimentSpec,
    *,
    exchange: Exchange | None = None,
    rows: Rows | None = None,
    parts: Parts | None = None,
    before: dict[str, Gathered] | None = None,
) -> Solved:
    """Solve a spec, in three passes over the rows: count them, learn the preprocessing if it is needed, add
    equations.

    exchange: with the other processes of a group, which solve the same and get the same; rows, parts: those of the
    spec, if they are open already, or other parts; before: what earlier calls have gathered, where the folds of one
    division take their pieces from. Raises SpecError, DataError, GroupError."""
    device, where, recipe = choose_device(spec), spec.where("data", "source"), recipe_of(spec)
    if rows is None or parts is None:
        rows, parts = open_parts(spec, rows, exchange)
    learnt = is_needed(rows, recipe)
    preprocessing = learn_from(rows, parts, recipe, where=where) if learnt else None
    features = [Feature(name) for name in rows.feature_names] if preprocessing is None else preprocessing.features

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        columns = columns_of(features) if preprocessing is None else preprocessing.columns
        network = build_network(spec, len(columns), len(rows.target_names), torch.device("cpu"))
    part = _solvable_part(spec, network, len(columns))
    if part.intercept and not len(part.basis):
        preprocessing = _centred(preprocessing, features, rows, parts)
    pieces = pieces_of(spec, rows, parts)
    n_factors = pieces.n_pieces * (1 if rows.cut is None else len(rows.cut.shards.own))
    equations = Equations(part, columns, preprocessing, len(rows.target_names), n_pieces=n_factors)
    recode = Recode(features, rows)
    before = None if learnt else before
    gathered = gather(equations, rows, pieces, recode, with_ranges=not learnt, before=before, where=where)
    if not learnt:  # only the ranges
        ranges = merged_ranges([gathered.ranges[number] for number in pieces.train if number in gathered.ranges])
        features = learn(ranges, rows, Recipe(), where=where).features
    exact = _solution(spec, equations, pieces, gathered.triangles, where)
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
    head = _typical(preprocessing, rows, parts)
    if rows.cut is not None:
        head = rows.cut.shards.share(head)[0]
    if head is None:  # the pass over all rows reports it, with its place
        return preprocessing
    for typical, mean, scale in (
        (head[0], preprocessing.mean, preprocessing.scale),
        (head[1], preprocessing.y_mean, preprocessing.y_scale),
    ):
        mean.copy_(torch.where((mean == 0) & (scale == 1), typical, mean))
    for position, column in enumerate(preprocessing.columns):
        if column.kind == "indicator":
            preprocessing.mean[position] = 0.0
    return preprocessing


def _typical(preprocessing: Preprocessing, rows: Rows, parts: Parts) -> list[torch.Tensor] | None:
    """Return means over the first rows, of each column and target; None for a row that does not fit. With shards, they
    are those of the first shard."""
    head = rows.head()
    if rows.cut is not None:
        head = select(head, rows.cut.numbers[: len(head.x)] == rows.cut.shards.own.start)
    used = ~np.isin(parts.codes[: len(head.x)], (TEST, CALIBRATION))  # those of all folds
    head = select(head, used) if used.any() else head
    try:
        x, y = preprocessing(torch.from_numpy(head.x)), preprocessing.scaled(torch.from_numpy(head.y))
    except UnfitRowError:
        return None
    # the first row and a mean of differences: exact for equal numbers
    return [values[0] + (values - values[0]).mean(dim=0) for values in (x, y)]


def _measured(spec: ExperimentSpec, exact: Exact, model: nn.Module, rows: Rows, parts: Parts, recode: Recode) -> Exact:
    """Return the optimum with the losses of the stored model, which rounds. Warn if they differ noticeably."""
    loss, val_loss = _losses(model, rows, parts, recode, spec.dtype)
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


def _losses(
    model: nn.Module, rows: Rows, parts: Parts, recode: Recode, dtype: str
) -> tuple[float | None, float | None]:
    """Return the mean squared errors of a model on the training and the validation part; None for one without rows."""
    own = [0] if rows.cut is None else list(rows.cut.shards.own)
    metrics = {(shard, part): Metrics(len(rows.target_names)) for shard in own for part in (TRAIN, VAL)}
    for block, positions in used_blocks(rows, parts):
        codes, y, error = parts.codes[positions], block.y, errors_of(model, recode(block), block.y, dtype)
        shards = np.zeros(len(codes), dtype=int) if rows.cut is None else rows.cut.numbers[positions]
        for (shard, part), measured in metrics.items():
            chosen = (codes == part) & (shards == shard)
            if chosen.any():
                measured.add(y[chosen], error[chosen], None if block.weight is None else block.weight[chosen])
    every = [list(metrics.values())] if rows.cut is None else rows.cut.shards.share(list(metrics.values()))
    losses = []
    for part in (TRAIN, VAL):
        squared, weight = zip(
            *((one.squared, one.weight) for of_rank in every for one in of_rank[part::2]), strict=True
        )
        losses.append(float(np.mean(sum(squared))) / sum(weight) if sum(weight) else None)
    return losses[0], losses[1]


def _solvable_part(spec: ExperimentSpec, network: nn.Module, n_columns: int) -> LinearPart:
    """Return the linear part of a network. Raises SpecError if it has no closed form."""
    part = linear_part(network) if spec.loss.name == "mse" else None
    if part is None:
        reason = "has no closed form: it is not one linear layer after a basis without parameters"
        if n_columns > MOST_COLUMNS:
            reason = f"has {n_columns} columns, and the closed form takes at most {MOST_COLUMNS}"
        raise SpecError([f"{spec.where('model')}: {spec.model.name} {reason}; use solver: gradient"])
    return part


def _solution(
    spec: ExperimentSpec, equations: Equations, pieces: Pieces, triangles: Sequence[Triangle], where: str
) -> Exact:
    try:
        (train, val), folds = pieces.parts_of(triangles), pieces.folds_of(triangles)
    except OverflowError as error:
        raise DataError(f"{where}: {error}") from None
    if not all(one is None or one.total_weight > 0 for pair in [(train, val), *folds] for one in pair):
        raise DataError(f"{where}: sample_weight: every weight of a part or fold is 0; use some weights > 0")
    penalty = penalty_of(spec)
    if penalty is None:
        exact = equations.solve(train, val, ridge=spec.ridge, is_result=True)
    else:
        exact = equations.solve_penalised(train, val, folds, penalty)
    for warning in exact.left_out:
        log.warning("%s", warning)
    return exact
