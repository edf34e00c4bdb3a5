"""Resumes a run: finds its checkpoint, checks the changes, restores the state, and continues training."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from linreg.checkpoint import Checkpoint, load, load_or_advise, newest
from linreg.data.fingerprint import differing
from linreg.errors import CheckpointError, DataError, StorageError, UsageError
from linreg.experiment.building import Experiment, build
from linreg.experiment.changes import Change, changes, refuse, tabulate
from linreg.experiment.divergence import log_warnings
from linreg.experiment.group import lead
from linreg.experiment.result import CHECKPOINTS, RUNS, Result
from linreg.experiment.session import Report, run_session, train
from linreg.experiment.state import restore, saved_spec
from linreg.experiment.sweeps.records import is_sweep
from linreg.runs.folders import FINISHED, create, hold, last_run
from linreg.runs.records import read_info
from linreg.spec.document import flatten
from linreg.spec.schema import ExperimentSpec, spec_from_dict

log = logging.getLogger("linreg")


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
    other_data: bool = False,
    extend: bool = True,
) -> Result:
    """Resume a checkpoint, or a run by its name: finish it, or train a finished one for as many epochs again.

    A run continues in its folders from its own last.pth, or from the newest good checkpoint if its name is given. Any
    other checkpoint, and any change that affects the result, starts a new run, with the whole history. other_data:
    whether the data may have changed. extend: whether a finished run trains on; else its result is returned. Raises
    CheckpointError, UsageError for a refused change, DataError for other data, and the errors of `train`.
    """
    named = _named_run(path, runs, checkpoints)
    path = checkpoints / named / "last.pth" if named else Path(path)
    stamp = _stamp(path)
    saved = load_newest(path) if named else load_or_advise(path)
    old = saved_spec(saved)
    if old.solver == "exact":
        raise UsageError(f"{path}: was solved exactly; there is nothing to resume")
    own = _own_run(saved, runs, checkpoints, named=named)
    all_done = saved.epoch >= old.epochs or saved.outcome in FINISHED
    is_ended = own is not None and _is_ended(runs / own)
    ends = all_done and not overrides and own is not None and not (is_ended and extend)  # killed at its end
    if saved.epoch >= old.epochs and not ends and not any(override.startswith("epochs=") for override in overrides):
        overrides = [*overrides, f"epochs={saved.epoch + saved.planned_epochs}"]
    spec = spec_from_dict(saved.spec, str(path), overrides)
    if spec.epochs <= saved.epoch and not ends:
        raise UsageError(f"{path}: already has {saved.epoch} epochs; set --epochs to more")
    exchange = lead(spec, saved.planned_epochs)
    experiment = build(spec, planned_epochs=saved.planned_epochs, exchange=exchange)
    log_warnings(experiment)
    per_step = experiment.schedule is not None and experiment.schedule.after_step is not None
    changed = changes(old, spec, planned_in_steps=per_step, within_an_epoch=bool(saved.position))
    refuse(changed)
    _log_changes(changed)
    is_other = saved.data_fingerprint != experiment.data.fingerprint
    if is_other:
        _take_other_data(saved, experiment, asked_for=other_data, per_step=per_step)
    progress = restore(experiment, saved)
    if ends and saved.outcome in FINISHED:
        progress.outcome = saved.outcome
    for change in changed:
        if change.key.startswith("optimizer."):  # the loaded state has the old value
            _set_in_optimizer(experiment, change.key.removeprefix("optimizer."), change.new)

    affects = [change for change in changed if change.verdict == "warned" and change.key != "epochs"]
    if own is None or affects or is_other or spec.name != old.name:
        with create(spec.name, runs, checkpoints) as run:
            log.info("resuming %s in a new run, %s", path, run.name)
            return run_session(experiment, progress, run, report, stop, origin=str(path))
    with hold(own, runs, checkpoints) as run:
        if _stamp(path) != stamp:
            raise StorageError(f"{path}: another process resumed it; run the command again")
        return run_session(experiment, progress, run, report, stop, origin=str(path))


def _log_changes(changed: list[Change]) -> None:
    if changed:
        warned = any(change.verdict == "warned" for change in changed)
        log.log(logging.WARNING if warned else logging.INFO, "changed since the checkpoint:\n%s", tabulate(changed))


def train_or_resume(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Resume this spec's last run if it was interrupted; else train in a new run."""
    name = None if spec.solver == "exact" else last_run(spec.name, runs)
    path = checkpoints / name / "last.pth" if name else None
    if name is not None and path is not None and any(path.parent.glob("*.pth")):
        saved = load_newest(path)
        if read_info(runs / str(name)).get("outcome") == "diverged":
            log.warning("the last run, %s, diverged; starting a new one", name)
        elif saved.outcome in FINISHED and _is_ended(runs / name):
            log.info("the last run, %s, is finished; starting a new one", name)
        elif saved_spec(saved) != spec:
            before, after = flatten(saved_spec(saved).to_dict()), flatten(spec.to_dict())
            other = [key for key in {**before, **after} if before.get(key) != after.get(key)]
            log.warning(
                "the last run, %s, has another spec (%s); starting a new one; to continue it: linreg resume %s",
                name,
                ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in other),
                path,
            )
        else:
            return resume(name, runs=runs, checkpoints=checkpoints, report=report, stop=stop)
    return train(spec, runs=runs, checkpoints=checkpoints, report=report, stop=stop)


