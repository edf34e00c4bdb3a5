"""The picture of the losses: nothing of it is cut off, and its axis says numbers."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from linreg.runs.plots import plot_losses

SHAPES = {
    "falling": [0.5 * math.exp(-epoch / 20) + 0.007 for epoch in range(200)],
    "half a decade": [0.3 + 0.4 * math.exp(-epoch / 20) for epoch in range(100)],
    "nearly level": [0.0089 + 1e-5 * math.exp(-epoch / 20) for epoch in range(50)],
    "twenty decades": [10 ** (3 - epoch / 10) for epoch in range(200)],
    "large": [1234567.0 + epoch for epoch in range(20)],
    "negative": [-0.00001234 * epoch for epoch in range(20)],
    "zero": [0.0] * 10,
    "single": [0.5],
}


@pytest.mark.parametrize("losses", SHAPES.values(), ids=SHAPES)
def test_every_label_is_inside_the_picture_and_the_axis_has_some(losses):
    figure = plot_losses(losses, [1.1 * loss for loss in losses], resumed_at=[len(losses) // 2])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    drawn = axes.get_tightbbox(canvas.get_renderer())
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= figure.bbox.x1
    assert drawn.y1 <= figure.bbox.y1
    low, high = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    said = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
    assert len(said) >= 2


def test_losses_are_said_in_plain_numbers():
    figure = plot_losses([1.0, 0.1, 0.01])
    FigureCanvasAgg(figure).draw()
    assert {"0.01", "0.1", "1"} <= {label.get_text() for label in figure.axes[0].get_yticklabels()}
