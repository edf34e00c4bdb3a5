"""Diagnostics of residuals, gathered from blocks of rows: tests, leverage, and the rows that decide most.

Memory is bounded: sums, a triangle, a sample of the rows and the most extreme ones. `experiment.diagnosing` uses it.
Rows with weights are multiplied by the square roots of them, as in least squares. Sources:
R. D. Cook, Detection of influential observation in linear regression (1977); D. A. Belsley, E. Kuh and R. E. Welsch,
Regression Diagnostics (1980), section 2.1: leverage and studentized residuals; T. S. Breusch and A. R. Pagan, A simple
test for heteroscedasticity and random coefficient variation (1979), studentized as in R. Koenker, A note on
studentizing a test for heteroscedasticity (1981); J. Durbin and G. S. Watson, Testing for serial correlation in least
squares regression (1950); C. M. Jarque and A. K. Bera, Efficient tests for normality, homoscedasticity and serial
independence of regression residuals (1980).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.sampling import LowestRows, Sample
from linreg.exact.least_squares import PERFECT, Factor, solve
from linreg.exact.robust import LEAST_REST

MOST_LISTED = 10  # rows of the most influence
MOST_DRAWN = 5_000  # rows of a picture, beside the most extreme ones
WIDTH = 5  # values of a row that is kept: number, y, residual, the scaled residual, leverage

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ResidualRows:
    """Some rows with their residuals, (n,) each.

    number: of the row, counted from 0; residual: y - fitted; standardized: the residual times the root of its weight,
    over its standard deviation; studentized: the same with a standard deviation from all other rows; leverage: the
    diagonal of the hat matrix; cooks_distance; quantile: that of a normal distribution at the rank of the standardized
    residual. NaN where a value does not exist."""

    number: NDArray[np.int64]
    y: Floats
    fitted: Floats
    residual: Floats
    standardized: Floats
    studentized: Floats
    leverage: Floats
    cooks_distance: Floats
    quantile: Floats

    def take(self, positions: NDArray[Any]) -> "ResidualRows":
        """Return the rows at some positions, or those of a mask."""
        return ResidualRows(**{field.name: getattr(self, field.name)[positions] for field in fields(self)})


@dataclass(frozen=True)
class Chi2Test:
    """A test with a chi-squared distribution under the hypothesis."""

    value: float
    degrees_of_freedom: int
    p: float


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of the residuals of one target. n_rows: those with a weight > 0; n_coefficients: of the fit, None for
    rows without leverage; n_alone: rows with the leverage 1, which have no standardized residual; scale: the standard
    deviation of the residuals; is_perfect: whether they are rounding, so that no test is meaningful; breusch_pagan: of
    equal variance; jarque_bera: of a normal distribution, with skew and kurtosis (3 for a normal one); durbin_watson: 2
    without serial correlation, None for rows without an order. influential: the rows with the largest Cook's distance,
    or without leverage the largest residual; largest: those with the largest standardized residual, both in descending
    order; drawn: rows of a picture."""

    n_rows: int
    n_coefficients: int | None
    n_alone: int
    scale: float
    is_perfect: bool
    breusch_pagan: Chi2Test | None
    jarque_bera: Chi2Test | None
    skew: float | None
    kurtosis: float | None
    durbin_watson: float | None
    influential: ResidualRows
    largest: ResidualRows
    drawn: ResidualRows

    @property
    def has_leverage(self) -> bool:
        """Whether the rows are those of the fit."""
        return self.n_coefficients is not None


def leverages(fit: Mapping[str, Any], design: Floats, weight: NDArray[Any] | None = None) -> Floats:
    """Return the leverage (n,) of training rows of a fit: design (n, p), weight (n,) as in the fit."""
    squares: Floats = ((design @ fit["inverse"].numpy()) ** 2).sum(axis=1)
    return squares if weight is None else weight * squares


def n_coefficients(fit: Mapping[str, Any]) -> int:
    """Return the number of coefficients of a fit, without those of columns that were left out."""
    return len(fit["columns"]) - len(fit["left_out"])


def no_leverage(fit: Mapping[str, Any] | None) -> str | None:
    """Return why a model has no leverage and no Cook's distance; None if it has."""
    if fit is None:
        return "they need a model that is linear in its parameters, the loss mse, and solver: exact or the baseline"
    if fit["penalty"] is not None or fit["ridge"] > 0:
        return "a penalty shrinks the coefficients"
    if fit["residual_variance"] is None:
        return "the fit has no degrees of freedom"
    return None


