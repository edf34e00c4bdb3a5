"""Pictures. The only module that imports matplotlib; it draws without pyplot, so nothing global is touched."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_losses(
    losses: Sequence[float], val_losses: Sequence[float | None] = (), *, resumed_at: Sequence[int] = ()
) -> "Figure":
    """Plot the losses of each epoch, with validation where there is any, on a log scale.

    resumed_at: epochs at which the run was resumed, each marked by a line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    marker = "o" if len(losses) == 1 else None
    axes.plot(range(len(losses)), losses, label="training loss", color="tab:blue", marker=marker)
    if any(loss is not None for loss in val_losses):
        values = [float("nan") if loss is None else loss for loss in val_losses]
        axes.plot(
            range(len(values)),
            values,
            label="validation loss",
            color="tab:red",
            linestyle="--",
            marker=marker,
        )
    for position, epoch in enumerate(resumed_at):
        axes.axvline(epoch - 0.5, color="0.6", linewidth=1, linestyle=":", label="" if position else "resumed")
    if any(loss > 0 for loss in losses):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.grid(which="both", alpha=0.25)
    axes.legend()
    return figure
