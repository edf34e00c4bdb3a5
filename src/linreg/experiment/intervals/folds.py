"""The models of cv_plus: each is trained as the run itself, on the training part without one fold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from linreg.data import pipeline
from linreg.data.preprocessing import Feature, to_dict
from linreg.data.rows import Rows
from linreg.data.split import Parts
from linreg.errors import DataError, DivergedError
from linreg.experiment.data import inner_folds, open_parts, recipe_of
from linreg.experiment.intervals.scores import scores_of
from linreg.experiment.solving import solve_exactly
from linreg.experiment.state import copy_of
from linreg.experiment.sweeps.members import Member, SharedData, begin
from linreg.experiment.sweeps.training import train_members
from linreg.spec.schema import ExperimentSpec


def solve_folds(spec: ExperimentSpec, rows: Rows, parts: Parts) -> list[dict[str, Any]]:
    """Solve a spec without each fold; return what a checkpoint keeps of each. Raises SpecError, DataError."""
    fitted = []
    for own in _parts_of_folds(spec, rows, parts):
        solved = solve_exactly(spec, rows=rows, parts=own)
        fitted.append(_fitted(solved.model, spec, rows, solved.features, own))
    return fitted


def train_folds(spec: ExperimentSpec, shared: SharedData, pause: Callable[[], None]) -> list[dict[str, Any]]:
    """Train a spec without each fold, in stacks where they fit together; return what a checkpoint keeps of each.

    The validation part is that of the run, so no fold is used to stop or to choose its epoch. pause: as in
    `train_members`. Raises DataError, and DivergedError if a fold diverges."""
    rows, parts = open_parts(spec, shared.rows(spec))
    members = []
    for number, own in enumerate(_parts_of_folds(spec, rows, parts)):
        member = _Fold(0, 0, number, spec)
        where = spec.where("data", "source")
        begin(member, pipeline.prepare(rows, own, recipe_of(spec), dtype=spec.dtype, where=where))
        members.append(member)
    for _ in train_members(members, shared, until=None, ended=_refuse_failed, pause=pause, save=lambda *_: None):
        pass
    return [member.fitted for member in members]


@dataclass
class _Fold(Member):
    """A training without a fold, whose rows are the calibration part of its data."""

    fitted: dict[str, Any] = field(default_factory=dict)

    def measure(self, model: nn.Module, rows: Rows, features: Sequence[Feature], parts: Parts) -> None:
        """Keep the model, and its errors on the fold."""
        self.fitted = _fitted(model, self.spec, rows, features, parts)


def _parts_of_folds(spec: ExperimentSpec, rows: Rows, parts: Parts) -> Iterator[Parts]:
    """Yield the parts without each fold, which is the calibration part."""
    assert spec.intervals is not None
    folds = inner_folds(spec, rows, parts, folds=spec.intervals.n_folds, where=spec.where("intervals"))
    for number in range(folds.n_folds):
        own = folds.parts(number)
        yield replace(parts, train=own.train, calibration=own.val)


def _fitted(
    model: nn.Module, spec: ExperimentSpec, rows: Rows, features: Sequence[Feature], parts: Parts
) -> dict[str, Any]:
    return {
        "model_state_dict": copy_of(dict(model.state_dict())),
        "preprocessing": to_dict(features, rows),
        "scores": scores_of(model, spec, rows, features, parts),
    }


def _refuse_failed(member: Member) -> None:
    if member.outcome in ("diverged", "failed"):
        error = DivergedError if member.outcome == "diverged" else DataError
        raise error(f"{member.spec.where('intervals')}: without fold {member.fold}: {member.reason}")
