"""Compares the trials of a sweep: `rank` sorts them, `winners` picks from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from linreg.runs.pairs import paired_difference, score_of
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import Trial

NOT_TRAINED = "not trained"  # the outcome of a trial that an interrupted sweep has not reached


@dataclass(frozen=True)
class Ranked:
    """A trial in the ranking. mean, sd: of its scores over seeds and folds (sd: None for one score); scores: by seed
    and fold; gap: the mean difference to the first trial in the pairs of scores of the same seed and fold, with its
    interval by Student's t; outcome: `finished`, or why it has no score."""

    trial: int
    parameters: dict[str, Any]
    outcome: str
    epochs: int
    n_parameters: int
    mean: float | None
    sd: float | None
    scores: dict[tuple[int, int | None], float]
    reason: str | None = None
    gap: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def is_reached(self) -> bool:
        """Whether the sweep has trained it, as far as it came."""
        return self.outcome != NOT_TRAINED

    @property
    def standard_error(self) -> float:
        """The standard error of the mean; 0 for one score."""
        return 0.0 if self.sd is None else self.sd / math.sqrt(len(self.scores))


def cost_of(one: Ranked, metric: str) -> float:
    """Return the score of a trial as a number that is smaller for a better trial; infinite without a score."""
    if one.mean is None:
        return math.inf
    return -one.mean if metric == "r2" else one.mean


def rank(trials: Sequence[Trial], lines: Sequence[Mapping[str, Any]], settings: SweepSpec) -> list[Ranked]:
    """Rank all trials, the best first; those without a score last.

    lines: the results of all members that have ended. With halving, trials of a later round come first.
    """
    by_trial: dict[int, list[Mapping[str, Any]]] = {trial.number: [] for trial in trials}
    for line in sorted(lines, key=lambda line: (line["seed"], line["fold"] or 0)):  # a mean depends on the order
        by_trial[line["trial"]].append(line)
    ranked = [_ranked(trial, by_trial[trial.number], settings.metric) for trial in trials]
    is_halved = settings.halving is not None

    def order(one: Ranked) -> tuple[Any, ...]:
        return (one.mean is None, -one.epochs if is_halved else 0, cost_of(one, settings.metric), one.trial)

    ranked.sort(key=order)
    return [_with_gap(one, ranked[0]) for one in ranked]


def _ranked(trial: Trial, lines: Sequence[Mapping[str, Any]], metric: str) -> Ranked:
    lines = sorted(lines, key=lambda line: (line["seed"], line["fold"] or 0))  # an interrupted sweep has another order
    bad = [line for line in lines if line["outcome"] in ("diverged", "failed")]
    scores = {(line["seed"], line["fold"]): score_of(line, metric) for line in lines}
    values = [score for score in scores.values() if score is not None]
    is_whole = bool(lines) and not bad and len(values) == len(lines)
    outcomes = [line["outcome"] for line in bad or lines]
    return Ranked(
        trial.number,
        trial.parameters,
        outcomes[0] if outcomes else NOT_TRAINED,
        max((line["epochs"] for line in lines), default=0),
        max((line["n_parameters"] for line in lines), default=0),
        float(np.mean(values)) if is_whole else None,
        float(np.std(values, ddof=1)) if is_whole and len(values) > 1 else None,
        {key: score for key, score in scores.items() if score is not None},
        bad[0]["reason"] if bad else None,
    )


def _with_gap(one: Ranked, first: Ranked) -> Ranked:
    """Add the paired difference to the first trial."""
    if one is first or one.mean is None or first.mean is None:
        return one
    difference = paired_difference(one.scores, first.scores)
    return one if difference is None else replace(one, gap=difference.mean, interval=difference.interval)


def winners(ranked: Sequence[Ranked], settings: SweepSpec) -> list[Ranked]:
    """Return the trials that become runs, the winner first. With `one_se` the winner is the trial with the fewest
    parameters whose mean is within one standard error of the best; the better one of equal size."""
    scored = [one for one in ranked if one.mean is not None]
    if not scored or settings.select == "best":
        return scored[: settings.keep]
    best = scored[0]
    assert best.mean is not None
    near = [one for one in scored if one.mean is not None and abs(one.mean - best.mean) <= best.standard_error]
    first = min(near, key=lambda one: (one.n_parameters, scored.index(one)))
    return [first, *(one for one in scored if one is not first)][: settings.keep]
