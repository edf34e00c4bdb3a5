"""The report of one trained model: what it is worth, what it learnt, from which data, and how to repeat it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linreg.experiment.report import charts
from linreg.experiment.report.measured import Measured, OfPart
from linreg.experiment.report.page import (
    MOST_TARGETS,
    Block,
    Cell,
    Charts,
    Page,
    Section,
    Table,
    Tile,
    number,
    p_value,
)
from linreg.experiment.report.provenance import commands_blocks, data_blocks, environment_blocks, spec_blocks
from linreg.experiment.report.residuals import diagnostics_blocks, importance_blocks
from linreg.experiment.report.subject import Subject, open_subject
from linreg.runs.folders import FINISHED

MOST_COEFFICIENTS = 60
MOST_VALUES = 6  # features of a row
NOT_MEASURED = "so parts, predictions and rows are left out"


def report_model(path: Path, *, runs: Path, with_rows: bool) -> Page:
    """Describe the model of a checkpoint. runs: the folder that may have its run; with_rows: whether to list rows.

    Raises CheckpointError."""
    subject = open_subject(path, runs)
    saved, sections = subject.model.saved, list[Section]()
    for title, blocks in (
        ("Metrics", _metrics(subject)),
        ("Coefficients", _coefficients(subject)),
        ("Losses", _losses(subject)),
        ("Predictions", _predictions(subject)),
        ("Diagnostics", diagnostics_blocks(subject.judged, with_rows=with_rows)),
        ("Importance", importance_blocks(subject.judged)),
        ("Rows with the largest errors", _worst(subject) if with_rows else ()),
        ("Data", data_blocks(subject)),
        ("Spec", spec_blocks(subject)),
        ("Environment", environment_blocks(subject)),
        ("Commands", commands_blocks(subject)),
    ):
        if found := list(blocks):
            sections.append(Section(title, found))
    spec = subject.model.spec
    subtitle = f"{spec.model.name} model of {_listed(saved.target_names)}, checkpoint {path}"
    return Page(saved.run["name"], subtitle, list(_verdict(subject)), list(_tiles(subject)), sections, _notes(subject))


def _verdict(subject: Subject) -> Iterator[str]:
    """Yield a sentence for each target: the error, against that of the mean and of the optimum."""
    if subject.measured is None:
        return
    part = subject.measured.parts[subject.measured.main]
    names = subject.model.saved.target_names
    for target, name in enumerate(names[:MOST_TARGETS]):
        yield _sentence(name, _points(subject.measured), part, target)
    if len(names) > MOST_TARGETS:
        yield f"{len(names) - MOST_TARGETS} more targets are in the table of metrics."


def _points(measured: Measured) -> str:
    """Describe the points that the error is measured on."""
    part = measured.parts[measured.main]
    text = f"{part.n_points:,} {measured.main} {'point' if part.n_points == 1 else 'points'}"
    if measured.weight is None:
        return text
    few = f" ({part.n_weighted:,} of them with a weight above 0)" if part.n_weighted < part.n_points else ""
    return f"{text}, weighted by {measured.weight}{few},"


def _sentence(name: str, points: str, part: OfPart, target: int) -> str:
    rmse, of_mean = _value(part.model[target], "rmse"), part.mean_rmse[target]
    text = (
        f"On {points} the predictions of {name} are off by {number(rmse, 3)} "
        f"(root mean squared error, in the units of {name})"
    )
    if of_mean > 0:
        share = rmse / of_mean
        text += f"; predicting the mean of the training part would be off by {number(of_mean, 3)}"
        text += f", so the model leaves {share:.0%} of that error" if share < 1 else ", so the model is no better"
    if part.optimum is not None:
        best = _value(part.optimum[target], "rmse")
        text += f". The exact optimum of the training part is off by {number(best, 3)}"
        if best > 0:
            text += f": the trained model is {abs(rmse / best - 1):.1%} {'above' if rmse >= best else 'below'} it"
    return text + "."


def _value(metrics: Mapping[str, float | None], name: str) -> float:
    value = metrics[name]
    assert value is not None  # an error has a value wherever there are points
    return value


def _tiles(subject: Subject) -> Iterator[Tile]:
    saved, measured = subject.model.saved, subject.measured
    if measured is not None and len(saved.target_names) == 1:
        part = measured.parts[measured.main]
        yield Tile("RMSE", number(_value(part.model[0], "rmse")), f"{measured.main} part")
        r2 = part.model[0]["r2"]
        yield Tile("R²", "–" if r2 is None else f"{r2:.4f}", f"{measured.main} part")
    if subject.model.spec.solver == "exact":
        yield Tile("Solver", "exact", "the optimum itself")
    else:
        of_all = ", the best epoch" if saved.path.name == "best.pth" else ""
        yield Tile("Epochs", f"{saved.epoch:,}", f"{subject.outcome.replace('_', ' ')}{of_all}")
    yield Tile("Parameters", f"{subject.content['n_parameters']:,}", _count(len(saved.feature_names), "feature"))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _notes(subject: Subject) -> list[str]:
    """Return what limits the numbers of the report."""
    saved, notes = subject.model.saved, list[str]()
    main = None if subject.measured is None else subject.measured.main
    if subject.problem:
        notes.append(f"The data was not measured, {NOT_MEASURED}: {subject.problem}.")
    if main == "training":
        notes.append("There is no validation or test part: the errors are those of the rows that the model learnt.")
    elif main == "validation" and isinstance(winner := subject.info.get("winner_of"), Mapping):
        notes.append(
            f"This run is a winner of the sweep {winner.get('sweep')}: its validation error is the best of many "
            "trials, so it is optimistic. A test part would measure it once."
        )
    elif main == "validation" and subject.model.spec.early_stopping is not None:
        notes.append("The validation part chose the epoch, so its error is a little optimistic.")
    notes += subject.judged.problems
    if subject.outcome not in FINISHED:
        notes.append(f"The run is {subject.outcome}: this is its state after {saved.epoch:,} epochs.")
    return notes


def _metrics(subject: Subject) -> Iterator[Block]:
    measured = subject.measured
    if measured is None:
        return
    targets = subject.model.saved.target_names
    has_optimum = any(part.optimum is not None for part in measured.parts.values())
    has_r2_uncentred = "r2_uncentred" in measured.parts["training"].model[0]
    names = ["rmse", "mae", "r2", *(["r2_uncentred"] if has_r2_uncentred else [])]
    header = ["target", "part", "points", "RMSE", "MAE", "R²", *(["R² uncentred"] if has_r2_uncentred else [])]
    header += [*(["RMSE of the optimum"] if has_optimum else []), "RMSE of the mean"]
    rows: list[list[Cell]] = []
    for target, target_name in enumerate(targets):
        for name, part in measured.parts.items():
            own: list[Cell] = [part.model[target][metric] for metric in names]
            best: list[Cell] = [part.optimum[target]["rmse"]] if part.optimum is not None else []
            rows.append([target_name, name, part.n_points, *own, *best, part.mean_rmse[target]])
    yield Table(header, rows)
    yield "RMSE and MAE are in the units of the target. The last column is the error of predicting the training mean."
    if measured.weight is not None:
        yield _weighted(measured)


def _weighted(measured: Measured) -> str:
    """Say by what the metrics are weighted, and how many points count."""
    text, parts = f"All of these are weighted by {measured.weight}", measured.parts
    if any(part.n_weighted < part.n_points for part in parts.values()):
        few = (f"{part.n_weighted:,} of {part.n_points:,} {name}" for name, part in parts.items())
        text += f"; with a weight above 0: {', '.join(few)} points"
    return f"{text}."


def _coefficients(subject: Subject) -> Iterator[Block]:
    content = subject.content
    if "coefficients" not in content:
        return
    rows = content["coefficients"]
    has_target = len(subject.model.saved.target_names) > 1
    known = [row for row in rows if row["low"] is not None]
    level = f"{content['level']:.0%} interval"
    header = [*(["target"] if has_target else []), "term", "estimate"]
    header += ["std. error", "t", "p", "low", "high", level] if known else []
    shown = sorted(rows, key=_size, reverse=True)[:MOST_COEFFICIENTS]
    kept = [row for row in rows if any(row is one for one in shown)]
    yield Table(header, [_coefficient(row, has_target=has_target, with_errors=bool(known)) for row in kept])
    if len(rows) > len(kept):
        yield f"{len(rows) - len(kept)} more terms, with smaller t: linreg inspect lists them."
    if known:
        yield f"In the last column each {level} is on a scale of its own; the dashed line is 0."
    for note in content["notes"]:
        yield f"Note: {note}."


def _size(row: Mapping[str, Any]) -> float:
    return float("inf") if row["name"] == "intercept" else abs(row["t"] if row["t"] is not None else row["estimate"])


def _coefficient(row: Mapping[str, Any], *, has_target: bool, with_errors: bool) -> list[Cell]:
    cells: list[Cell] = [row.get("target")] if has_target else []
    cells += [row["name"], row["estimate"]]
    if not with_errors:
        return cells
    if row["low"] is None:
        return [*cells, None, None, None, None, None, None]
    text = f"{number(row['estimate'])}, from {number(row['low'])} to {number(row['high'])}"
    drawn = charts.whisker(row["low"], row["estimate"], row["high"], text)
    return [*cells, row["std_error"], row["t"], p_value(row["p"]), row["low"], row["high"], drawn]


def _losses(subject: Subject) -> Iterator[Block]:
    saved = subject.model.saved
    if subject.model.spec.solver == "exact" or not saved.loss:
        return
    named = [("training", "first", np.array(saved.loss))]
    if any(loss is not None for loss in saved.val_loss):
        named.append(("validation", "second", np.array([np.nan if loss is None else loss for loss in saved.val_loss])))
    title = f"Loss of each of {len(saved.loss)} epochs"
    yield Charts(
        [charts.curves(named, x_label="epoch", y_label="loss", title=title, rules=saved.resumed_at)]
        + ([_learning_rate(saved.lr)] if len(set(saved.lr)) > 1 else [])
    )
    if saved.best is not None and len(saved.loss) > 1:
        of = "validation loss" if saved.best["val_loss"] is not None else "training loss"
        lowest = saved.best["val_loss"] if saved.best["val_loss"] is not None else saved.best["loss"]
        yield f"The lowest {of} is {number(lowest)}, in epoch {saved.best['epoch']} (counted from 0)."


def _learning_rate(rates: Sequence[float]) -> charts.Chart:
    named = [("", "first", np.array(rates))]
    return charts.curves(named, x_label="epoch", y_label="learning rate", title="Learning rate of each epoch")


def _predictions(subject: Subject) -> Iterator[Block]:
    measured = subject.measured
    if measured is None:
        return
    drawn, n_points = [], measured.parts[measured.main].n_points
    for target, name in enumerate(subject.model.saved.target_names[:MOST_TARGETS]):
        y, yhat = measured.y[:, target], measured.yhat[:, target]
        drawn.append(
            charts.scatter(
                y, yhat, x_label=f"actual {name}", y_label=f"predicted {name}", diagonal="predicted = actual",
                title=f"Predicted against actual {name}",
            )
        )  # fmt: skip
        drawn.append(
            charts.scatter(
                yhat, y - yhat, x_label=f"predicted {name}", y_label="actual − predicted",
                title=f"Residuals against predicted {name}",
            )
        )  # fmt: skip
    yield Charts(drawn)
    shown = f"{len(measured.y):,} of {n_points:,} {measured.main} points" if n_points > len(measured.y) else ""
    yield f"The charts show {shown or f'all {n_points:,} {measured.main} points'}."


def _worst(subject: Subject) -> Iterator[Block]:
    measured = subject.measured
    if measured is None:
        return
    has_target = len(subject.model.saved.target_names) > 1
    names = subject.model.saved.feature_names[:MOST_VALUES]
    header = [*(["target"] if has_target else []), "row", "actual", "predicted", "error", *names]
    rows: list[list[Cell]] = []
    for one in measured.worst:
        target: list[Cell] = [one.target] if has_target else []
        where = one.where.rpartition("/")[2]
        rows.append([*target, where, one.y, one.yhat, one.y - one.yhat, *(one.values[name] for name in names)])
    yield Table(header, rows, is_sortable=True)
    yield f"Of the {measured.main} part. --no-rows leaves this table out of a report for others."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_TARGETS])
    return shown if len(names) <= MOST_TARGETS else f"{shown} and {len(names) - MOST_TARGETS} more"
