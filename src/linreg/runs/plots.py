"""Plots, without pyplot and its global state. Only this module and `residual_plots` import matplotlib."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# left, bottom, width and height of the axes of the losses, as shares of the figure: room for any label. A measured
# layout takes a third of the time of the whole plot.
MOST_NAMED = 10  # slopes in a legend
MARGINS = (0.13, 0.12, 0.85, 0.85)


def plot_losses(
    losses: Sequence[float], val_losses: Sequence[float | None] = (), *, resumed_at: Sequence[int] = ()
) -> "Figure":
    """Plot the losses of each epoch, with those of validation, on a log scale.

    resumed_at: epochs at which the run was resumed, each marked by a line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 4.5), dpi=120)
    axes = figure.add_axes(MARGINS)
    marker = "o" if len(losses) == 1 else None
    axes.plot(range(len(losses)), losses, label="training loss", color="tab:blue", marker=marker)
    if any(loss is not None for loss in val_losses):
        values = [float("nan") if loss is None else loss for loss in val_losses]
        axes.plot(range(len(values)), values, label="validation loss", color="tab:red", linestyle="--", marker=marker)
    for position, epoch in enumerate(resumed_at):
        axes.axvline(epoch - 0.5, color="0.6", linewidth=1, linestyle=":", label="" if position else "resumed")
    if any(loss > 0 for loss in losses):
        axes.set_yscale("log")
        # 0.01 instead of a power of ten, whose typesetting takes as long as the rest of the plot
        plain, (low, high) = StrMethodFormatter("{x:g}"), axes.get_ylim()
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if high < 10 * low else NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    return figure


def plot_path(
    strengths: Any,
    slopes: Any,
    names: Sequence[str],
    *,
    chosen: int,
    means: Any = None,
    standard_errors: Any = None,
    target: str = "",
) -> "Figure":
    """Plot the slopes of standardised columns against the strength of a penalty, under the errors of cross-validation.

    strengths (n,), the largest first; slopes (n, n_slopes); means, standard_errors (n,): of the mean squared errors
    over folds, or None; chosen: the position of the strength of the result."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5 if means is None else 8), dpi=120, layout="constrained")
    panels = figure.subplots(1 if means is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    line = {"color": "0.3", "linewidth": 1, "linestyle": "--"}
    if means is not None:
        errors = panels[0]
        errors.fill_between(strengths, means - standard_errors, means + standard_errors, color="tab:red", alpha=0.15)
        errors.plot(strengths, means, color="tab:red", label="mean over folds, with its standard error")
        errors.axvline(strengths[chosen], label=f"chosen: {strengths[chosen]:.4g}", **line)
        errors.set_ylabel(f"mean squared error of {target}" if target else "mean squared error")
        errors.legend()
    paths = panels[-1]
    largest = sorted(range(len(names)), key=lambda i: -abs(slopes[:, i]).max())[:MOST_NAMED]
    for i in range(len(names)):
        own = {"label": names[i], "linewidth": 1.5} if i in largest else {"color": "0.7", "linewidth": 0.8}
        paths.plot(strengths, slopes[:, i], **own)
    paths.axvline(strengths[chosen], **line)
    if len(names) > MOST_NAMED:
        paths.plot([], [], color="0.7", linewidth=0.8, label=f"{len(names) - MOST_NAMED} more")
    paths.set(xlabel="strength of the penalty", ylabel="slope of the standardised column")
    if names:
        paths.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for axes in panels:
        positive = strengths[strengths > 0]
        axes.set_xscale("symlog", linthresh=positive.min()) if len(positive) < len(strengths) else axes.set_xscale(
            "log"
        )
        axes.grid(alpha=0.25)
    return figure


@dataclass(frozen=True)
class Dots:
    """Trials of a sweep that are drawn alike. scores: None for those that are drawn at the top edge."""

    label: str
    trials: Sequence[int]
    scores: Sequence[float] | None
    style: Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """A parameter of a sweep. x: the position of each trial; labels: of the positions 0, 1, ..., None for numbers."""

    name: str
    x: Sequence[float]
    labels: Sequence[str] | None = None
    is_log: bool = False


def plot_ranking(panels: Sequence[Panel], dots: Sequence[Dots], *, score_name: str, caption: str = "") -> "Figure":
    """Plot the scores of trials against the values of each parameter, on one scale of the scores."""
    from matplotlib.figure import Figure

    n_columns = len(panels) if len(panels) <= 3 else (len(panels) + 1) // 2
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(max(5.5, 3.6 * n_columns), 3.2 * n_rows + 0.8), dpi=120, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(score_name)
    first = grid[0, 0]
    scores = [score for group in dots if group.scores is not None for score in group.scores]
    if min(scores) > 0 and max(scores) > 10 * min(scores):
        first.set_yscale("log")
        _mark_decades(first.yaxis, scores)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, dots)
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper right", ncols=len(dots), frameon=False)
    figure.supxlabel(caption, fontsize="small", color="0.3")
    return figure


def _draw_panel(axes: "Axes", panel: Panel, dots: Sequence[Dots]) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    if panel.is_log:
        axes.set_xscale("log")
        _mark_decades(axes.xaxis, panel.x)
    elif panel.labels is not None:
        _label_positions(axes, panel.labels)
    else:
        is_whole = all(float(x).is_integer() for x in panel.x)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=is_whole))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for group in dots:
        x: Any = [panel.x[trial] for trial in group.trials]
        style: Any = group.style
        if group.scores is None:
            axes.scatter(x, [0.97] * len(x), label=group.label, transform=axes.get_xaxis_transform(), **style)
            axes.update_datalim([(position, 0) for position in x], updatey=False)
        else:
            axes.scatter(x, group.scores, label=group.label, **style)
    axes.margins(y=0.12)  # room for the top edge
    axes.set_xlabel(panel.name)
    axes.grid(which="major", alpha=0.25)


def _mark_decades(axis: "Axis", values: Sequence[float]) -> None:
    """Mark decades on a log axis, as 0.01, and numbers between them if there are less than two."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    is_short = max(values) < 100 * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,), numticks=6))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label_positions(axes: "Axes", labels: Sequence[str]) -> None:
    """Label the positions 0, 1, ...: with a line for each param of a component if there is room, else slanted."""
    lines = [re.sub(r" (?=\w+=)", "\n", label) for label in labels]
    longest = max(len(line) for label in lines for line in label.split("\n"))
    style: dict[str, Any] = {"fontsize": "small", "parse_math": False}
    if longest * len(labels) > 45:
        lines = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
        style |= {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(labels)), lines, **style)
    axes.set_xlim(-0.5, len(labels) - 0.5)


def to_png(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def tick_values(low: float, high: float, *, is_log: bool, whole: bool) -> list[float]:
    """Return round values inside an axis, for its ticks. whole: whole numbers only."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if is_log:
        values = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=7).tick_values(low, high)
    else:
        values = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]
