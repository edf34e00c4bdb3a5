"""The picture of a sweep, ranking.png: the score of each trial against the values of its parameters."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from linreg.errors import brief
from linreg.experiment.sweeps.ranking import Ranked
from linreg.runs import plots
from linreg.spec.sweep_block import Range, SweepSpec
from linreg.system.files import replace_file

FILE = "ranking.png"
MOST_PANELS = 6
MOST_GROUPS = 5  # of the values of a parameter, to measure its effect
SPAN = 100  # of values that have a log axis
STYLES = {
    "ended by halving": {"s": 18, "facecolors": "none", "edgecolors": "0.6", "linewidths": 0.8},
    "trial": {"s": 22, "color": "tab:blue", "alpha": 0.7, "linewidths": 0},
    "above the scale": {"s": 30, "color": "tab:orange", "marker": "^", "linewidths": 0},
    "diverged or failed": {"s": 26, "color": "tab:red", "marker": "x", "linewidths": 1.2},
    "winner": {"s": 130, "color": "gold", "marker": "*", "edgecolors": "black", "linewidths": 0.7},
}

AT_THE_EDGE = ("above the scale", "diverged or failed")


def write_ranking(folder: Path, ranking: Sequence[Ranked], winners: Sequence[Ranked], settings: SweepSpec) -> None:
    """Write ranking.png into the folder of a sweep, if a parameter varies. Raises StorageError."""
    panels = [panel for key in settings.parameters if (panel := _panel(key, ranking, settings)) is not None]
    if not panels:
        return
    heights = [_height(one, settings) for one in ranking]
    shown = sorted(panels, key=lambda panel: effect(panel, heights), reverse=True)[:MOST_PANELS]
    n_hidden = len(panels) - len(shown)
    caption = f"{n_hidden} of {len(panels)} parameters are not shown: the scores vary least with them"
    name = "1 - r2" if settings.metric == "r2" else settings.metric
    n_scores = max(len(one.scores) for one in ranking)
    figure = plots.plot_ranking(
        shown,
        list(_dots(ranking, heights, {one.trial for one in winners})),
        score_name=f"{name}, mean of {n_scores}" if n_scores > 1 else name,
        caption=caption if n_hidden else "",
    )
    replace_file(folder / FILE, plots.to_png(figure))


def _height(one: Ranked, settings: SweepSpec) -> float | None:
    """Return the score of a trial, lower is better: of r2 the distance to 1, for which a log axis is possible."""
    return 1 - one.mean if one.mean is not None and settings.metric == "r2" else one.mean


def _panel(key: str, ranking: Sequence[Ranked], settings: SweepSpec) -> plots.Panel | None:
    """Return the panel of a parameter; None if it has one value."""
    parameter, values = settings.parameters[key], [one.parameters[key] for one in ranking]
    texts = list(map(repr, values))
    if len(set(texts)) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        is_wide = min(values) > 0 and max(values) >= SPAN * min(values)
        return plots.Panel(
            key, list(map(float, values)), is_log=parameter.log if isinstance(parameter, Range) else is_wide
        )
    in_order = values if isinstance(parameter, Range) else parameter.values
    categories = {repr(value): brief(value) for value in in_order if repr(value) in texts}
    positions = [float(list(categories).index(text)) for text in texts]
    return plots.Panel(key, positions, labels=list(categories.values()))


def effect(panel: plots.Panel, heights: Sequence[float | None]) -> float:
    """Return how much the scores vary with a parameter: the range of their medians, over its values or, if it has many
    numbers, over equal groups of them. Positive scores count by their logarithms."""
    known = sorted((x, height) for x, height in zip(panel.x, heights, strict=True) if height is not None)
    x, y = np.array(known).reshape(-1, 2).T
    y, distinct = np.log(y) if (y > 0).all() else y, np.unique(x)
    if panel.labels is None and len(distinct) > MOST_GROUPS:
        groups = np.array_split(y, MOST_GROUPS)
    else:
        groups = [y[x == value] for value in distinct]
    medians = [float(np.median(group)) for group in groups if len(group)]
    return max(medians) - min(medians)


def _are_above(heights: Sequence[float | None]) -> list[bool]:
    """Return which scores are so far above the others that one log axis could not show both: by a decade, and by three
    times the distance from the lowest to the upper quartile."""
    known = np.array([height for height in heights if height is not None])
    if not (known > 0).all():
        return [False] * len(heights)
    lowest, upper = np.quantile(np.log(known), [0, 0.75])
    limit = upper + max(3 * (upper - lowest), np.log(10))
    return [height is not None and bool(np.log(height) > limit) for height in heights]


def _dots(ranking: Sequence[Ranked], heights: Sequence[float | None], winners: set[int]) -> Iterator[plots.Dots]:
    """Yield the trials in groups that look alike, the winners last, on top of the others."""
    kinds = [_kind(one, winners, is_above=above) for one, above in zip(ranking, _are_above(heights), strict=True)]
    for label, style in STYLES.items():
        trials = [position for position, kind in enumerate(kinds) if kind == label]
        scores = [height for position in trials if (height := heights[position]) is not None]
        if trials:
            yield plots.Dots(label, trials, None if label in AT_THE_EDGE else scores, style)


def _kind(one: Ranked, winners: set[int], *, is_above: bool) -> str:
    if one.mean is None:
        return "diverged or failed"
    if one.trial in winners:
        return "winner"
    return "above the scale" if is_above else "ended by halving" if one.outcome == "halved" else "trial"
