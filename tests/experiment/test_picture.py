"""ranking.png of a sweep: which parameters it shows, on which axes, and how it marks the trials."""

import math
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from linreg.experiment.sweeps import picture
from linreg.experiment.sweeps.picture import effect, write_ranking
from linreg.experiment.sweeps.ranking import Ranked
from linreg.runs import plots
from linreg.runs.plots import Panel
from linreg.spec.sweep_block import SweepSpec
from tests.conftest import write_spec


def ranked(scores, outcomes=None, **parameters):
    """Return a ranking of trials with these scores and values of parameters, in that order."""
    outcomes = outcomes or ["finished"] * len(scores)
    return [
        Ranked(number, {key: values[number] for key, values in parameters.items()}, outcome, 6, 2, score, None, {})
        for number, (score, outcome) in enumerate(zip(scores, outcomes, strict=True))
    ]


@pytest.fixture
def draw(monkeypatch):
    """Draw a ranking; return the figure, its panels by name, and the trials by label."""
    figures, plot_ranking = [], plots.plot_ranking

    def spy(panels, dots, **texts):
        figure = plot_ranking(panels, dots, **texts)
        figures.append((figure, {panel.name: panel for panel in panels}, {group.label: group for group in dots}))
        return figure

    monkeypatch.setattr(picture.plots, "plot_ranking", spy)

    def drawn(ranking, n_winners=1, **settings):
        write_ranking(Path(), ranking, ranking[:n_winners], SweepSpec(**settings))
        assert Path("ranking.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return drawn


def test_a_sweep_has_a_picture_if_plots_are_written(linreg):
    linreg("sweep", write_spec(), "optimizer.lr=0.1,0.2", "-q")
    linreg("sweep", write_spec(), "optimizer.lr=0.1,0.2", "writer.plots=true", "-q")
    assert not Path("runs/small_sweep_001/ranking.png").exists()
    assert Path("runs/small_sweep_002/ranking.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_have_an_axis_and_other_values_have_labels(draw):
    values = {
        "wide": [0.001, 0.01, 0.1],
        "narrow": [8, 16, 32],
        "lists": [[4], [8, 8], [4]],
        "components": [{"name": "adam", "lr": 0.1}, None, {"name": "sgd"}],
        "mixed": [16, "full", 16],
        "flag": [True, False, True],
        "same": [1, 1, 1],
    }
    parameters = {key: list({repr(value): value for value in of_key}.values()) for key, of_key in values.items()}
    _, panels, _ = draw(ranked([1.0, 2.0, 3.0], **values), parameters=parameters)
    assert {name: panel.labels for name, panel in panels.items()} == {
        "wide": None,
        "narrow": None,
        "lists": ["[4]", "[8, 8]"],
        "components": ["adam lr=0.1", "null", "sgd"],
        "mixed": ["16", "full"],
        "flag": ["true", "false"],
    }
    assert [name for name, panel in panels.items() if panel.is_log] == ["wide"]
    assert panels["lists"].x == [0, 1, 0]


def test_a_range_has_the_axis_that_it_is_drawn_on(draw):
    ranges = {"even": {"min": 0.0, "max": 1.0}, "log": {"min": 0.1, "max": 1.0, "log": True}}
    values = {"even": [0.001, 0.5, 1.0], "log": [0.1, 0.5, 1.0]}
    _, panels, _ = draw(ranked([1.0, 2.0, 3.0], **values), parameters=ranges, trials=3)
    assert {name: panel.is_log for name, panel in panels.items()} == {"even": False, "log": True}


def test_a_sweep_without_varied_values_has_no_picture():
    write_ranking(Path(), ranked([1.0, 2.0], lr=[3, 3]), [], SweepSpec(parameters={"lr": [3]}))
    assert not Path("ranking.png").exists()


def test_trials_are_marked_by_their_outcome(draw):
    outcomes = ["finished", "finished", "early_stopped", "halved", "finished", "diverged", "failed"]
    ranking = ranked([1.0, 1.1, 1.2, 1.3, 1e9, None, None], outcomes, lr=[1, 2, 3, 4, 5, 6, 7])
    figure, _, dots = draw(ranking, n_winners=2, parameters={"lr": [1, 2, 3, 4, 5, 6, 7]})
    assert {label: group.trials for label, group in dots.items()} == {
        "winner": [0, 1],
        "trial": [2],
        "ended by halving": [3],
        "above the scale": [4],
        "diverged or failed": [5, 6],
    }
    (axes,) = figure.axes
    assert axes.get_ylim()[1] < 2
    FigureCanvasAgg(figure).draw()
    drawn = {points.get_label(): points for points in axes.collections}
    assert list(drawn)[-1] == "winner"
    for label in ("above the scale", "diverged or failed"):
        places = axes.transAxes.inverted().transform(
            drawn[label].get_offset_transform().transform(drawn[label].get_offsets())
        )
        assert all(0 <= x <= 1 for x in places[:, 0])
        assert places[:, 1].tolist() == pytest.approx([0.97] * len(places))


def test_a_score_is_above_the_scale_if_it_is_a_decade_above_the_others(draw):
    _, _, dots = draw(ranked([1.0] * 5 + [9.0], lr=[1, 2, 3, 4, 5, 6]), parameters={"lr": [1, 2, 3, 4, 5, 6]})
    assert dots["trial"].scores == [1.0] * 4 + [9.0]
    _, _, dots = draw(ranked([1.0] * 5 + [11.0], lr=[1, 2, 3, 4, 5, 6]), parameters={"lr": [1, 2, 3, 4, 5, 6]})
    assert dots["above the scale"].trials == [5]


def test_the_scores_have_one_scale_logarithmic_over_a_decade(draw):
    parameters = {"a": [1, 2, 3], "b": [1, 2, 3]}
    for scores, scale in (([1.0, 5.0, 11.0], "log"), ([1.0, 5.0, 9.0], "linear"), ([-1.0, 5.0, 100.0], "linear")):
        figure, _, _ = draw(ranked(scores, **parameters), parameters=parameters)
        a, b = figure.axes
        assert (a.get_yscale(), b.get_yscale()) == (scale, scale)
        assert a.get_ylim() == b.get_ylim()


def test_r2_is_drawn_as_its_distance_to_one(draw):
    figure, _, dots = draw(ranked([0.99, 0.5], a=[1, 2]), parameters={"a": [1, 2]}, metric="r2")
    assert dots["winner"].scores == pytest.approx([0.01])
    assert figure.axes[0].get_ylabel() == "1 - r2"


def test_six_parameters_with_the_largest_effect_are_shown_and_the_others_counted(draw):
    weights = {f"p{number}": weight for number, weight in enumerate([3, 8, 1, 6, 2, 7, 4, 5])}
    values = {key: [number >> bit & 1 for number in range(256)] for bit, key in enumerate(weights)}
    scores = [
        math.exp(sum(weight * values[key][number] for key, weight in weights.items()) / 20) for number in range(256)
    ]
    figure, panels, _ = draw(ranked(scores, **values), parameters={key: [0, 1] for key in weights})
    assert list(panels) == ["p1", "p5", "p3", "p7", "p6", "p0"]
    assert len(figure.axes) == 6
    assert figure.get_supxlabel() == "2 of 8 parameters are not shown: the scores vary least with them"
    assert effect(panels["p1"], scores) == pytest.approx(8 / 20, rel=0.2)


def test_the_effect_of_many_numbers_is_the_range_of_medians_of_fifths():
    x = [0.1 * number for number in range(10)]
    heights = [1.0, 3.0, 2.0, 2.0, 9.0, None, 5.0, 5.0, 4.0, -1.0]
    # fifths of the nine known scores, by x: (1, 3), (2, 2), (9, 5), (5, 4), (-1)
    assert effect(Panel("a", x), heights) == 7.0 - -1.0
    assert effect(Panel("a", [0.0] * 9 + [1.0]), heights) == 3.5 - -1.0
