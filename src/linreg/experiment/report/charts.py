"""Charts as marks with coordinates, for inline SVG: the template draws them, the style sheet colours them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from linreg.runs.plots import tick_values

WIDTH, HEIGHT = 460, 320  # units of the drawing, about pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 46  # margins
MOST_POINTS = 400  # of a line
DECADES = 20.0  # the ratio of values that have a log axis
MOST_LABELS = 12  # of an axis of texts
NOT_SET = "not set"  # the label of a missing value
MOST_LETTERS, LETTER = 22, 8  # of a label at the left, and the room for each

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """The place of values on an axis, and its labelled ticks."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    ticks: Sequence[tuple[float, str]] = ()

    def __call__(self, values: ArrayLike) -> Floats:
        """Return the coordinates of values."""
        v, low, high = np.asarray(values, dtype=np.float64), self.low, self.high
        if self.is_log:
            v, low, high = np.log10(v), math.log10(low), math.log10(high)
        return np.asarray(self.start + (v - low) / (high - low) * (self.end - self.start))


@dataclass(frozen=True)
class Mark:
    """A path. style: a class of the style sheet; label: in the legend, if it has one."""

    path: str
    style: str
    label: str = ""


@dataclass(frozen=True)
class Text:
    """A text in a chart. anchor: `start`, `middle` or `end`."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Chart:
    """A chart. title: its description for those who cannot see it; width, height, left: of the drawing, and its left
    margin."""

    title: str
    marks: Sequence[Mark]
    x_label: str = ""
    y_label: str = ""
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()
    texts: Sequence[Text] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    legend: Sequence[Mark] = field(default_factory=tuple)

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the plotting area."""
        return self.left, TOP, self.width - RIGHT, self.height - BOTTOM


@dataclass(frozen=True)
class Whisker:
    """An interval with its estimate on the scale of a table's row. All in shares of the width, from 0 to 1."""

    low: float
    middle: float
    high: float
    zero: float
    text: str


def horizontal(values: ArrayLike, *, is_log: bool = False, whole: bool = False, left: int = LEFT) -> Scale:
    """Return the scale of an x axis that has room for values."""
    return _scale(values, left, WIDTH - RIGHT, is_log=is_log, whole=whole)


def vertical(values: ArrayLike, *, is_log: bool = False) -> Scale:
    """Return the scale of a y axis that has room for values."""
    return _scale(values, HEIGHT - BOTTOM, TOP, is_log=is_log)


def is_wide(values: ArrayLike) -> bool:
    """Return whether values are positive and so different that they need a log axis."""
    v = np.asarray(values, dtype=np.float64)
    return bool(v.size and v.min() > 0 and v.max() > DECADES * v.min())


def _scale(values: ArrayLike, start: float, end: float, *, is_log: bool, whole: bool = False) -> Scale:
    v = np.asarray(values, dtype=np.float64)
    low, high = (float(v.min()), float(v.max())) if v.size else (0.0, 1.0)
    if is_log:
        low, high = low / 1.15, high * 1.15
    else:
        margin = 0.04 * (high - low) or abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    bare = Scale(low, high, start, end, is_log)
    inside = tick_values(low, high, is_log=is_log, whole=whole)
    named = [(round(float(bare(tick)), 1), _tick_text(tick, inside)) for tick in inside]
    return Scale(low, high, start, end, is_log, named)


def _tick_text(tick: float, ticks: Sequence[float]) -> str:
    """Write a tick; rounding noise beside the others is zero."""
    largest = max(map(abs, ticks))
    return "0" if abs(tick) < 1e-9 * largest else f"{tick:.6g}"


