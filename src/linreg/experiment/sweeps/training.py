"""Trains the members of a sweep: in stacks where they fit together, else one after another."""

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
from numpy.typing import NDArray

from linreg.errors import DivergedError, LinregError
from linreg.experiment.divergence import overflow_is_divergence, refuse_epoch, remedy
from linreg.experiment.network import count_parameters
from linreg.experiment.solving import solve_exactly
from linreg.experiment.sweeps.members import Member, SharedData, build_member, waiting
from linreg.runs.writer import EpochRecord
from linreg.system import generators
from linreg.training.loops import SECONDS_A_CHUNK, EpochLosses, fit_in_groups
from linreg.training.stacks import Stack, Unequal, most_models, signature

log = logging.getLogger("linreg")

SHARE_OF_A_STACK = 0.75  # that still trains; below it the stack is made anew without those that have left

Pause = Callable[[], None]
Ended = Callable[[Member], None]
Save = Callable[[Callable[[], None], int], None]
AtWork = Callable[[], AbstractContextManager[None]]


def train_members(
    members: Sequence[Member],
    shared: SharedData,
    *,
    until: int | None,
    ended: Ended,
    pause: Pause,
    save: Save,
    at_work: AtWork = nullcontext,
) -> Iterator[tuple[int, set[str]]]:
    """Train members to their ends, or for `until` epochs in all. Yield for each stack its size and the names of the
    operations that were computed for one model after another; a size of 1 for a member that was trained alone.

    ended: called with each member that has ended, after which its experiment is released. pause: called about every
    twentieth of a second. save: called between epochs with a function that brings the experiments up to date, which
    must be called before they are saved, and with the number of epochs that are done. at_work: returns a context for
    work between two pauses that may take long. Without `until` a stack is built
    when enough members for it are found, and released after.
    """
    groups: dict[Hashable, list[Member]] = {}
    due_at = time.monotonic()
    for member in waiting(members):
        if time.monotonic() >= due_at:  # to build or solve many takes long
            pause()
            due_at = time.monotonic() + SECONDS_A_CHUNK
        if member.spec.solver == "exact":
            with at_work():
                _solve(member, shared, ended)
            continue
        if member.experiment is None:
            with at_work():
                is_built = _built(member, shared, ended)
            if not is_built:
                continue
        assert member.experiment is not None
        if until is not None and len(member.records) >= until:  # its saved state is of a later round
            continue
        training, key = member.experiment.training, group_key(member)
        if key is None:
            yield from _train([member], shared, until, ended, pause, save)
            continue
        group = groups.setdefault(key, [])
        group.append(member)
        if len(group) >= most_models(training):
            yield from _train(groups.pop(key), shared, until, ended, pause, save)
    for group in groups.values():
        yield from _train(group, shared, until, ended, pause, save)


def group_key(member: Member) -> Hashable | None:
    """Return what the members of a stack share; None for a member that is trained alone."""
    assert member.experiment is not None
    is_stackable = member.spec.engine == "auto" and member.spec.data.shards is None
    key = signature(member.experiment.training) if is_stackable else None
    return None if key is None else (key, member.spec.epochs, len(member.records))


def _built(member: Member, shared: SharedData, ended: Ended) -> bool:
    """Build a member. Return whether that worked; else it has failed, or diverged."""
    try:
        build_member(member, shared)
    except LinregError as error:
        member.end("diverged" if isinstance(error, DivergedError) else "failed", str(error))
        ended(member)
        return False
    return True


def _solve(member: Member, shared: SharedData, ended: Ended) -> None:
    """Solve a member with `solver: exact`."""
    member.how = "exact"
    try:
        solved = solve_exactly(member.spec, rows=shared.rows(member.spec), before=shared.gathered)
    except LinregError as error:
        member.end("failed", str(error))
    else:
        member.records = [EpochLosses(0, solved.exact.loss, solved.exact.val_loss)]
        member.best = member.records[0]
        member.n_parameters = count_parameters(solved.network)
        member.measure(solved.model, solved.rows, solved.features, solved.parts)
        member.end("finished")
    ended(member)


def _train(
    group: list[Member], shared: SharedData, until: int | None, ended: Ended, pause: Pause, save: Save
) -> Iterator[tuple[int, set[str]]]:
    """Train the members of a group, in a stack if there are several."""

    def end(member: Member) -> None:
        member.release(shared)
        ended(member)

    looped: set[str] = set()
    if len(group) > 1:
        try:
            _train_stack(group, until, end, pause, save, looped)
        except Unequal:
            log.info("no way to train %d models as one stack has the bits of single runs", len(group))
    for member in waiting(group):
        if until is None or len(member.records) < until:
            _train_alone(member, until, pause, save)
        if member.outcome != "running":
            end(member)
    yield len(group), looped


