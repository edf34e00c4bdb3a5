"""The state of a run: how far it has come, what is saved of it and when, and how it is put back."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from linreg import generators
from linreg.checkpoint import Checkpoint, save
from linreg.errors import CheckpointError, DivergedError, SpecError
from linreg.experiment.building import Experiment, remedy
from linreg.experiment.fitting import check_model, check_training
from linreg.runs import Run, environment
from linreg.spec import ExperimentSpec, spec_from_dict
from linreg.writer import EpochRecord

log = logging.getLogger("linreg")

SECONDS_BETWEEN_SAVES = 1.0
SHARE_OF_SAVING = 1 / 30  # saving by the clock takes at most this share of the time


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
    schedule = experiment.schedule
    return {
        "model_state_dict": dict(experiment.model.state_dict()),
        "optimizer_state_dict": experiment.optimizer.state_dict(),
        "scheduler_state_dict": schedule.scheduler.state_dict() if schedule else None,
        "loader_state": progress.loader_state,
        **(progress.generators or generators.states(experiment.device)),
    }


def restore(experiment: Experiment, saved: Checkpoint) -> Progress:
    """Put an experiment that was just built into the state of a checkpoint. Raises CheckpointError if the two do
    not fit."""
    check_training(saved, experiment)
    try:
        experiment.model.load_state_dict(saved.model_state_dict, strict=True)
        experiment.model.train()  # always use TRAIN for resuming training
        experiment.optimizer.load_state_dict(_copy(saved.optimizer_state_dict))
        if experiment.schedule is not None and saved.scheduler_state_dict is not None:
            experiment.schedule.scheduler.load_state_dict(_copy(saved.scheduler_state_dict))
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
    current = _copy(states(experiment, progress))
    return {
        "epoch": record.epoch,
        "loss": record.loss,
        "val_loss": record.val_loss,
        "spec": experiment.spec.to_dict(),
        "states": current,
    }


def _copy(value: Any) -> Any:
    """Copy a state: the tensors too, which training would go on changing."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


class Saver:
    """Knows when a checkpoint is due, and writes it: best.pth, the numbered ones, last.pth."""

    def __init__(self, experiment: Experiment, progress: Progress, run: Run) -> None:
        self.experiment, self.progress, self.run = experiment, progress, run
        self.spec = experiment.spec.checkpoint
        self.due_at = time.monotonic() + SECONDS_BETWEEN_SAVES
        self.saved_best: int | None = None

    def is_due_by_count(self) -> bool:
        """Whether the end of this epoch is one to save at."""
        return self.spec.every is not None and len(self.progress.records) % self.spec.every == 0

    def is_due_by_clock(self) -> bool:
        """Whether enough time has gone by, where the spec does not count epochs."""
        return self.spec.every is None and time.monotonic() >= self.due_at

    def save(self) -> None:
        """Write what there is to write. A model, or a loss, that is not finite is a DivergedError, not saved."""
        begin = time.monotonic()
        progress, folder = self.progress, self.run.checkpoints
        current = states(self.experiment, progress)
        for name, tensor in self.experiment.network.state_dict().items():
            if not torch.isfinite(tensor).all():
                epoch = len(progress.records)
                raise DivergedError(f"epoch {epoch}: {name} is no longer finite; {remedy(self.experiment)}")
        if not all(map(math.isfinite, progress.position)):
            raise DivergedError(f"epoch {len(progress.records)}: the loss is not finite; {remedy(self.experiment)}")
        best = progress.best
        if self.spec.best and best is not None and best["epoch"] != self.saved_best:
            self.saved_best = best["epoch"]
            save(folder / "best.pth", self._checkpoint(best["states"], best["epoch"] + 1, [], "running", best["spec"]))
        done = len(progress.records)
        checkpoint = self._checkpoint(
            current, done, progress.position, progress.outcome, self.experiment.spec.to_dict()
        )
        if self.spec.keep and self.spec.every and done % self.spec.every == 0 and not progress.position:
            save(folder / f"epoch_{done:06}.pth", checkpoint)
        save(folder / "last.pth", checkpoint)
        self.run.publish()
        if self.spec.keep:
            for old in sorted(folder.glob("epoch_*.pth"))[: -self.spec.keep]:
                old.unlink()
        cost = time.monotonic() - begin
        self.due_at = time.monotonic() + max(SECONDS_BETWEEN_SAVES, cost / SHARE_OF_SAVING)

    def _checkpoint(
        self, current: dict[str, Any], epochs: int, position: list[float], outcome: str, spec: dict[str, Any]
    ) -> Checkpoint:
        experiment, progress = self.experiment, self.progress
        records = progress.records[:epochs]
        return Checkpoint(
            **current,
            epoch=epochs,
            loss=[record.loss for record in records],
            val_loss=[record.val_loss for record in records],
            lr=[record.lr for record in records],
            spec=spec,
            planned_epochs=progress.planned_epochs,
            preprocessing=experiment.data.described,
            n_features=len(experiment.feature_names),
            n_targets=len(experiment.target_names),
            feature_names=experiment.feature_names,
            target_names=experiment.target_names,
            position=position,
            best=progress.best,
            fit=experiment.baseline.fit if experiment.baseline else None,
            resumed_at=[epoch for epoch in progress.resumed_at if epoch <= epochs],
            outcome=outcome,
            run={"name": self.run.name, "id": self.run.info["id"]},
            data_fingerprint=experiment.data.fingerprint,
            environment=environment(experiment.device),
        )
