"""The pictures of losses and of a ranking: nothing of them is cut off, and their axes say numbers."""

import math
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from linreg.runs.plots import Dots, Panel, plot_losses, plot_ranking

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


@pytest.mark.parametrize("n_panels", [1, 2, 4, 6])
def test_every_label_of_a_ranking_is_inside_the_picture_and_none_is_on_another(n_panels):
    long = [f"mlp hidden=[{width}, {width}] activation=tanh" for width in range(8)]
    panels = [
        Panel("optimizer.lr", [0.003, 0.0121, 0.02, 0.0075]),
        Panel("model", [0, 3, 5, 7], long),
        Panel("optimizer.weight_decay", [1e-8, 1e-3, 1e-2, 1e-6], is_log=True),
        Panel("optimizer", [0, 1, 2, 1], ["adam lr=0.1", "sgd lr=0.05 momentum=0.9", "sgd lr=$x$"]),
        Panel("data.batch_size", [8, 16, 1024, 64]),
        Panel("ridge", [0.02, 0.05, 0.04, 0.06], is_log=True),
    ][:n_panels]
    dots = [Dots("trial", [0, 1, 3], [0.3, 0.5, 20.0], {}), Dots("diverged or failed", [2], None, {"marker": "x"})]
    figure = plot_ranking(panels, dots, score_name="val_loss", caption="2 of 8 parameters are not shown")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = figure.get_tightbbox(canvas.get_renderer()).transformed(figure.dpi_scale_trans)
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= figure.bbox.x1
    assert drawn.y1 <= figure.bbox.y1
    for axes, panel in zip(figure.axes, panels, strict=True):
        labels = [label for label in axes.get_xticklabels() if label.get_text() and label.get_rotation() == 0]
        low, high = axes.get_xlim()
        boxes = [label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes)), panel.name
        assert len(boxes) >= 2 or panel.labels == long
        assert all(low <= x <= high for x in panel.x)
