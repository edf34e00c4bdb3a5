"""The picture of residuals: against fitted, Q-Q, scale-location, and against leverage, as R's plot.lm draws them.

Without leverage the last panel has actual against predicted values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linreg.exact.diagnostics import ResidualRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTOURS = {0.5: ("dotted", ":"), 1.0: ("dash-dot", "-.")}  # of Cook's distance: name and style of the line
FEW = 10  # points without a trend
MANY = 1_000  # points that are drawn smaller
SPAN, N_PLACES, N_ROUNDS = 2 / 3, 60, 3  # of a trend
QUARTILE = 0.6744897501960817  # of the normal distribution
LINE: dict[str, Any] = {"color": "0.4", "linewidth": 1, "linestyle": "--"}
TREND: dict[str, Any] = {"color": "tab:red", "linewidth": 1.5}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Residuals:
    """The residuals of a target. rows: to draw; n_coefficients: of the fit, None for rows without leverage; caption:
    which rows they are; largest, influential: labels of the rows with the largest residuals and with the largest Cook's
    distance, by their number."""

    target: str
    rows: ResidualRows
    n_coefficients: int | None
    caption: str
    largest: Mapping[int, str]
    influential: Mapping[int, str]


def plot_residuals(targets: Sequence[Residuals]) -> "Figure":
    """Plot four panels for each target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8 * len(targets)), dpi=120, layout="constrained")
    parts = figure.subfigures(len(targets), 1, squeeze=False)[:, 0]
    for part, one in zip(parts, targets, strict=True):
        against_fitted, quantiles, scale, last = part.subplots(2, 2).flat
        rows = one.rows
        size = np.sqrt(np.abs(rows.standardized))
        _draw(against_fitted, one, rows.fitted, rows.residual, one.largest, has_trend=True)
        against_fitted.axhline(0, **LINE)
        _name(against_fitted, "Residuals against fitted", f"fitted {one.target}", f"residual of {one.target}")
        _draw(quantiles, one, rows.quantile, rows.standardized, one.largest)
        _draw_quartile_line(quantiles, rows)
        _name(quantiles, "Normal Q-Q", "quantile of the normal distribution", "standardized residual")
        _draw(scale, one, rows.fitted, size, one.largest, has_trend=True)
        _name(scale, "Scale-location", f"fitted {one.target}", "√|standardized residual|")
        scale.set_ylim(bottom=0)
        _draw_leverage(last, one) if one.n_coefficients is not None else _draw_predictions(last, one)
        part.supxlabel(
            f"{one.caption}. Solid: trend; dashed: no error, or normal residuals", fontsize="small", color="0.3"
        )
    return figure


def _draw(
    axes: "Axes", one: Residuals, x: Floats, y: Floats, labels: Mapping[int, str], *, has_trend: bool = False
) -> None:
    """Draw points, the labels of some of them, and a trend if there are enough."""
    is_drawn = np.isfinite(x) & np.isfinite(y)
    dots: dict[str, Any] = {"s": 14, "alpha": 0.6} if is_drawn.sum() <= MANY else {"s": 6, "alpha": 0.3}
    axes.scatter(x[is_drawn], y[is_drawn], color="tab:blue", linewidths=0, **dots)
    if has_trend and is_drawn.sum() >= FEW:
        axes.plot(*smooth(x[is_drawn], y[is_drawn]), **TREND)
    axes.margins(0.08)  # room for the labels
    if not is_drawn.any():
        return
    middle_x, middle_y = (float(values[is_drawn].min() + values[is_drawn].max()) / 2 for values in (x, y))
    for number, text in labels.items():
        position = int(np.flatnonzero(one.rows.number == number)[0])
        if not is_drawn[position]:
            continue
        is_right, is_high = x[position] > middle_x, y[position] > middle_y
        axes.annotate(
            text,
            (x[position], y[position]),
            xytext=(-4 if is_right else 4, 2 if is_high else -2),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="bottom" if is_high else "top",
            fontsize="small",
            parse_math=False,
        )


