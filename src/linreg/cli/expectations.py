"""`--expect "val_loss<0.02"`: conditions on a result, for CI jobs."""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linreg.errors import ExpectationError, UsageError, suggest

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_PATTERN = re.compile(r"\s*([\w.]+)\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*\Z")

OF_TRAINING = (
    "epochs",
    "loss",
    "val_loss",
    "best_epoch",
    "best_loss",
    "best_val_loss",
    "seconds",
    "exact_loss",
    "exact_val_loss",
)


@dataclass(frozen=True)
class Expectation:
    """One comparison of a named result with a number."""

    text: str
    name: str
    operator: str
    bound: float


def parse_expectations(texts: Sequence[str], names: Collection[str]) -> list[Expectation]:
    """Parse expectations. Raises UsageError with every problem."""
    expectations, problems = [], []
    for text in texts:
        match = _PATTERN.match(text)
        if match is None:
            problems.append(f"--expect {text!r}: not NAME<NUMBER; write for instance 'val_loss<0.02'")
        elif match[1] not in names:
            problems.append(f"--expect {text!r}: unknown result {match[1]!r}; {suggest(match[1], names)}")
        else:
            expectations.append(Expectation(text.strip(), match[1], match[2], float(match[3])))
    if problems:
        raise UsageError(*problems)
    return expectations


def check_expectations(expectations: Sequence[Expectation], results: Mapping[str, Any]) -> None:
    """Raise an ExpectationError with every expectation that the results do not meet."""
    unmet = []
    for expected in expectations:
        value = results[expected.name]
        if value is None:
            unmet.append(f"--expect {expected.text!r}: not met, the run has no {expected.name}")
        elif not _OPERATORS[expected.operator](value, expected.bound):
            unmet.append(f"--expect {expected.text!r}: not met, {expected.name} is {value:.6g}")
    if unmet:
        raise ExpectationError(*unmet)
