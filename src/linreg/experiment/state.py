"""The state of a run: its progress, and how it is saved and restored."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from linreg.checkpoint import Checkpoint
from linreg.errors import CheckpointError, SpecError
from linreg.experiment.building import Experiment
from linreg.experiment.compatibility import check_model, check_training
from linreg.runs.sessions import environment
from linreg.runs.writer import EpochRecord
from linreg.spec.schema import ExperimentSpec, spec_from_dict
from linreg.system import generators

log = logging.getLogger("linreg")


@dataclass
class Progress:
    """The progress of a run. position: the losses of the finished batches of the next epoch; loader_state: the state of
    the loaders' generator at the start of that epoch; generators: the states of the global ones at the start of a
    validation, which a resumed run repeats."""

    loader_state: torch.Tensor
    planned_epochs: int
    records: list[EpochRecord] = field(default_factory=list)
    position: list[float] = field(default_factory=list)
    generators: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    resumed_at: list[int] = field(default_factory=list)
    outcome: str = "running"


def saved_spec(saved: Checkpoint, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Return the spec of a checkpoint, after checking it and the state of its model.

    Raises CheckpointError, and SpecError for a wrong override."""
    try:
        spec = spec_from_dict(saved.spec, str(saved.path))
    except SpecError as error:
        hint = "; if a plugin registers it, add --plugin FILE.py"
        problems = [
            problem + hint * (".name: unknown" in problem and "--plugin" not in problem) for problem in error.problems
        ]
        raise CheckpointError("\n".join(problems)) from None
    check_model(saved, spec)
    return spec_from_dict(saved.spec, str(saved.path), overrides) if overrides else spec


def states(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """Return the current states of model, optimizer, scheduler and generators."""
    schedule, seen = experiment.schedule, set[int]()
    return {
        "model_state_dict": plain_state(experiment.model.state_dict(), seen),
        "optimizer_state_dict": plain_state(experiment.optimizer.state_dict(), seen),
        "scheduler_state_dict": plain_state(schedule.scheduler.state_dict(), seen) if schedule else None,
        "loader_state": progress.loader_state,
        **(progress.generators or generators.states(experiment.device)),
    }


def plain_state(value: Any, seen: set[int]) -> Any:
    """Return a state in the types of a checkpoint: mappings as dictionaries, NumPy's floats as Python's.

    seen: the ids of the tensors so far. A tensor that occurs again is copied."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        again = id(value) in seen
        seen.add(id(value))
        return value.detach().clone() if again else value
    match value:
        case Mapping():
            return {key: plain_state(item, seen) for key, item in value.items()}
        case list():
            return [plain_state(item, seen) for item in value]
        case tuple():
            return tuple(plain_state(item, seen) for item in value)
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str(value)
    return value


def restore(experiment: Experiment, saved: Checkpoint) -> Progress:
    """Restore the state of a checkpoint in an experiment that was just built. Raises CheckpointError if they differ."""
    check_training(saved, experiment)
    try:
        experiment.model.load_state_dict(saved.model_state_dict, strict=True)
        experiment.model.train()  # always use TRAIN for resuming training
        experiment.optimizer.load_state_dict(copy_of(saved.optimizer_state_dict))
        if experiment.schedule is not None and saved.scheduler_state_dict is not None:
            experiment.schedule.scheduler.load_state_dict(copy_of(saved.scheduler_state_dict))
        experiment.loaders.generator.set_state(saved.loader_state)
        generators.set_states(vars(saved), experiment.device)
    except (RuntimeError, ValueError, KeyError, TypeError):  # torch's texts are for programmers
        raise CheckpointError(
            f"{saved.path}: does not fit what its spec builds: torch cannot load a state; use another checkpoint"
        ) from None
    before, now = saved.environment, environment(experiment.device)
    for key in now:
        if before.get(key) != now[key]:
            log.warning("%s was %s and is %s: the last bits may differ", key, before.get(key), now[key])
    records = zip(range(saved.epoch), saved.loss, saved.val_loss, saved.lr, strict=True)
    return Progress(
        loader_state=saved.loader_state,
        records=[EpochRecord(*record) for record in records],
        position=list(saved.position),
        best=saved.best,
        resumed_at=[*saved.resumed_at, saved.epoch],
        planned_epochs=saved.planned_epochs,
    )


def snapshot(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """Return a copy of the states at the end of the last epoch, for best.pth."""
    record = progress.records[-1]
    return {
        "epoch": record.epoch,
        "loss": record.loss,
        "val_loss": record.val_loss,
        "spec": experiment.spec.to_dict(),
        "states": copy_of(states(experiment, progress)),
    }


def copy_of(value: Any) -> Any:
    """Copy a state with its tensors, which training changes."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copy_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_of(item) for item in value)
    return value