def _is_ended(folder: Path) -> bool:
    """Return whether a run is finished, to its last file."""
    return read_info(folder).get("outcome") in FINISHED


def _take_other_data(saved: Checkpoint, experiment: Experiment, *, asked_for: bool, per_step: bool) -> None:
    """Accept other data than the run was trained on, from its next epoch. Raises DataError unless that is possible, and
    asked for."""
    changed = "; ".join(_changed_data(saved, experiment))
    problem = f"{saved.path}: data.source has changed since training ({changed})"
    if not asked_for:
        raise DataError(f"{problem}; restore the old data, train again, or add --other-data to use the new data")
    if experiment.data.preprocessing is not None or per_step:
        part = "scheduler was planned" if per_step else "preprocessing was learnt"
        raise DataError(f"{problem}, and its {part} with the old data; restore it, or train again")
    log.warning("%s; resuming with the new data", problem)
    saved.position.clear()


def _changed_data(saved: Checkpoint, experiment: Experiment) -> Iterator[str]:
    """Describe how the data has changed."""
    yield from differing(saved.data_fingerprint, experiment.data.fingerprint)
    then, now = (
        {feature["name"]: feature for feature in described["features"]}
        for described in (saved.preprocessing, experiment.data.described)
    )
    for name, feature in now.items():
        before = then.get(name)
        if before is not None and before != feature and feature["categories"] is None:
            ranges = (f"from {f['minimum']:g} to {f['maximum']:g}" for f in (before, feature))
            yield f"{name} was {', now '.join(ranges)}"


def _named_run(path: str | Path, runs: Path, checkpoints: Path) -> str | None:
    """Return the run of a name, or of one of its two folders; None for a checkpoint. Raises CheckpointError for a
    sweep."""
    path = Path(path)
    folders = (runs / path.name, checkpoints / path.name)
    is_name = len(path.parts) == 1 or any(path.resolve() == folder.resolve() for folder in folders)
    if not is_name or path.is_file() or not (folders[0] / "run.json").is_file():
        return None
    info = read_info(folders[0])
    if is_sweep(info):
        places = (("--runs", runs, RUNS), ("--checkpoints", checkpoints, CHECKPOINTS))
        options = "".join(f" {option} {place}" for option, place, default in places if place != default)
        command = f"linreg sweep {folders[0] / 'spec.yaml'} --resume{options}"
        is_ended = info.get("outcome") == "finished"
        hint = "linreg runs lists the runs of its winners" if is_ended else f"continue it with: {command}"
        raise CheckpointError(f"{path}: a sweep, not a run; {hint}")
    return path.name


def _set_in_optimizer(experiment: Experiment, param: str, value: Any) -> None:
    groups = [group for group in experiment.optimizer.param_groups if param in group]
    if not groups:
        raise UsageError(f"optimizer.{param}: the optimizer has no such setting; train again")
    for group in groups:
        group[param] = tuple(value) if isinstance(value, list) else value


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when a checkpoint is saved again; None for a missing file."""
    try:
        stat = path.stat()
    except OSError:  # `load` reports the problem
        return None
    return stat.st_ino, stat.st_mtime_ns


def _own_run(saved: Checkpoint, runs: Path, checkpoints: Path, *, named: str | None) -> str | None:
    """Return the run that a checkpoint continues: the named one, or the one with this last.pth; None for a copy or an
    older checkpoint, or if the run is gone."""
    name = saved.run["name"]
    own = name == named or (checkpoints / name / "last.pth").resolve() == saved.path.resolve()
    return name if own and read_info(runs / name).get("id") == saved.run["id"] else None


def load_newest(path: Path) -> Checkpoint:
    """Load a run's last.pth or, with a warning if it is damaged or missing, the newest good checkpoint of its
    folder."""
    try:
        return load(path)
    except CheckpointError as error:
        saved = newest(path.parent)
        if saved is None:
            raise
        log.warning("%s", error)
        log.warning("resuming from %s instead, after %d epochs", saved.path, saved.epoch)
        return saved