class Diagnosis:
    """Gathers the diagnostics of one target."""

    def __init__(
        self, n_columns: int, *, n_coefficients: int | None, is_ordered: bool = False, is_perfect: bool = False
    ) -> None:
        """n_columns: of the regression of the squared residuals; n_coefficients: of the fit for rows with leverage;
        is_ordered: whether rows come in their order, or with their times; is_perfect: whether the fit is."""
        self.n_coefficients, self.is_ordered, self.is_perfect = n_coefficients, is_ordered, is_perfect
        self.n_rows = self.n_alone = 0
        self._largest_y = 0.0
        self._unit: float | None = None  # of the residuals, so that no power of them overflows
        self._shift = 0.0  # near the mean, so that the sums of powers keep their digits
        self._powers = np.zeros(4)  # sums of powers of the residuals minus the shift
        self._squared = Factor(n_columns, 1)
        self._sample = Sample(MOST_DRAWN, WIDTH)
        self._influential, self._largest = LowestRows(MOST_LISTED, WIDTH), LowestRows(MOST_LISTED, WIDTH)
        self._steps, self._last = 0.0, np.zeros(0)
        self._timed: list[tuple[Floats, Floats]] = []

    def add(
        self,
        numbers: NDArray[np.int64],
        y: Floats,
        residual: Floats,
        columns: Floats,
        *,
        weight: NDArray[Any] | None = None,
        leverage: Floats | None = None,
        times: Floats | None = None,
    ) -> None:
        """Add rows: numbers, y, residual, weight, leverage, times (n,) each; columns (n, n_columns), the first of ones:
        of the regression of the squared residuals. Rows with the weight 0 do not count."""
        if weight is not None and not weight.all():
            used = weight > 0
            weight, leverage, times = (None if one is None else one[used] for one in (weight, leverage, times))
            numbers, y, residual, columns = numbers[used], y[used], residual[used], columns[used]
        if not len(residual):
            return
        scaled = residual if weight is None else np.sqrt(np.asarray(weight, dtype=np.float64)) * residual
        if self._unit is None:
            self._unit = float(np.abs(scaled).max()) or 1.0
            self._shift = float((scaled / self._unit).mean())
        scaled = scaled / self._unit
        self.n_rows += len(scaled)
        self._largest_y = max(self._largest_y, float(np.abs(y).max()))
        with np.errstate(over="ignore", invalid="ignore"):  # of much larger residuals in a later block
            self._powers += [float(((scaled - self._shift) ** power).sum()) for power in range(1, 5)]
            self._squared.add(columns, scaled[:, None] ** 2)
            self._add_steps(scaled, times)
            self._add_rows(numbers, y, residual, scaled, leverage)

    def _add_steps(self, scaled: Floats, times: Floats | None) -> None:
        if times is not None:
            self._timed.append((times, scaled))
        elif self.is_ordered:
            self._steps += float((np.diff(scaled, prepend=self._last) ** 2).sum())
            self._last = scaled[-1:]

    def _add_rows(
        self, numbers: NDArray[np.int64], y: Floats, residual: Floats, scaled: Floats, leverage: Floats | None
    ) -> None:
        h = np.full(len(scaled), np.nan) if leverage is None else leverage
        rest = np.ones(len(scaled)) if leverage is None else 1 - leverage
        alone = rest < LEAST_REST
        self.n_alone += int(alone.sum())
        rest[alone] = np.inf
        size = scaled**2 / rest  # of the standardized residual, squared, times a number
        rows = np.column_stack([numbers, y, residual, scaled, h])
        self._sample.add(rows)
        self._largest.add(-size, rows)
        self._influential.add(-size if leverage is None else -size * h / rest, rows)

    def result(self) -> Diagnostics:
        """Return the diagnostics of the rows so far, at least one."""
        n, rank, unit = self.n_rows, self.n_coefficients, self._unit or 1.0
        squares = float(self._powers[1] + 2 * self._shift * self._powers[0] + n * self._shift**2)
        scale = math.sqrt(squares / (n if rank is None else n - rank))
        is_perfect = self.is_perfect or scale * unit <= PERFECT * self._largest_y
        skew, kurtosis = (None, None) if is_perfect else self._shape()
        largest, influential = (self._described(lowest.rows, scale) for lowest in (self._largest, self._influential))
        return Diagnostics(
            n_rows=n,
            n_coefficients=rank,
            n_alone=self.n_alone,
            scale=scale * unit,
            is_perfect=is_perfect,
            breusch_pagan=None if is_perfect else self._breusch_pagan(),
            jarque_bera=None if skew is None or kurtosis is None else _jarque_bera(n, skew, kurtosis),
            skew=skew,
            kurtosis=kurtosis,
            durbin_watson=None if is_perfect else self._durbin_watson(squares),
            influential=influential.take(np.isfinite(influential.standardized) & (not is_perfect)),
            largest=largest.take(np.isfinite(largest.standardized) & (not is_perfect)),
            drawn=self._drawn(scale, largest),
        )

    def _shape(self) -> tuple[float | None, float | None]:
        """Return skew and kurtosis, from the moments around the mean."""
        first, second, third, fourth = self._powers / self.n_rows
        variance = second - first**2
        if not variance > 0 or not math.isfinite(fourth):
            return None, None
        skew = (third - 3 * first * second + 2 * first**3) / variance**1.5
        kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / variance**2
        return float(skew), float(kurtosis)

    def _breusch_pagan(self) -> Chi2Test | None:
        """Return n R2 of the squared residuals on the columns; None without degrees of freedom."""
        try:
            solution = solve(self._squared.triangle())
        except OverflowError:
            return None
        degrees = self._squared.n_columns - len(solution.left_out) - 1
        r2 = solution.r2[0]
        if r2 is None or not 0 < degrees < self.n_rows - 1:
            return None
        return _chi2(self.n_rows * r2, degrees)

    def _durbin_watson(self, squares: float) -> float | None:
        """Return the statistic; None for rows without an order, such as several of one time."""
        if not self._timed:
            return self._steps / squares if self.is_ordered and self.n_rows > 1 else None
        times, scaled = (np.concatenate(parts) for parts in zip(*self._timed, strict=True))
        order = np.argsort(times, kind="stable")
        if len(times) < 2 or not np.diff(times[order]).all():
            return None
        return float((np.diff(scaled[order]) ** 2).sum() / squares)

    def _described(self, rows: Floats, scale: float) -> ResidualRows:
        """Return rows with what follows from the standard deviation of all residuals."""
        number, y, residual, scaled, h = rows.T
        missing = np.full(len(rows), np.nan)
        standardized = scaled / scale if scale else missing
        studentized = cooks = missing
        if self.n_coefficients is not None:
            rest = np.where(1 - h < LEAST_REST, np.nan, 1 - h)
            standardized = standardized / np.sqrt(rest)
            dof = self.n_rows - self.n_coefficients
            others = np.where(standardized**2 < dof, dof - standardized**2, np.nan)
            studentized = standardized * np.sqrt((dof - 1) / others) if dof > 1 else missing
            cooks = standardized**2 * h / (rest * self.n_coefficients)
        numbers = number.astype(np.int64)
        return ResidualRows(
            numbers, y, y - residual, residual, standardized, studentized, h, cooks, quantile=missing.copy()
        )

    def _drawn(self, scale: float, largest: ResidualRows) -> ResidualRows:
        """Return the sample and the extreme rows in the order of their standardized residuals, with quantiles.

        The ranks of the largest residuals of both signs are known; the other rows divide the ranks between them."""
        from scipy.special import ndtri

        rows = np.concatenate([self._sample.rows, self._influential.rows, self._largest.rows])
        rows = rows[np.unique(rows[:, 0], return_index=True)[1]]
        drawn = self._described(rows, scale)
        drawn = drawn.take(np.argsort(drawn.standardized, kind="stable"))  # NaN last
        has_rank = np.isfinite(drawn.standardized)
        is_largest = np.isin(drawn.number, largest.number) & has_rank
        n, n_low = self.n_rows - self.n_alone, int((is_largest & (drawn.standardized < 0)).sum())
        n_high, n_between = int(is_largest.sum()) - n_low, int((has_rank & ~is_largest).sum())
        ranks = np.full(len(has_rank), np.nan)
        between = n_low + (np.arange(n_between) + 0.5) * ((n - n_low - n_high) / max(n_between, 1))
        ranks[has_rank] = np.concatenate([np.arange(n_low) + 0.5, between, n - n_high + np.arange(n_high) + 0.5])
        return replace(drawn, quantile=ndtri(ranks / max(n, 1)))


def _jarque_bera(n: int, skew: float, kurtosis: float) -> Chi2Test:
    return _chi2(n / 6 * (skew**2 + (kurtosis - 3) ** 2 / 4), 2)


def _chi2(value: float, degrees_of_freedom: int) -> Chi2Test:
    from scipy.special import chdtrc

    return Chi2Test(float(value), degrees_of_freedom, float(chdtrc(degrees_of_freedom, value)))
