"""Paired differences of results with the same seeds and folds: for the ranking of a sweep and `runs compare`."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

LEVEL = 0.95  # of the intervals of differences

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences. interval: by Student's t; None for one pair."""

    mean: float
    interval: tuple[float, float] | None


def score_of(line: Mapping[str, Any], metric: str) -> float | None:
    """Return the score of a line of results.jsonl: the loss of the model that is the result, or another metric."""
    value: float | None = line.get("result_loss" if metric == "val_loss" else metric)
    return value


def paired_difference(scores: Mapping[Key, float], others: Mapping[Key, float]) -> Difference | None:
    """Return the mean of `scores` minus `others` over the keys of both; None without such a key."""
    differences = np.array([scores[key] - others[key] for key in scores if key in others])
    if not len(differences):
        return None
    mean, interval = float(differences.mean()), None
    if len(differences) > 1:
        from scipy.special import stdtrit

        margin = float(stdtrit(len(differences) - 1, (1 + LEVEL) / 2) * differences.std(ddof=1))
        margin /= math.sqrt(len(differences))
        interval = (mean - margin, mean + margin)
    return Difference(mean, interval)
