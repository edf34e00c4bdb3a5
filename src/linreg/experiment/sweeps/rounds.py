"""Trains all members of a sweep, in one round or by successive halving, and writes each result when it is known.

Members of trials that are drawn later are added, and then trained as the first ones.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linreg.checkpoint import save_states
from linreg.errors import SpecError, brief
from linreg.experiment.saving import SECONDS_BETWEEN_SAVES, SHARE_OF_SAVING
from linreg.experiment.stopping import StopRequested
from linreg.experiment.sweeps.members import Member, SharedData, state_of, waiting
from linreg.experiment.sweeps.records import Results
from linreg.experiment.sweeps.training import train_members
from linreg.spec.sweep_block import HalvingSpec, SweepSpec
from linreg.spec.sweeps import Trial
from linreg.training.shards import Exchange

log = logging.getLogger("linreg")

MOST_FAILURES = 3  # in a row, before any success
MOST_LOGGED = 20  # trials that diverged or failed
BAD = ("diverged", "failed")  # outcomes

Progress = Callable[[int, int, str], None]  # of the members that have ended, all members, and what else is known


class Rounds:
    """The rounds of a sweep. n_models: the number of all members, of which some may be added later; path: of the file
    with the states; stacks: what was trained together, for run.json; keep: called with members before their results are
    written; exchange: with the other processes that share the sweep, if this one has some of the members only."""

    def __init__(
        self,
        members: Sequence[Member],
        trials: Sequence[Trial],
        results: Results,
        shared: SharedData,
        *,
        n_models: int,
        path: Path,
        progress: Progress | None,
        stop: Callable[[], bool],
        keep: Callable[[Sequence[Member]], None] = lambda members: None,
        exchange: Exchange | None = None,
    ) -> None:
        self.members, self.trials, self.results = list(members), list(trials), results
        self.n_models = n_models
        self.shared, self.progress, self.stop, self.keep = shared, progress, stop, keep
        self.exchange = exchange or Exchange()
        self.path, self._due_at = path, time.monotonic() + SECONDS_BETWEEN_SAVES
        self.stacks: list[dict[str, Any]] = []
        self._unwritten: list[Member] = []
        self._n_ended = sum(member.outcome != "running" for member in members)
        self._n_bad, self._lowest = 0, math.inf

    def add(self, members: Sequence[Member], trials: Sequence[Trial]) -> None:
        """Add trials, numbered after the others, and their members."""
        self.members += members
        self.trials += trials

    def take(self, lines: Sequence[Mapping[str, Any]], stacks: Sequence[dict[str, Any]]) -> None:
        """Take the results of another process, and what it has trained together. Raises StorageError."""
        self.results.add(lines)
        self.stacks += stacks
        for line in lines:
            if line["outcome"] in BAD:
                self._warn(line["trial"], line["fold"], line["outcome"], line["reason"])

    def train(self, settings: SweepSpec) -> None:
        """Train all members that have not ended. Raises StopRequested, StorageError, and SpecError if the first trials
        fail."""
        if settings.halving is None:
            self._round(self.members, until=None)
            return
        longest = max(trial.spec.epochs for trial in self.trials)
        n_left = len(self.trials)
        for n_epochs in _ends(settings.halving, longest):
            self._round(self.members, until=n_epochs)
            n_left = math.ceil(n_left / settings.halving.factor)
            self._halve(n_left)
            # until all have written who left: a state of a later round may be saved only then
            self.exchange.all_of(None)
        self._round(self.members, until=None)

    def _round(self, members: Sequence[Member], *, until: int | None) -> None:
        try:
            hooks: Any = {
                "ended": self._end,
                "pause": self._pause,
                "save": self._save,
                "at_work": self.exchange.at_work,
            }
            for size, looped in train_members(members, self.shared, until=until, **hooks):
                self.stacks.append({"models": size, "one_by_one": sorted(looped)})
                self._pause()
        finally:
            self._write()

    def _halve(self, n_left: int) -> None:
        """End all but the best trials. A trial of which a training has diverged or failed ends, too."""
        losses = [one for of_process in self.exchange.all_of(self._losses()) for one in of_process]
        out = {number for loss, number in sorted(losses)[n_left:]} | {n for loss, n in losses if loss == math.inf}
        for member in waiting(self.members):
            if member.trial in out:
                member.end("halved")
                member.release(self.shared)
                self._end(member)
        self._write()

    def _losses(self) -> list[tuple[float, int]]:
        """Return the mean loss and the number of each trial that trains; an infinite loss if a training of it has
        diverged or failed."""
        losses = []
        for trial in self.trials:
            own = [member for member in self.members if member.trial == trial.number]
            if any(member.outcome == "running" for member in own):
                is_whole = not any(member.outcome in ("diverged", "failed", "halved") for member in own)
                values = [member.result_loss for member in own if member.result_loss is not None]
                losses.append((float(np.mean(values)) if is_whole and values else math.inf, trial.number))
        return losses

    def _end(self, member: Member) -> None:
        """Take a member that has ended."""
        self._unwritten.append(member)
        self._n_ended += 1
        if member.outcome in BAD:
            self._warn(member.trial, member.fold, member.outcome, member.reason)
            is_whole = self.exchange.size == 1  # another process may have trials that do not fail
            if is_whole and member.outcome == "failed" and self._n_bad == MOST_FAILURES == self._n_ended:
                raise SpecError([f"trial {member.trial}: {member.reason}; the first {MOST_FAILURES} trials failed"])
        if member.is_trained and member.result_loss is not None:
            self._lowest = min(self._lowest, member.result_loss)
        self._report(len(member.records))

    def _warn(self, trial: int, fold: int | None, outcome: str, reason: str | None) -> None:
        """Log a warning of a training that has diverged or failed, unless there were many."""
        self._n_bad += 1
        if self._n_bad <= MOST_LOGGED:
            values = [f"{key}={brief(value)}" for key, value in self.trials[trial].parameters.items()]
            values += [] if fold is None else [f"fold {fold}"]
            log.warning("trial %d (%s): %s: %s", trial, ", ".join(values), outcome, (reason or "").partition(";")[0])

    def _report(self, n_epochs: int) -> None:
        if self.progress:
            lowest = f"  lowest loss {self._lowest:.6g}" if math.isfinite(self._lowest) else ""
            self.progress(self._n_ended, self.n_models, f"epoch {n_epochs}{lowest}")

    def _pause(self) -> None:
        self._write()
        if self.stop():
            raise StopRequested

    def _save(self, synchronize: Callable[[], None], n_epochs: int) -> None:
        """Save the states of all members that train, if enough time has passed since the last time."""
        self._report(n_epochs)
        begin = time.monotonic()
        if begin < self._due_at:
            return
        self._write()
        synchronize()
        self.save_states()
        now = time.monotonic()
        self._due_at = now + max(SECONDS_BETWEEN_SAVES, (now - begin) / SHARE_OF_SAVING)

    def save_states(self) -> None:
        """Save the states of all members that train, and of those that an interrupted sweep has begun and that wait for
        their turn. Raises StorageError."""
        states = [state_of(one) if one.experiment else one.saved for one in waiting(self.members)]
        save_states(self.path, [state for state in states if state is not None])

    def _write(self) -> None:
        """Write the results that are known."""
        if self._unwritten:
            self.keep(self._unwritten)
            self.results.add([member.line() for member in self._unwritten])
            self._unwritten.clear()


def _ends(halving: HalvingSpec, longest: int) -> list[int]:
    """Return the epochs after which trials leave."""
    ends, n_epochs = [], halving.min_epochs
    while n_epochs < longest:
        ends.append(n_epochs)
        n_epochs *= halving.factor
    return ends
