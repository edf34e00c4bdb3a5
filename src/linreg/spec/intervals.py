"""The `intervals` block of a spec, and the specs that it does not fit. `schema` uses it."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from linreg.spec.parts import Part, SplitSpec

N_FOLDS = 10


class IntervalsSpec(Part):
    """The rows whose errors calibrate `predict --interval`."""

    method: Literal["split", "cv_plus", "jackknife_plus"] = Field(
        description="split: those of `data.split.calibration_ratio`; cv_plus: the training part, in folds; "
        "jackknife_plus: the training part, each row left out by itself, with `solver: exact`"
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None, description=f"with cv_plus, the number of folds, each with a model; {N_FOLDS} by default"
    )

    @model_validator(mode="after")
    def _only_cv_plus_has_folds(self) -> Self:
        if self.folds is not None and self.method != "cv_plus":
            raise ValueError(f"folds is for cv_plus, not {self.method}; remove it")
        return self

    @property
    def n_folds(self) -> int:
        """The number of folds of cv_plus."""
        return self.folds or N_FOLDS


def misfit(
    intervals: IntervalsSpec | None, split: SplitSpec, *, solver: str, is_penalised: bool, is_sharded: bool
) -> str | None:
    """Describe the first thing that does not fit between the intervals and the other parts of a spec, or return
    None."""
    return next(_misfits(intervals, split, solver, is_penalised, is_sharded), None)


def _misfits(
    intervals: IntervalsSpec | None, split: SplitSpec, solver: str, is_penalised: bool, is_sharded: bool
) -> Iterator[str]:
    method, (rule, _) = None if intervals is None else intervals.method, split.rule
    if split.calibration_ratio and method != "split":
        yield "data.split.calibration_ratio needs intervals: {method: split}; add it, or remove calibration_ratio"
    if method == "split" and not split.calibration_ratio:
        yield "intervals: split needs rows that are used for nothing else; add data.split.calibration_ratio: 0.2"
    if method not in ("cv_plus", "jackknife_plus"):
        return
    if split.folds is not None:
        yield f"intervals: {method} leaves out rows of the training part itself; remove data.split.folds, or use split"
    if rule in ("time", "order"):
        yield f"intervals: {method} would train on later rows than it measures (by: {rule}); use split"
    if method == "cv_plus" and is_sharded:
        yield "intervals: cv_plus trains its folds in one process; remove data.shards, or use split"
    if method == "jackknife_plus":
        yield from _misfits_of_jackknife(rule, solver, is_penalised)


def _misfits_of_jackknife(rule: str, solver: str, is_penalised: bool) -> Iterator[str]:
    if solver != "exact":
        yield "intervals: jackknife_plus needs solver: exact; use cv_plus or split"
    if is_penalised:
        yield "intervals: jackknife_plus takes no penalty, which depends on each row; use cv_plus or split"
    if rule == "group":
        yield "intervals: jackknife_plus leaves out single rows, not groups; use cv_plus or split"
