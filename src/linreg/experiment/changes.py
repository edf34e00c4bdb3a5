"""The settings that a resumed run may change: free, with a warning, or not at all."""

from dataclasses import dataclass
from typing import Any, Literal

from linreg.errors import UsageError
from linreg.spec.document import flatten
from linreg.spec.schema import ExperimentSpec

# The longest prefix of a key decides. A key without a prefix in this table is refused.
_RULES: dict[str, Literal["free", "warned"]] = {
    "name": "free",
    "device": "free",
    "engine": "free",
    "epochs": "free",
    "early_stopping": "free",
    "checkpoint": "free",
    "writer": "free",
    "baseline": "free",
    "data.memory": "free",
    "data.memory_limit": "free",
    "clip_grad_norm": "warned",
    "data.batch_size": "warned",
    "data.shuffle": "warned",
    "optimizer": "warned",
}
_IN_THE_STATE = ("optimizer.amsgrad", "optimizer.centered", "optimizer.initial_accumulator_value")
_WHY = {
    "free": "",
    "warned": "the result differs from that of an uninterrupted run",
    "refused": "the saved state belongs to another model or other data; train again",
}


@dataclass(frozen=True)
class Change:
    """A setting that differs between a checkpoint and the resumed run."""

    key: str
    old: Any
    new: Any
    verdict: Literal["free", "warned", "refused"]
    why: str


def changes(old: ExperimentSpec, new: ExperimentSpec, *, planned_in_steps: bool, within_an_epoch: bool) -> list[Change]:
    """Return the settings that differ between two specs, each with a verdict.

    planned_in_steps: whether the scheduler moves at every step, with a planned number of steps; within_an_epoch:
    whether the checkpoint is between two batches of an epoch.
    """
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    differing = []
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            verdict, why = _verdict(key, old, new, planned_in_steps, within_an_epoch)
            differing.append(Change(key, before.get(key), after.get(key), verdict, why))
    return differing


def refuse(differing: list[Change]) -> None:
    """Raise a UsageError if a change is refused."""
    refused = [change for change in differing if change.verdict == "refused"]
    if refused:
        raise UsageError(
            *(f"{change.key}: {_show(change.old)} → {_show(change.new)}: {change.why}" for change in refused)
        )


def tabulate(differing: list[Change]) -> str:
    """Format the changes as a table: the setting, its old and new value, and the verdict."""
    rows = [
        (change.key, _show(change.old), _show(change.new), f"{change.verdict}; {change.why}".removesuffix("; "))
        for change in differing
    ]
    rows = [("setting", "was", "is", ""), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _verdict(
    key: str, old: ExperimentSpec, new: ExperimentSpec, planned_in_steps: bool, within_an_epoch: bool
) -> tuple[Literal["free", "warned", "refused"], str]:
    if key == "seed":
        return "refused", "initial weights and shuffling depend on it; train again"
    if key.startswith("loss."):
        return "refused", "losses before and after would not be comparable; train again"
    if key.startswith("data.") and _RULES.get(key) != "free" and within_an_epoch:
        return "refused", "the checkpoint is within an epoch; finish that epoch first"
    if key == "optimizer.name":
        return "refused", "the saved state belongs to another optimizer; train again"
    if key in _IN_THE_STATE or (key == "optimizer.momentum" and old.optimizer.name == "rmsprop"):
        return "refused", "it does not fit the saved state of the optimizer; train again"
    if key == "data.batch_size" and planned_in_steps:
        return "refused", "the scheduler was planned in steps of the old batches; train again"
    if key == "optimizer.lr" and old.scheduler is not None:
        return "refused", f"the {old.scheduler.name} scheduler sets the learning rate; train again"
    if key == "engine" and "compiled" in (old.engine, new.engine):
        return "warned", "compiled is close to the other engines, but not equal to the last bit"
    if key == "epochs" and planned_in_steps:
        return "warned", "the scheduler was planned for the old epochs; after them the learning rate stays constant"
    if key.startswith("scheduler"):
        return "refused", "the saved state belongs to another scheduler; train again"
    prefixes = [prefix for prefix in _RULES if key == prefix or key.startswith(prefix + ".")]
    verdict = _RULES[max(prefixes, key=len)] if prefixes else "refused"
    return verdict, _WHY[verdict]


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
