"""The parts of a model's report that judge it: diagnostics of its residuals, and the importance of its columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from linreg.errors import DataError, UsageError, shorten
from linreg.exact.diagnostics import ResidualRows
from linreg.experiment.diagnosing import TargetDiagnostics, diagnose
from linreg.experiment.importance import Importance, permutation_importance
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.report import charts
from linreg.experiment.report.page import MOST_CHARACTERS, MOST_TARGETS, Block, Cell, Charts, Table, number, p_value
from linreg.experiment.selection import select

MOST_DOTS = 500  # of a chart
MOST_BARS, MOST_COLUMNS = 15, 40  # of the importance: in a chart, and in a table
REPEATS = 5


@dataclass(frozen=True)
class Judged:
    """Diagnostics of each target and the importance of the columns; empty and None where they cannot be had, with the
    reasons in problems."""

    diagnostics: Sequence[TargetDiagnostics]
    importance: Importance | None
    problems: Sequence[str]


def judge(model: LoadedModel, main: str) -> Judged:
    """Diagnose the residuals of the training part for a fit with leverage, else of the part `main` (`train`, `val` or
    `test`), and measure the importance of the columns on that."""
    fit, problems = model.saved.fit, list[str]()
    diagnostics, importance = list[TargetDiagnostics](), None
    try:
        diagnostics = diagnose(model, select(model, part=main if fit is None else "train"))
    except DataError as error:
        problems.append(f"No diagnostics: {shorten(str(error), MOST_CHARACTERS)}.")
    try:
        if model.saved.feature_names:
            importance = permutation_importance(model, select(model, part=main), repeats=REPEATS)
    except (DataError, UsageError) as error:
        problems.append(f"No importance: {shorten(str(error), MOST_CHARACTERS)}.")
    return Judged(diagnostics, importance, problems)


def diagnostics_blocks(judged: Judged, *, with_rows: bool) -> Iterator[Block]:
    """Yield charts of the residuals, tests, and with_rows the most influential rows."""
    for one in judged.diagnostics[:MOST_TARGETS]:
        yield Charts(list(_panels(one)))
        yield Table(["test", "value", "p", "what a small p or another value says"], list(_tests(one)))
        if with_rows and one.influential:
            yield _influential(one)
        yield f"{one.target}: {one.rows}, {one.found.n_rows:,} rows. " + " ".join(
            f"{note[0].upper()}{note[1:]}." for note in one.notes
        )


def _panels(one: TargetDiagnostics) -> Iterator[charts.Chart]:
    rows, name = _some(one.found.drawn), one.target
    size = np.sqrt(np.abs(rows.standardized))
    standardized = "standardized residual"
    for x, y, x_label, y_label, title in (
        (rows.quantile, rows.standardized, "normal quantile", standardized, "Normal Q-Q"),
        (rows.fitted, size, f"fitted {name}", f"√|{standardized}|", "Scale-location"),
        (rows.leverage, rows.standardized, "leverage", standardized, "Residuals against leverage"),
    ):
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() > 1:
            line = "normal" if title == "Normal Q-Q" else ""
            yield charts.scatter(x[known], y[known], x_label=x_label, y_label=y_label, title=title, diagonal=line)


def _some(rows: ResidualRows) -> ResidualRows:
    """Return at most MOST_DOTS rows, from the lowest to the highest residual."""
    order = np.argsort(rows.standardized, kind="stable")
    return rows.take(order[np.unique(np.linspace(0, len(order) - 1, MOST_DOTS).round().astype(np.int64))])


def _tests(one: TargetDiagnostics) -> Iterator[list[Cell]]:
    found = one.found
    if found.breusch_pagan is not None:
        test = found.breusch_pagan
        yield [
            "Breusch-Pagan",
            test.value,
            p_value(test.p),
            f"the variance of the errors changes with the {one.regressors}",
        ]
    if found.jarque_bera is not None:
        test = found.jarque_bera
        yield ["Jarque-Bera", test.value, p_value(test.p), "the errors are not normal"]
    if found.durbin_watson is not None:
        yield ["Durbin-Watson", found.durbin_watson, None, "far from 2: errors depend on those of the rows before"]
    yield ["standard deviation of the residuals", found.scale, None, f"in the units of {one.target}"]


def _influential(one: TargetDiagnostics) -> Table:
    has_leverage = one.found.has_leverage
    names = ["residual", "studentized", "leverage", "cooks_distance"] if has_leverage else ["residual", "standardized"]
    rows: list[list[Cell]] = []
    for row in one.influential:
        file = "" if row["file"] is None else f"{row['file'].rpartition('/')[2]}: "
        rows.append([f"{file}row {row['row']}", row["y"], row["fitted"], *(row[name] for name in names)])
    first = "most influential rows" if has_leverage else "rows with the largest residuals"
    return Table([first, "actual", "fitted", *(name.replace("cooks_", "Cook's ") for name in names)], rows)


def importance_blocks(judged: Judged) -> Iterator[Block]:
    """Yield how much the error grows when a column is shuffled."""
    found = judged.importance
    if found is None:
        return
    is_r2 = found.metric == "r2"
    what = "decrease of R²" if is_r2 else f"increase of the {found.metric.upper()}"
    shown = found.columns[:MOST_BARS]
    rows = [(column.name, np.array(column.values)) for column in shown]
    yield Charts([charts.spread(rows, x_label=what, title=f"Permutation importance: {what}", marks_zero=True)])
    yield Table(
        ["column", what, "standard deviation"],
        [[column.name, column.mean, column.std] for column in found.columns[:MOST_COLUMNS]],
    )
    of_rows = f"{found.n_rows:,} rows of the {found.rows}"
    yield (
        f"Each column of the table was shuffled {found.repeats} times among {of_rows}, where the "
        f"{found.metric.upper()} is {number(found.value)}. Columns that know the same share their importance."
    )
