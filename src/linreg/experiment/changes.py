"""What a resumed run may change: settings that are free, that are taken with a warning, that are refused."""

from dataclasses import dataclass
from typing import Any, Literal

from linreg.errors import UsageError
from linreg.spec.document import flatten
from linreg.spec.schema import ExperimentSpec

# The longest prefix of a key that stands here decides; what does not stand here is refused.
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
    "warned": "the run is no longer the one that was never interrupted",
    "refused": "the saved state is of another model or other data; train anew",
}


@dataclass(frozen=True)
class Change:
    """One setting that a resumed run has otherwise than the checkpoint."""

    key: str
    old: Any
    new: Any
    verdict: Literal["free", "warned", "refused"]
    why: str


def changes(old: ExperimentSpec, new: ExperimentSpec, *, planned_in_steps: bool, within_an_epoch: bool) -> list[Change]:
    """List the settings in which two specs differ, with what becomes of each.

    planned_in_steps: whether the scheduler moves at every step, along a plan of so many; within_an_epoch: whether the
    checkpoint stands between two batches of an epoch.
    """
    before, after = flatten(old.to_dict()), flatten(new.to_dict())
    found = []
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            verdict, why = _verdict(key, old, new, planned_in_steps, within_an_epoch)
            found.append(Change(key, before.get(key), after.get(key), verdict, why))
    return found


def refuse(found: list[Change]) -> None:
    """Raise a UsageError if any of the changes cannot be made."""
    refused = [change for change in found if change.verdict == "refused"]
    if refused:
        raise UsageError(
            *(f"{change.key}: {_show(change.old)} → {_show(change.new)}: {change.why}" for change in refused)
        )


def tabulate(found: list[Change]) -> str:
    """Lay the changes out as a table: the setting, what it was, what it is, what becomes of it."""
    rows = [
        (change.key, _show(change.old), _show(change.new), f"{change.verdict}; {change.why}".removesuffix("; "))
        for change in found
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
        return "refused", "the model began and the data was shuffled by it; train anew"
    if key.startswith("loss."):
        return "refused", "the losses before and after would not compare; train anew"
    if key.startswith("data.") and _RULES.get(key) != "free" and within_an_epoch:
        return "refused", "the checkpoint stands within an epoch; let that epoch finish first"
    if key == "optimizer.name":
        return "refused", "its state is of another optimizer; train anew"
    if key in _IN_THE_STATE or (key == "optimizer.momentum" and old.optimizer.name == "rmsprop"):
        return "refused", "the optimizer's saved state is not made for it; train anew"
    if key == "data.batch_size" and planned_in_steps:
        return "refused", "the scheduler was planned in steps of the old batches; train anew"
    if key == "optimizer.lr" and old.scheduler is not None:
        return "refused", f"the {old.scheduler.name} scheduler decides the learning rate; train anew"
    if key == "engine" and "compiled" in (old.engine, new.engine):
        return "warned", "compiled is near the bits of the other engines, and has not the same"
    if key == "epochs" and planned_in_steps:
        return "warned", "the scheduler was planned for the old epochs; then the learning rate stays at its last"
    if key.startswith("scheduler"):
        return "refused", "its state is of another schedule; train anew"
    prefixes = [prefix for prefix in _RULES if key == prefix or key.startswith(prefix + ".")]
    verdict = _RULES[max(prefixes, key=len)] if prefixes else "refused"
    return verdict, _WHY[verdict]


def _show(value: Any) -> str:
    return "none" if value is None else str(value)
