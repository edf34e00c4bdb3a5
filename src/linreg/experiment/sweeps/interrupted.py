"""Finds what an interrupted sweep or cross-validation has done: folder, results, and the states of its models."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linreg.checkpoint import load_states
from linreg.data.fingerprint import differing
from linreg.errors import CheckpointError, DataError
from linreg.experiment.sweeps.members import Member, waiting
from linreg.experiment.sweeps.records import TRIALS, has_trials, is_sweep, read_text
from linreg.runs.folders import Run, create, hold, last_run
from linreg.runs.records import read_info
from linreg.spec.sweeps import Sweep, Trial

log = logging.getLogger("linreg")


@contextmanager
def open_folder(
    spec: Sweep, trials: Sequence[Trial], runs: Path, checkpoints: Path, fingerprint: str, *, kind: str, resume: bool
) -> Iterator[Run]:
    """Create the folder of a sweep, or hold that of the last one, if it is to be resumed and was interrupted. kind:
    `sweep` or `cv`, the end of its name. Raises DataError if the data has changed since."""
    name = f"{trials[0].spec.name}_{kind}"
    last = last_run(name, runs) if resume else None
    info = {} if last is None else read_info(runs / last)
    if last is not None and is_sweep(info, kind) and info.get("outcome") != "finished":
        folder = runs / last
        is_begun = bool(read_text(folder / TRIALS))
        is_same = has_trials(folder, trials, grows=spec.sweep.grows)
        if not is_begun or (is_same and read_text(folder / "spec.yaml") == spec.to_yaml()):
            changed = differing(info.get("data_fingerprint", fingerprint), fingerprint) if is_begun else []
            if fingerprint and changed:
                problem = f"{folder}: data.source has changed since the {kind} was interrupted ({'; '.join(changed)})"
                raise DataError(f"{problem}; restore the old data, or run the command without --resume")
            with hold(last, runs, checkpoints) as run:
                yield run
            return
        log.warning("the last %s, %s, has another spec; starting a new one", kind, last)
    with create(name, runs, checkpoints) as run:
        yield run


def take_results(members: Sequence[Member], lines: Iterable[Mapping[str, Any]]) -> None:
    """Mark the members whose results are known. lines: of results.jsonl."""
    known = {(line["trial"], line["seed"], line["fold"]): line for line in lines}
    for member in members:
        line = known.get((member.trial, member.spec.seed, member.fold))
        if line is not None:
            member.outcome, member.known_loss = line["outcome"], line["result_loss"]


def take_states(members: Sequence[Member], path: Path) -> None:
    """Give the members that have not ended their saved states."""
    if not path.exists():
        return
    try:
        saved = {tuple(state["key"]): state for state in load_states(path)}
    except (CheckpointError, KeyError, TypeError) as error:
        log.warning("%s; training the trials that have not ended from their start", error)
        return
    for member in waiting(members):
        member.saved = saved.get(member.key)
