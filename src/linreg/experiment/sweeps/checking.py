"""A check of a sweep before it is trained: how many models, in which stacks, and about how long."""

import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass

from linreg.experiment.network import count_parameters
from linreg.experiment.solving import ENGINE
from linreg.experiment.sweeps.members import Member, SharedData, build_member, members_of
from linreg.experiment.sweeps.sweeping import first_trials, n_planned
from linreg.experiment.sweeps.training import group_key
from linreg.spec.sweeps import Sweep
from linreg.training.stacks import Stack, most_models


@dataclass(frozen=True)
class Cohort:
    """Models that are trained alike. how: `stack`, `alone` or `exact`; engine: of a model that is trained alone;
    seconds: an estimate for all of them, from one epoch; None for an exact solution."""

    how: str
    engine: str
    n_models: int
    n_parameters: int
    seconds: float | None


def check_sweep(spec: Sweep) -> dict[str, object]:
    """Build all models of a sweep, train an epoch of each cohort, and describe them. Writes nothing.

    Of trials that depend on results only the first are built; the others are taken to last as long as these. Raises
    the errors of `sweep`."""
    trials = first_trials(spec)
    n_trials = n_planned(spec.sweep, trials)
    members, shared = members_of(trials, spec.sweep), SharedData()
    groups: dict[Hashable, list[Member]] = {}
    for member in members:
        if member.spec.solver == "exact":
            groups.setdefault(ENGINE, []).append(member)
            continue
        build_member(member, shared)
        assert member.experiment is not None
        alone = (member.experiment.engine.name, str(member.experiment.network))
        groups.setdefault(group_key(member) or alone, []).append(member)
    cohorts = [_cohort(group) for group in groups.values()]
    seconds = [cohort.seconds for cohort in cohorts if cohort.seconds is not None]
    return {
        "n_trials": n_trials,
        "n_later_trials": n_trials - len(trials),
        "n_models": n_trials * spec.sweep.n_trainings,
        "seconds": round(sum(seconds) * n_trials / len(trials), 1),
        "cohorts": [asdict(cohort) for cohort in cohorts],
    }


def _cohort(group: list[Member]) -> Cohort:
    first = group[0].experiment
    if first is None:
        return Cohort(ENGINE, ENGINE, len(group), 0, None)
    n_parameters = count_parameters(first.network)
    is_stack = group_key(group[0]) is not None and len(group) > 1 and most_models(first.training) > 1
    if not is_stack:
        begin = time.perf_counter()
        first.engine.train_epoch()
        if first.engine.val_epoch is not None:
            first.engine.val_epoch()
        seconds = (time.perf_counter() - begin) * sum(member.spec.epochs for member in group)
        return Cohort("alone", first.engine.name, len(group), n_parameters, round(seconds, 1))
    some = group[: most_models(first.training)]
    stack = Stack([member.experiment.training for member in some if member.experiment is not None])
    begin = time.perf_counter()
    stack.train_epoch()
    if stack.has_val:
        stack.val_epoch()
    seconds = (time.perf_counter() - begin) * sum(member.spec.epochs for member in group) / len(some)
    return Cohort("stack", first.engine.name, len(group), n_parameters, round(seconds, 1))
