"""Diagnostics of a model's residuals on selected rows: numbers, the rows that decide most, and their picture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.preprocessing import rows_as_data_errors
from linreg.data.rows import Rows, places
from linreg.data.transform import Recode
from linreg.errors import DataError
from linreg.exact.diagnostics import Diagnosis, Diagnostics, ResidualRows, leverages, n_coefficients, no_leverage
from linreg.exact.inference import is_penalised
from linreg.experiment.loaded import LoadedModel, weight_divisor
from linreg.experiment.selection import Order, Selection, order_of
from linreg.runs.residual_plots import Residuals, plot_residuals

ROWS = 2**14  # at once
NUMBERED = 3  # rows of a panel
COLUMNS, FITTED = "columns", "fitted values"


@dataclass(frozen=True)
class TargetDiagnostics:
    """The diagnostics of a target. target: its name, transformed as the model is fitted to it; rows: which they are;
    regressors: of the Breusch-Pagan test, the model's columns or the fitted values; places: of the listed rows, by
    their number; notes: sentences about all that does not exist or needs care."""

    target: str
    rows: str
    regressors: str
    found: Diagnostics
    places: Mapping[int, str]
    notes: list[str]

    def described(self) -> dict[str, Any]:
        """Return the numbers as plain values, None for those that do not exist."""
        found = self.found
        equal, normal = found.breusch_pagan, found.jarque_bera
        return {
            "target": self.target,
            "rows": self.rows,
            "n_rows": found.n_rows,
            "n_coefficients": found.n_coefficients,
            "residual_std": found.scale,
            "breusch_pagan": equal and {**vars(equal), "regressors": self.regressors},
            "jarque_bera": normal and {**vars(normal), "skew": found.skew, "kurtosis": found.kurtosis},
            "durbin_watson": found.durbin_watson,
            "ranked_by": "cooks_distance" if found.has_leverage else "standardized",
            "influential": self.influential,
            "notes": self.notes,
        }

    @property
    def influential(self) -> list[dict[str, Any]]:
        """The rows with the largest Cook's distance, or without leverage the largest residuals."""
        rows = self.found.influential
        names = ("y", "fitted", "residual", "standardized", "studentized", "leverage", "cooks_distance")
        return [
            {**dict(zip(("file", "row"), divided(self.places[number]), strict=True)), **_values(rows, names, position)}
            for position, number in enumerate(rows.number.tolist())
        ]

    def residuals(self) -> Residuals:
        """Return what a picture shows."""
        found = self.found
        listed = found.n_rows - found.n_alone
        caption = f"{self.target}: {self.rows}, {found.n_rows} rows"
        if len(found.drawn.number) < listed:
            caption += f", of which {len(found.drawn.number)} are drawn: a random sample, and the most extreme ones"
        numbered = [rows.number[:NUMBERED].tolist() for rows in (found.largest, found.influential)]
        labels = [{number: _label(self.places[number]) for number in numbers} for numbers in numbered]
        return Residuals(self.target, found.drawn, found.n_coefficients, caption, labels[0], labels[1])


def diagnose(model: LoadedModel, selection: Selection) -> list[TargetDiagnostics]:
    """Return the diagnostics of each target of a model on selected rows, in a pass over them and one to find the places
    of the listed ones. Raises DataError."""
    fit, order = model.saved.fit, order_of(model, selection)
    reason = no_leverage(fit)
    divisor = None
    if selection.is_training and fit is not None and reason is None:
        assert isinstance(selection.points, Rows) and selection.mask is not None  # as of a part
        divisor = weight_divisor(fit, selection.points, selection.mask)
    names, part = model.residual_names, model.linear_part
    width = 2 if part is None else part.layer.in_features + 1
    diagnoses = [
        Diagnosis(
            width,
            n_coefficients=None if divisor is None or fit is None else n_coefficients(fit),
            is_ordered=order.reason is None,
            is_perfect=fit is not None and fit["exact"] and _is_perfect(fit, target, selection),
        )
        for target in range(len(names))
    ]
    _add_rows(diagnoses, model, selection, order, divisor)
    if not diagnoses[0].n_rows:
        raise DataError(f"{selection}: every weight is 0; use some weights > 0")
    found = [diagnosis.result() for diagnosis in diagnoses]
    listed = [number for one in found for rows in (one.influential, one.largest) for number in rows.number.tolist()]
    where = places(selection.points, listed)
    regressors = FITTED if part is None else COLUMNS
    return [
        TargetDiagnostics(name, str(selection), regressors, one, where, _notes(one, model, selection, order, reason))
        for name, one in zip(names, found, strict=True)
    ]


