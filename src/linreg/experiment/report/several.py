"""The report of several runs: their results, and only the settings that differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from linreg.errors import brief
from linreg.experiment.report import charts
from linreg.experiment.report.page import Block, Cell, Charts, Code, Page, Section, Table, is_number, number
from linreg.runs.comparing import Compared, Comparison, compare

MOST_AXES = 8
FEW_RUNS = 3  # stand beside each other


def report_runs(names: Sequence[str], *, runs: Path, checkpoints: Path) -> Page:
    """Describe several runs, or cross-validations, side by side. Raises the errors of `compare`."""
    compared = compare(names, runs, checkpoints)
    sections = [Section("Results", list(_results(compared)))]
    if compared.settings and len(compared.runs) <= FEW_RUNS:
        sections.append(Section("Settings that differ", [_side_by_side(compared)]))
    if axes := list(_parallel(compared)):
        sections.append(Section("Settings and results", axes))
    sections.append(Section("Commands", [Code([f"linreg runs compare {' '.join(dict.fromkeys(names))}"])]))
    title = f"{len(compared.runs)} runs"
    subtitle = ", ".join(one.run for one in compared.runs)
    notes = [f"{note[0].upper()}{note[1:]}." for note in compared.notes]
    return Page(title, subtitle, list(_verdict(compared)), [], sections, notes)


def _score(one: Compared, metric: str) -> float | None:
    if metric == "rmse":
        return one.rmse
    return one.loss if one.val_loss is None else one.val_loss


def _verdict(compared: Comparison) -> Iterator[str]:
    scored = [one for one in compared.runs if _score(one, compared.metric) is not None]
    if not scored:
        yield "None of the runs has a result."
        return
    first = scored[0]
    metric = "loss" if compared.metric == "val_loss" and first.val_loss is None else compared.metric
    score = _score(first, compared.metric)
    assert score is not None
    yield f"{first.run} has the lowest {metric}, {number(score)}."
    if len(scored) > 1 and scored[1].interval is not None and scored[1].difference is not None:
        low, high = scored[1].interval
        sure = "so the folds do not tell them apart" if low <= 0 <= high else "so the folds tell them apart"
        yield (
            f"{scored[1].run} is {number(scored[1].difference)} above it in the same folds, 95 % interval "
            f"{number(low)} to {number(high)}: {'0 is inside' if low <= 0 <= high else '0 is outside'}, {sure}."
        )


def _results(compared: Comparison) -> Iterator[Block]:
    has_folds = any(one.n_folds for one in compared.runs)
    header = ["run", "outcome", "epochs", "loss", "val_loss"]
    header += ["rmse", "folds", "sd", "difference", "95 % interval"] if has_folds else []
    settings = compared.settings if len(compared.runs) > FEW_RUNS else []
    rows: list[list[Cell]] = []
    for one in compared.runs:
        cells: list[Cell] = [one.run, one.outcome.replace("_", " "), one.epochs, one.loss, one.val_loss]
        if has_folds:
            interval = None if one.interval is None else " to ".join(number(end) for end in one.interval)
            cells += [one.rmse, one.n_folds, one.sd, one.difference, interval]
        rows.append([*cells, *(brief(one.settings[key]) for key in settings)])
    yield Table([*header, *settings], rows, is_sortable=True)
    if not compared.settings:
        yield "The specs of these runs do not differ."


def _side_by_side(compared: Comparison) -> Table:
    """Return the settings as rows, because two specs often differ in many."""
    rows = [[key, *(brief(one.settings[key]) for one in compared.runs)] for key in compared.settings]
    return Table(["", *(one.run for one in compared.runs)], rows)


def _place(value: object) -> object:
    """Return a setting as parallel coordinates take it: a number, or a text."""
    return value if value is None or is_number(value) else brief(value)


def _parallel(compared: Comparison) -> Iterator[Block]:
    """Yield parallel coordinates where there are enough runs for a picture."""
    scores = [_score(one, compared.metric) for one in compared.runs]
    if len(compared.runs) < 3 or not compared.settings or all(score is None for score in scores):
        return
    keys = compared.settings[:MOST_AXES]
    axes = [charts.coordinate(key, [_place(one.settings[key]) for one in compared.runs]) for key in keys]
    axes.append(charts.coordinate(compared.metric, scores, missing="–"))
    order = range(len(compared.runs) - 1, -1, -1)
    yield Charts([charts.parallel(axes, order, frozenset({0}), title="Settings of each run, with its result")])
    yield "A line is a run; the best is blue." + "".join(_captions(compared, keys, scores))


def _captions(compared: Comparison, keys: Sequence[str], scores: Sequence[float | None]) -> Iterator[str]:
    """Yield what else the picture shows, or hides."""
    if any(one.settings[key] is None for one in compared.runs for key in keys):
        yield f" “{charts.NOT_SET}”: the spec of a run leaves out that setting."
    if any(score is None for score in scores):
        yield " “–”: a run without a result."
    if hidden := len(compared.settings) - len(keys):
        yield f" {hidden} more {'setting is' if hidden == 1 else 'settings are'} in the table."
