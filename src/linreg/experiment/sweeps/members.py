"""The members of a sweep: each is one training of a trial, with a seed and a fold, and is an ordinary spec."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from linreg.data.pipeline import Data
from linreg.data.preprocessing import Feature
from linreg.data.rows import Rows
from linreg.data.split import VAL, Parts
from linreg.experiment.building import Experiment, build
from linreg.experiment.compatibility import state_problems
from linreg.experiment.data import prepare_rows, read_rows
from linreg.experiment.gathering import Gathered
from linreg.experiment.measuring import Measured, measure, metrics_of
from linreg.experiment.network import count_parameters
from linreg.experiment.state import copy_of, plain_state
from linreg.spec.schema import ExperimentSpec
from linreg.spec.sweep_block import SweepSpec
from linreg.spec.sweeps import Trial, member_spec
from linreg.system import generators
from linreg.training.loops import EpochLosses, Patience

log = logging.getLogger("linreg")


@dataclass
class Member:
    """One training. records: the losses of its epochs; outcome: `running` until it ends, then `finished`,
    `early_stopped`, `halved`, `diverged` or `failed`; reason: of the last two; metrics: on the validation part, by
    name; how: `stack`, `alone` or `exact`; experiment: while it trains."""

    trial: int
    seed: int
    fold: int | None
    spec: ExperimentSpec
    records: list[EpochLosses] = field(default_factory=list)
    outcome: str = "running"
    reason: str | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    how: str = "alone"
    n_parameters: int = 0
    saved: dict[str, Any] | None = None  # the state to begin with
    known_loss: float | None = None  # of a result from an interrupted sweep
    experiment: Experiment | None = None
    patience: Patience | None = None
    best: EpochLosses | None = None
    best_state: dict[str, torch.Tensor] | None = None  # with early stopping
    keeps_predictions: bool = False
    predictions: list[Measured] = field(default_factory=list)  # on the validation part
    random_state: dict[str, Any] | None = None  # of the global generators, for a member that is trained alone

    @property
    def key(self) -> tuple[int, int, int | None]:
        """What identifies the member in its sweep."""
        return self.trial, self.seed, self.fold

    @property
    def is_trained(self) -> bool:
        """Whether the member has trained as far as it was to."""
        return self.outcome in ("finished", "early_stopped", "halved")

    @property
    def result(self) -> EpochLosses | None:
        """The losses of the epoch whose model is the result: the best one with early stopping, else the last."""
        if self.spec.early_stopping is not None:
            return self.best
        return self.records[-1] if self.records else None

    @property
    def result_loss(self) -> float | None:
        """The monitored loss of the result, if there is one."""
        return self.known_loss if self.result is None else self.result.monitored

    def add(self, losses: EpochLosses) -> None:
        """Take the losses of an epoch, at whose end the experiment is."""
        self.records.append(losses)
        assert self.experiment is not None
        if self.best is None or losses.monitored < self.best.monitored:
            self.best = losses
            if self.patience is not None:
                self.best_state = {key: value.clone() for key, value in self.experiment.state.items()}
        if self.experiment.schedule and self.experiment.schedule.after_epoch:
            self.experiment.schedule.after_epoch(losses.monitored)
        if self.patience is not None and self.patience.runs_out(losses.monitored):
            self.outcome = "early_stopped"
        elif len(self.records) >= self.spec.epochs:
            self.outcome = "finished"

    def end(self, outcome: str, reason: str | None = None) -> None:
        """End the training for another reason than its own."""
        self.outcome, self.reason = outcome, reason

    def release(self, shared: "SharedData") -> None:
        """Measure the result on the validation part, and drop the experiment."""
        experiment, self.experiment = self.experiment, None
        if experiment is None or not self.is_trained:
            return
        if self.best_state is not None:
            experiment.network.load_state_dict(self.best_state)
            self.best_state = None
        self.n_parameters = count_parameters(experiment.network)
        self.measure(experiment.model, shared.rows(self.spec), experiment.data.features, experiment.data.parts)

    def measure(self, model: nn.Module, rows: Rows, features: Sequence[Feature], parts: Parts) -> None:
        """Measure the result on the validation part, if there is one."""
        if parts.val is None:
            return
        measured = list(measure(model, rows, features, parts, part=VAL, dtype=self.spec.dtype))
        self.metrics = metrics_of(measured, len(rows.target_names)).summary()
        if self.keeps_predictions:
            self.predictions = measured

    def line(self) -> dict[str, Any]:
        """Return the result as plain values."""
        last, best = self.records[-1] if self.records else None, self.best
        return {
            "trial": self.trial,
            "seed": self.spec.seed,
            "fold": self.fold,
            "outcome": self.outcome,
            "epochs": len(self.records),
            "loss": _plain(last.loss if last else None),
            "val_loss": _plain(last.val_loss if last else None),
            "best_epoch": best.epoch if best else None,
            "best_loss": _plain(best.loss if best else None),
            "best_val_loss": _plain(best.val_loss if best else None),
            "result_loss": _plain(self.result_loss if self.is_trained else None),
            **{name: _plain(value) for name, value in self.metrics.items()},
            "n_parameters": self.n_parameters,
            "how": self.how,
            "reason": self.reason,
        }


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def members_of(trials: Sequence[Trial], settings: SweepSpec) -> list[Member]:
    """Return all members, those of a trial beside each other."""
    folds = [None] if settings.folds is None else range(settings.folds * settings.repeats)
    return [
        Member(trial.number, seed, fold, member_spec(trial.spec, settings, seed, fold))
        for trial in trials
        for seed in range(settings.seeds)
        for fold in folds
    ]


class SharedData:
    """Reads the rows of each source once, and prepares the data of each split and preprocessing once."""

    def __init__(self) -> None:
        self.gathered: dict[str, Gathered] = {}  # of members that are solved
        self._rows: dict[str, Rows] = {}
        self._data: dict[str, Data] = {}

    def rows(self, spec: ExperimentSpec) -> Rows:
        """Return the rows of a spec. Raises SpecError, DataError."""
        plain = spec.data.model_dump()
        kept = {key: plain[key] for key in ("source", "memory", "memory_limit", "standardize", "transforms")}
        files = {key: plain["split"][key] for key in ("val", "test")}
        key = _key(kept, files, plain["target_transform"], spec.dtype)
        if key not in self._rows:
            self._rows[key] = read_rows(spec)
        return self._rows[key]

    def prepared(self, spec: ExperimentSpec) -> Data:
        """Return the data of a spec. Raises SpecError, DataError."""
        plain = spec.data.model_dump()
        del plain["batch_size"], plain["shuffle"]
        key = _key(plain, spec.dtype, spec.model.params.get("bias"))
        if key not in self._data:
            self._data[key] = prepare_rows(spec, self.rows(spec))
        return self._data[key]


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, default=str)


def build_member(member: Member, shared: SharedData) -> None:
    """Build the experiment of a member, with its saved state if there is one. Raises SpecError, DataError."""
    _build(member, shared)
    if member.saved is not None:
        try:
            _restore(member, member.saved)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            log.warning("trial %d: its saved state does not fit; training it from its start", member.trial)
            _build(member, shared)
        member.saved = None


def _build(member: Member, shared: SharedData) -> None:
    begin(member, shared.prepared(member.spec))


def begin(member: Member, data: Data) -> None:
    """Build the experiment of a member on its data, at the beginning. Raises SpecError, DataError."""
    member.records, member.best, member.best_state = [], None, None
    member.experiment = build(member.spec, data=data, with_baseline=False)
    early = member.spec.early_stopping
    member.patience = Patience(early.patience, early.min_delta) if early else None
    member.random_state = generators.states(member.experiment.device)


def state_of(member: Member) -> dict[str, Any]:
    """Return the state of a member that trains, as plain values and tensors. A stack must be synchronized before."""
    experiment, seen = member.experiment, set[int]()
    assert experiment is not None
    schedule = experiment.schedule
    return {
        "key": [member.trial, member.seed, member.fold],
        "loss": [losses.loss for losses in member.records],
        "val_loss": [losses.val_loss for losses in member.records],
        "model": plain_state(experiment.network.state_dict(), seen),
        "optimizer": plain_state(experiment.optimizer.state_dict(), seen),
        "scheduler": plain_state(schedule.scheduler.state_dict(), seen) if schedule else None,
        "loader": experiment.loaders.generator.get_state(),
        "random": member.random_state if member.how == "alone" else None,
        "best_state": member.best_state,
    }


def _restore(member: Member, saved: dict[str, Any]) -> None:
    """Restore a state of `state_of`. Raises the errors of torch if it does not fit."""
    experiment = member.experiment
    assert experiment is not None
    if problems := state_problems(saved["optimizer"], saved["scheduler"], experiment):
        raise ValueError(problems[0])
    experiment.network.load_state_dict(saved["model"], strict=True)
    experiment.optimizer.load_state_dict(copy_of(saved["optimizer"]))
    if experiment.schedule is not None:
        experiment.schedule.scheduler.load_state_dict(copy_of(saved["scheduler"]))
    experiment.loaders.generator.set_state(saved["loader"])
    member.random_state = saved["random"] or member.random_state
    member.records = [
        EpochLosses(epoch, loss, val_loss)
        for epoch, (loss, val_loss) in enumerate(zip(saved["loss"], saved["val_loss"], strict=True))
    ]
    for losses in member.records:
        if member.best is None or losses.monitored < member.best.monitored:
            member.best = losses
        if member.patience is not None:
            member.patience.runs_out(losses.monitored)
    member.best_state = saved["best_state"]


def waiting(members: Iterable[Member]) -> Iterator[Member]:
    """Yield the members that have not ended."""
    return (member for member in members if member.outcome == "running")