def picture(diagnostics: Sequence[TargetDiagnostics]) -> Any:
    """Return the figure of diagnostics."""
    return plot_residuals([one.residuals() for one in diagnostics])


def divided(place: str) -> tuple[str | None, int | None]:
    """Return the file of a place, None without one, and the number of its row; of a plugin's place, which may be any
    text, all of it as the file."""
    match = re.fullmatch(r"(?:(.*): )?row ([0-9]+)", place, re.DOTALL)
    return (match[1], int(match[2])) if match else (place, None)


def _add_rows(
    diagnoses: Sequence[Diagnosis], model: LoadedModel, selection: Selection, order: Order, divisor: float | None
) -> None:
    """Add the rows to the diagnosis of each target. divisor: of weights for the leverage, None without leverage."""
    recode = Recode(model.features, selection.points)
    for numbers, block in selection.blocks():
        x, every = recode(block), block.weight
        y, residuals = model.residuals(x, block.y, block.where)
        for first in range(0, len(x), ROWS):
            some = slice(first, first + ROWS)
            design = None
            if model.linear_part is not None:
                with rows_as_data_errors(model.preprocessing, x, None, block.where):
                    design = model.design(x[some])
            weight = None if every is None else every[some] / (divisor or 1.0)
            h = None if divisor is None or design is None else leverages(model.saved.fit or {}, design, weight)
            times = None if order.times is None else order.times[numbers[some]]
            for target, diagnosis in enumerate(diagnoses):
                own, residual = y[some, target], residuals[some, target]
                columns = _regressors(own - residual if design is None else design, model)
                diagnosis.add(numbers[some], own, residual, columns, weight=weight, leverage=h, times=times)


def _regressors(columns: NDArray[np.float64], model: LoadedModel) -> NDArray[np.float64]:
    """Return the columns for the regression of squared residuals, the first of ones."""
    part = model.linear_part
    if part is not None and part.intercept:
        return columns
    return np.column_stack([np.ones(len(columns)), columns])


def _is_perfect(fit: Mapping[str, Any], target: int, selection: Selection) -> bool:
    variance = fit["residual_variance"]
    if variance is None and not is_penalised(fit):  # as many coefficients as rows, through which the fit goes
        return selection.is_training
    return variance is not None and float(variance[target]) == 0


def _notes(found: Diagnostics, model: LoadedModel, selection: Selection, order: Order, reason: str | None) -> list[str]:
    """Return sentences about all that does not exist or needs care. reason: why the model has no leverage."""
    fit, notes = model.saved.fit, []
    if reason is not None:
        notes.append(f"no leverage and no Cook's distance: {reason}")
    elif not selection.is_training:
        notes.append("leverage and Cook's distance exist for the rows of the fit alone: --part train")
    elif fit is not None and not fit["exact"]:
        notes.append("the residuals are those of the trained model; Cook's distance holds if it is near the optimum")
    if found.n_alone:
        count = f"{found.n_alone} row{'s' * (found.n_alone > 1)}"
        notes.append(f"{count} with the leverage 1, each of which alone determines a coefficient, left out of the list")
    if found.is_perfect:
        notes.append("perfect fit: the residuals are rounding, so there are no tests and no influential rows")
        return notes
    if found.breusch_pagan is None:
        notes.append("no Breusch-Pagan test: it needs columns that vary, and more rows than columns")
    if found.durbin_watson is None:
        needs = "it needs two rows or more, each with a time of its own"
        notes.append(f"no Durbin-Watson statistic: {order.reason or needs}")
    return notes


def _values(rows: ResidualRows, names: Sequence[str], position: int) -> dict[str, float | None]:
    values = {name: float(getattr(rows, name)[position]) for name in names}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def _label(place: str) -> str:
    file, row = divided(place)
    return str(file if row is None else row)