def _coordinates(x: Floats, y: Floats) -> Iterable[str]:
    return (f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def line(x: Floats, y: Floats) -> str:
    """Return the path through points at coordinates (n,)."""
    return "M" + "L".join(_coordinates(x, y)) if len(x) else ""


def dots(x: Floats, y: Floats) -> str:
    """Return a path that draws a dot at each point: lines without length, with round ends."""
    return "".join(f"M{point}h0" for point in _coordinates(x, y))


def segments(x1: Floats, y1: Floats, x2: Floats, y2: Floats) -> str:
    """Return a path of separate segments."""
    pairs = zip(_coordinates(x1, y1), _coordinates(x2, y2), strict=True)
    return "".join(f"M{first}L{second}" for first, second in pairs)


def thinned(y: Floats) -> NDArray[np.int64]:
    """Return the positions of at most MOST_POINTS values that have the shape of all: first, last, and the lowest and
    highest of each piece."""
    n = len(y)
    if n <= MOST_POINTS:
        return np.arange(n)
    ends = np.linspace(0, n, MOST_POINTS // 2 + 1).astype(int)
    chosen = {0, n - 1}
    for first, last in pairwise(ends):
        chosen |= {first + int(y[first:last].argmin()), first + int(y[first:last].argmax())}
    return np.array(sorted(chosen))[: MOST_POINTS + 2]


def curves(
    named: Sequence[tuple[str, str, Floats]], *, x_label: str, y_label: str, title: str, rules: Sequence[int] = ()
) -> Chart:
    """Draw values (n,) against their positions, a line each; NaN is a gap. named: label, style and values.

    rules: positions before which the run was resumed, each marked by a line."""
    known = [values[np.isfinite(values)] for _, _, values in named]
    longest = max(len(values) for _, _, values in named)
    everything = np.concatenate(known)
    x = horizontal([0, max(longest - 1, 1)], whole=True)
    y = vertical(everything, is_log=is_wide(everything))
    marks = []
    if rules:
        at = x(np.asarray(rules) - 0.5)
        marks.append(
            Mark(segments(at, np.full_like(at, TOP), at, np.full_like(at, HEIGHT - BOTTOM)), "rule", "resumed")
        )
    for label, style, values in named:
        positions = np.flatnonzero(np.isfinite(values))
        chosen = positions[thinned(values[positions])]
        path = (dots if len(chosen) == 1 else line)(x(chosen), y(values[chosen]))
        marks.append(Mark(path, style if len(chosen) > 1 else f"{style} dots", label))
    return Chart(title, marks, x_label, y_label, x.ticks, y.ticks, legend=[mark for mark in marks if mark.label])


def scatter(x_values: Floats, y_values: Floats, *, x_label: str, y_label: str, title: str, diagonal: str = "") -> Chart:
    """Draw points (n,). diagonal: the label of the line where both are equal; without it, a line marks y = 0."""
    both = np.concatenate([x_values, y_values])
    x = horizontal(both if diagonal else x_values)
    y = vertical(both if diagonal else np.append(y_values, 0.0))
    ends = np.array([x.low, x.high])
    marks = [Mark(line(x(ends), y(ends if diagonal else np.zeros(2))), "rule", diagonal)]
    style = "first dots" if len(x_values) <= 100 else "first dots small"
    marks.append(Mark(dots(x(x_values), y(y_values)), style))
    legend = [mark for mark in marks if mark.label]
    return Chart(title, marks, x_label, y_label, x.ticks, y.ticks, legend=legend)


def whisker(low: float, middle: float, high: float, text: str) -> Whisker:
    """Place an interval and its estimate on a scale of its own, which has 0."""
    smallest, largest = min(low, middle, 0.0), max(high, middle, 0.0)
    span = (largest - smallest) or 1.0

    def share(value: float) -> float:
        return round(0.04 + 0.92 * (value - smallest) / span, 4)

    return Whisker(share(low), share(middle), share(high), share(0.0), text)


@dataclass(frozen=True)
class Coordinate:
    """An axis of parallel coordinates. places (n,): from 0 to 1; labels: of its ends or of a few categories, with their
    places."""

    name: str
    places: Floats
    labels: Sequence[tuple[float, str]]


def parallel(axes: Sequence[Coordinate], order: Sequence[int], best: frozenset[int], *, title: str) -> Chart:
    """Draw lines through parallel axes. order: the lines from the back to the front; best: those that stand out."""
    width, height, top, bottom = max(WIDTH, 120 * len(axes) + 100), HEIGHT + 60, 60, 20
    at = np.linspace(70, width - 90, len(axes))

    def y(places: ArrayLike) -> Floats:
        return np.asarray(height - bottom - np.asarray(places) * (height - top - bottom))

    marks = [Mark(segments(at, np.full_like(at, top), at, np.full_like(at, height - bottom)), "axis")]
    paths: dict[str, list[str]] = {"second thin": [], "first": []}
    for row in order:
        places = np.array([axis.places[row] for axis in axes])
        paths["first" if row in best else "second thin"].append(line(at, y(places)))
    marks += [Mark("".join(found), style) for style, found in paths.items() if found]
    texts = []
    for i, (position, axis) in enumerate(zip(at, axes, strict=True)):
        texts.append(Text(round(float(position), 1), top - 24 - 15 * (i % 2), axis.name))  # names may be long
        texts += [
            Text(round(float(position) + 6, 1), round(float(y(place)) - 6, 1), text, "start")  # above level lines
            for place, text in axis.labels
        ]
    return Chart(title, marks, texts=texts, width=width, height=height)


def spread(rows: Sequence[tuple[str, Floats]], *, x_label: str, title: str, marks_zero: bool = False) -> Chart:
    """Draw the values of each row as dots, the mean as a short line. rows: labels with values, the first on top;
    marks_zero: on an axis that is not logarithmic."""
    everything = np.concatenate([values for _, values in rows])
    height = 26 * len(rows) + TOP + BOTTOM
    labels = [label if len(label) <= MOST_LETTERS else f"{label[: MOST_LETTERS - 1]}…" for label, _ in rows]
    left = max(LEFT, 14 + LETTER * max(map(len, labels)))
    if marks_zero:
        x = horizontal(np.append(everything, 0.0), left=left)
    else:
        x = horizontal(everything, is_log=is_wide(everything), left=left)
    places = TOP + 26 * (np.arange(len(rows)) + 0.5)
    single, means = [], []
    for place, (_, values) in zip(places, rows, strict=True):
        single.append(dots(x(values), np.full(len(values), place)))
        at = x(np.array([values.mean()]))
        means.append(segments(at, np.array([place - 8]), at, np.array([place + 8])))
    marks = [Mark("".join(means), "second", "mean"), Mark("".join(single), "first dots", "each")]
    legend = list(marks)
    if marks_zero:
        at = x(np.zeros(1))
        marks.insert(0, Mark(segments(at, np.array([TOP]), at, np.array([height - BOTTOM])), "rule"))
    ticks = [(round(float(place), 1), label) for place, label in zip(places, labels, strict=True)]
    return Chart(title, marks, x_label, "", x.ticks, ticks, height=height, left=left, legend=legend)


def coordinate(
    name: str,
    values: Sequence[object],
    *,
    is_log: bool | None = None,
    order: Sequence[object] = (),
    missing: str = NOT_SET,
) -> Coordinate:
    """Make an axis of parallel coordinates for values: numbers, or else texts in an order, or that of appearance.

    missing: the label of None and of numbers that are not finite; they have a place of their own, at the top."""
    known = [value for value in values if not _is_missing(value)]
    has_gap = len(known) < len(values)
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        place_of, labels = _number_places([float(str(value)) for value in known], is_log, 0.85 if has_gap else 1.0)
    else:
        texts = list(dict.fromkeys(map(str, [*order, *known])))
        texts = [text for text in texts if text in map(str, known)]
        step, last = -(-len(texts) // MOST_LABELS), max(len(texts) - (not has_gap), 1)
        by_text = {text: i / last for i, text in enumerate(texts)}
        place_of = [by_text[str(value)] for value in known]
        labels = [(by_text[text], text) for text in texts[::step]] if texts else []
    found = iter(place_of)
    places = np.array([1.0 if _is_missing(value) else next(found) for value in values])
    return Coordinate(name, places, [*labels, (1.0, missing)] if has_gap else labels)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _number_places(
    numbers: Sequence[float], is_log: bool | None, top: float
) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the places of numbers, from 0 to `top`, and the labels of the lowest and the highest."""
    low, high, v = min(numbers), max(numbers), np.array(numbers)
    labels = [(0.0, f"{low:.4g}"), *([(top, f"{high:.4g}")] if high > low else [])]
    if is_wide(numbers) if is_log is None else is_log:
        v = np.log10(v)
    v = v - v.min()
    return (top * v / (v.max() or 1.0)).tolist(), labels
