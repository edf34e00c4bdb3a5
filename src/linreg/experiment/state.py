"""The state of a run: how far it has come, and how that is kept and put back."""

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
    """How far a run has come. position: the losses of the batches of the next epoch that are done; loader_state:
    the state of the loaders' generator as that epoch began; generators: those of the global ones as the validation that
    is under way began, which is done anew on resume."""

    loader_state: torch.Tensor
    planned_epochs: int
    records: list[EpochRecord] = field(default_factory=list)
    position: list[float] = field(default_factory=list)
    generators: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    resumed_at: list[int] = field(default_factory=list)
    outcome: str = "running"


def saved_spec(saved: Checkpoint, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Check the spec in a checkpoint by the rules of any other, and that it builds the model whose state is there.
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
    """Collect the states that training moves, as the model, optimizer, scheduler and generators now hold them."""
    schedule, met = experiment.schedule, set[int]()
    return {
        "model_state_dict": _plain(experiment.model.state_dict(), met),
        "optimizer_state_dict": _plain(experiment.optimizer.state_dict(), met),
        "scheduler_state_dict": _plain(schedule.scheduler.state_dict(), met) if schedule else None,
        "loader_state": progress.loader_state,
        **(progress.generators or generators.states(experiment.device)),
    }


def _plain(value: Any, met: set[int]) -> Any:
    """Give a state in the types that a checkpoint has, where there is one: mappings as dictionaries, NumPy's floats as
    Python's. met: the ids of the tensors so far; one that occurs again is given as a copy."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        again = id(value) in met
        met.add(id(value))
        return value.detach().clone() if again else value
    match value:
        case Mapping():
            return {key: _plain(item, met) for key, item in value.items()}
        case list():
            return [_plain(item, met) for item in value]
        case tuple():
            return tuple(_plain(item, met) for item in value)
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str(value)
    return value


def restore(experiment: Experiment, saved: Checkpoint) -> Progress:
    """Put an experiment that was just built into the state of a checkpoint. Raises CheckpointError if the two do
    not fit."""
    check_training(saved, experiment)
    try:
        experiment.model.load_state_dict(saved.model_state_dict, strict=True)
        experiment.model.train()  # always use TRAIN for resuming training
        experiment.optimizer.load_state_dict(copy_of(saved.optimizer_state_dict))
        if experiment.schedule is not None and saved.scheduler_state_dict is not None:
            experiment.schedule.scheduler.load_state_dict(copy_of(saved.scheduler_state_dict))
        experiment.loaders.generator.set_state(saved.loader_state)
        generators.set_states(vars(saved), experiment.device)
    except (RuntimeError, ValueError, KeyError, TypeError):  # of torch, whose texts are for those who write programs
        raise CheckpointError(
            f"{saved.path}: does not fit what its spec builds: a state is not taken; use another checkpoint"
        ) from None
    then, here = saved.environment, environment(experiment.device)
    for key in here:
        if then.get(key) != here[key]:
            log.warning("%s was %s and is %s: the last bits may differ", key, then.get(key), here[key])
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
    """Keep the states as the last epoch left them, for best.pth."""
    record = progress.records[-1]
    return {
        "epoch": record.epoch,
        "loss": record.loss,
        "val_loss": record.val_loss,
        "spec": experiment.spec.to_dict(),
        "states": copy_of(states(experiment, progress)),
    }


def copy_of(value: Any) -> Any:
    """Copy a state: the tensors too, which training would go on changing."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copy_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_of(item) for item in value)
    return value