def _name(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.25)


def _draw_quartile_line(axes: "Axes", rows: ResidualRows) -> None:
    """Draw the line through the quartiles, on which normal residuals are."""
    ranked = np.isfinite(rows.quantile)
    if ranked.sum() < 2:
        return
    low, high = np.interp([-QUARTILE, QUARTILE], rows.quantile[ranked], rows.standardized[ranked])
    slope = (high - low) / (2 * QUARTILE)
    axes.axline((0.0, (low + high) / 2), slope=slope, **LINE)


def _draw_leverage(axes: "Axes", one: Residuals) -> None:
    rows = one.rows
    _draw(axes, one, rows.leverage, rows.standardized, one.influential, has_trend=True)
    axes.axhline(0, **LINE)
    is_drawn = np.isfinite(rows.standardized)
    (low, high), right = axes.get_ylim(), float(rows.leverage[is_drawn].max(initial=0.0)) * 1.08
    left = right / 500
    visible = []
    for distance, (name, style) in CONTOURS.items():
        h = np.linspace(left, min(right, 0.999), 400)
        height = np.sqrt(distance * (one.n_coefficients or 1) * (1 - h) / h)
        for sign in (1, -1):
            inside = (sign * height >= low) & (sign * height <= high)
            axes.plot(h[inside], sign * height[inside], color="0.3", linewidth=1, linestyle=style)
            visible += [f"{distance:g} {name}"] if inside.any() else []
    axes.set_xlim(0, right or 1.0)
    axes.set_ylim(low, high)
    lines = f"; Cook's distance {', '.join(dict.fromkeys(visible))}" if visible else ""
    _name(axes, "Residuals against leverage", f"leverage{lines}", "standardized residual")


def _draw_predictions(axes: "Axes", one: Residuals) -> None:
    actual, fitted = one.rows.y, one.rows.fitted
    _draw(axes, one, fitted, actual, one.largest)
    low, high = float(min(actual.min(), fitted.min())), float(max(actual.max(), fitted.max()))
    axes.plot([low, high], [low, high], **LINE)
    _name(axes, "Actual against fitted (no leverage here)", f"fitted {one.target}", f"actual {one.target}")


def smooth(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return places (m,) and the heights of a smooth line through points x, y (n,), by robust local linear regression.

    Source: W. S. Cleveland, Robust locally weighted regression and smoothing scatterplots (1979)."""
    places = np.unique(np.quantile(x, np.linspace(0, 1, N_PLACES)))
    spread = float(x.max() - x.min())
    distance = np.abs(x - places[:, None])
    nearest = min(max(int(np.ceil(SPAN * len(x))), 3), len(x)) - 1
    width = np.maximum(np.partition(distance, nearest, axis=1)[:, nearest, None] * (1 + 1e-9), 1e-9 * spread or 1.0)
    near = np.clip(1 - (distance / width) ** 3, 0, None) ** 3
    trust = np.ones(len(x))
    for _ in range(N_ROUNDS):
        weight = near * trust
        total = weight.sum(axis=1)
        total[total == 0] = 1.0
        mean_x, mean_y = weight @ x / total, weight @ y / total
        offset = x - mean_x[:, None]
        squares = (weight * offset**2).sum(axis=1)
        products = (weight * offset * (y - mean_y[:, None])).sum(axis=1)
        is_flat = squares <= 1e-12 * spread**2 * total
        slope = np.where(is_flat, 0.0, products / np.where(is_flat, 1.0, squares))
        heights = mean_y + slope * (places - mean_x)
        rest = np.abs(y - np.interp(x, places, heights))
        middle = float(np.median(rest))
        if not middle > 0:
            break
        trust = np.clip(1 - (rest / (6 * middle)) ** 2, 0, None) ** 2
    return places, heights