def _train_stack(
    group: Iterable[Member], until: int | None, end: Ended, pause: Pause, save: Save, looped: set[str]
) -> None:
    """Train members as one stack. Those that end leave it."""
    left = list(group)
    while left:
        members = left
        stack = Stack([member.experiment.training for member in members if member.experiment is not None])
        looped |= stack.looped
        for member in members:
            member.how = "stack"
            if member.experiment is not None:
                member.experiment.forget_state()
        while len(left) > SHARE_OF_A_STACK * len(members) or len(left) == len(members):
            _train_epoch(stack, members, end, pause)
            left = [member for member in members if member.outcome == "running"]
            if not left or (until is not None and len(left[0].records) >= until):
                stack.synchronize()
                return
            save(stack.synchronize, len(left[0].records))
        stack.synchronize()


def _train_epoch(stack: Stack, members: Sequence[Member], end: Ended, pause: Pause) -> None:
    """Train a stack for an epoch, and give its losses to the members that have not ended."""
    train_losses = stack.train_epoch(pause)
    are_finite = stack.are_finite()
    val_losses = stack.val_epoch(pause) if stack.has_val else None
    means, val_means = _means(train_losses), None if val_losses is None else _means(val_losses)
    for number, member in enumerate(members):
        if member.outcome != "running":
            continue
        val_loss = None if val_means is None else val_means[number]
        losses = EpochLosses(len(member.records), means[number], val_loss)
        reason = _divergence(member, losses, train_losses[number], bool(are_finite[number]))
        if reason is None:
            member.add(losses)
        else:
            member.end("diverged", reason)
        if member.outcome != "running":
            end(member)


def _means(losses: NDArray[np.float64]) -> list[float]:
    """Return the mean of each row (n_models, n_batches), bit for bit as `mean_of`."""
    means: list[float] = (np.add.reduce(losses, axis=1) / losses.shape[1]).tolist()
    return means


def _divergence(
    member: Member, losses: EpochLosses, mini_batch_losses: NDArray[np.float64], is_finite: bool
) -> str | None:
    """Return why an epoch of a stack is a divergence, in the words of a single run; None if it is not."""
    assert member.experiment is not None
    if math.isfinite(losses.loss) and is_finite and (losses.val_loss is None or math.isfinite(losses.val_loss)):
        return None
    record = EpochRecord(losses.epoch, losses.loss, losses.val_loss, 0.0)
    try:
        refuse_epoch(member.experiment, mini_batch_losses.tolist(), record)
    except DivergedError as error:
        return str(error)
    return f"epoch {losses.epoch}: the mean loss is {losses.loss}; {remedy(member.experiment)}"


def _train_alone(member: Member, until: int | None, pause: Pause, save: Save) -> None:
    """Train a member by its own engine, as `session.run_session` does."""
    experiment = member.experiment
    assert experiment is not None
    if member.random_state is not None:
        generators.set_states(member.random_state, experiment.device)
    try:
        _run_epochs(member, min(member.spec.epochs, until or member.spec.epochs), pause, save)
    except DivergedError as error:
        member.end("diverged", str(error))
    except LinregError as error:
        member.end("failed", str(error))
    except RuntimeError as error:  # of a component of a plugin, or of torch
        member.end("failed", f"epoch {len(member.records)}: {str(error).partition(chr(10))[0]}")
    _keep_random_state(member)


def _keep_random_state(member: Member) -> None:
    if member.experiment is not None:
        member.random_state = generators.states(member.experiment.device)


def _run_epochs(member: Member, n_epochs: int, pause: Pause, save: Save) -> None:
    experiment = member.experiment
    assert experiment is not None
    engine, position = experiment.engine, list[float]()

    def train_epoch() -> float:
        position.clear()
        with overflow_is_divergence(experiment, f"epoch {len(member.records)}"):
            return engine.train_epoch(mini_batch_losses=position, pause=pause)

    val = engine.val_epoch
    groups = fit_in_groups(
        train_epoch,
        None if val is None else lambda: val(pause=pause),
        engine.group,
        range(len(member.records), n_epochs),
        lowest=lambda: member.best.monitored if member.best else math.inf,
        most=lambda: 1 if experiment.schedule else member.patience.left if member.patience else n_epochs,
    )
    for group in groups:
        for losses in group.epochs:
            if losses is group.epochs[-1]:
                record = EpochRecord(losses.epoch, losses.loss, losses.val_loss, 0.0)
                refuse_epoch(experiment, group.mini_batch_losses or position, record)
            if losses.epoch == group.best:
                with group.at_best():
                    member.add(losses)
            else:
                member.add(losses)
            if member.outcome != "running":
                return
        save(partial(_keep_random_state, member), len(member.records))
        pause()
