"""Plots. The only module that imports matplotlib, without pyplot and its global state."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# left, bottom, width and height of the axes of the losses, as shares of the figure: room for any label. A measured
# layout takes a third of the time of the whole plot.
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


def plot_predictions(y: Any, yhat: Any, target_names: Sequence[str]) -> "Figure":
    """Plot predicted against actual, and residuals against predicted, in a row for each target. y, yhat:
    (N, n_targets)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5 * len(target_names)), dpi=120, layout="constrained")
    grid = figure.subplots(len(target_names), 2, squeeze=False)
    for column, name in enumerate(target_names):
        actual, predicted = y[:, column], yhat[:, column]
        against, residuals = grid[column]
        dots = {"s": 12, "alpha": 0.6, "color": "tab:blue", "linewidths": 0}
        against.scatter(actual, predicted, **dots)
        low, high = float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))
        against.plot([low, high], [low, high], color="0.4", linewidth=1, linestyle="--", label="predicted = actual")
        against.set(xlabel=f"actual {name}", ylabel=f"predicted {name}")
        against.legend()
        residuals.scatter(predicted, actual - predicted, **dots)
        residuals.axhline(0, color="0.4", linewidth=1, linestyle="--")
        residuals.set(xlabel=f"predicted {name}", ylabel=f"actual - predicted {name}")
        for axes in (against, residuals):
            axes.grid(alpha=0.25)
    return figure


def to_png(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
