"""Going on with a run: what may change, whose run it is, and what is put back before training goes on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from linreg.checkpoint import Checkpoint, load, load_or_advise, newest
from linreg.data.rows import differing
from linreg.errors import CheckpointError, DataError, StorageError, UsageError
from linreg.experiment.building import Experiment, build
from linreg.experiment.changes import changes, refuse, tabulate
from linreg.experiment.divergence import log_warnings
from linreg.experiment.result import CHECKPOINTS, RUNS, Result
from linreg.experiment.session import Report, run_session, train
from linreg.experiment.state import restore, saved_spec
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
) -> Result:
    """Go on from a checkpoint, or a run by its name: finish it, or train a finished one for as many epochs again.

    A run's own last.pth is continued in its folders. Any other checkpoint, an older one or a copy, and any change
    that makes it another run, goes on in a new run. Of a run that is named, the newest checkpoint that is not damaged
    is taken. other_data: whether the data may be other than it was. Raises CheckpointError, UsageError for a change
    that cannot be made, DataError for other data, and what `train` raises.
    """
    named = _named_run(path, runs, checkpoints)
    path = checkpoints / named / "last.pth" if named else Path(path)
    stamp = _stamp(path)
    saved = load_newest(path) if named else load_or_advise(path)
    old = saved_spec(saved)
    if old.solver == "exact":
        raise UsageError(f"{path}: was solved exactly; there is nothing to go on with")
    own = _own_run(saved, runs, checkpoints, named=named)
    asked = any(override.startswith("epochs=") for override in overrides)
    all_done = saved.epoch >= old.epochs or saved.outcome in FINISHED
    ends = all_done and not overrides and own is not None and not _is_ended(runs / own)  # killed as it was to end
    if saved.epoch >= old.epochs and not asked and not ends:
        overrides = [*overrides, f"epochs={saved.epoch + saved.planned_epochs}"]
    spec = spec_from_dict(saved.spec, str(path), overrides)
    if spec.epochs <= saved.epoch and not ends:
        raise UsageError(f"{path}: has {saved.epoch} epochs already; ask for more than that with --epochs")
    experiment = build(spec, planned_epochs=saved.planned_epochs)
    log_warnings(experiment)
    per_step = experiment.schedule is not None and experiment.schedule.after_step is not None
    found = changes(old, spec, planned_in_steps=per_step, within_an_epoch=bool(saved.position))
    refuse(found)
    if found:
        warned = any(change.verdict == "warned" for change in found)
        log.log(logging.WARNING if warned else logging.INFO, "changed since the checkpoint:\n%s", tabulate(found))

    is_other = saved.data_fingerprint != experiment.data.fingerprint
    if is_other:
        _take_other_data(saved, experiment, asked_for=other_data, per_step=per_step)
    progress = restore(experiment, saved)
    if ends and saved.outcome in FINISHED:
        progress.outcome = saved.outcome
    for change in found:
        if change.key.startswith("optimizer."):  # or the state that was just loaded would undo it
            _set_in_optimizer(experiment, change.key.removeprefix("optimizer."), change.new)

    changed = any((change.verdict == "warned" and change.key != "epochs") or change.key == "name" for change in found)
    if own is None or changed or is_other:
        with create(spec.name, runs, checkpoints) as run:
            log.info("going on from %s in a new run, %s", path, run.name)
            return run_session(experiment, progress, run, report, stop, origin=str(path))
    with hold(own, runs, checkpoints) as run:
        if _stamp(path) != stamp:
            raise StorageError(f"{path}: another process went on with it meanwhile; resume it again")
        return run_session(experiment, progress, run, report, stop, origin=str(path))


def train_or_resume(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Continue this spec's last run if it was interrupted; else train it in a new one."""
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
                "the last run, %s, is of another spec (%s); starting a new one; linreg resume %s goes on with that one",
                name,
                ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in other),
                path,
            )
        else:
            return resume(name, runs=runs, checkpoints=checkpoints, report=report, stop=stop)
    return train(spec, runs=runs, checkpoints=checkpoints, report=report, stop=stop)


def _is_ended(folder: Path) -> bool:
    """Whether a run wrote all that it writes."""
    return read_info(folder).get("outcome") in FINISHED


def _take_other_data(saved: Checkpoint, experiment: Experiment, *, asked_for: bool, per_step: bool) -> None:
    """Refuse data that the run was not trained on, or, where that is asked for and can be, let it go on with that from
    its next epoch."""
    what = "; ".join(_changed_data(saved, experiment))
    told = f"{saved.path}: was trained on other data than data.source gives now ({what})"
    if not asked_for:
        raise DataError(f"{told}; bring the old data back, train anew, or go on all the same with --other-data")
    if experiment.data.preprocessing is not None or per_step:
        whose = "scheduler was planned" if per_step else "preprocessing was learnt"
        raise DataError(f"{told}, and its {whose} by the old; bring that back, or train anew")
    log.warning("%s; going on with it", told)
    saved.position.clear()


def _changed_data(saved: Checkpoint, experiment: Experiment) -> Iterator[str]:
    """Say in what the data is other than it was."""
    yield from differing(saved.data_fingerprint, experiment.data.fingerprint)
    then, now = (
        {feature["name"]: feature for feature in described["features"]}
        for described in (saved.preprocessing, experiment.data.described)
    )
    for name, feature in now.items():
        before = then.get(name)
        if before is not None and before != feature and feature["categories"] is None:
            ranges = (f"from {said['minimum']:g} to {said['maximum']:g}" for said in (before, feature))
            yield f"{name} was {', and is '.join(ranges)}"


def _named_run(path: str | Path, runs: Path, checkpoints: Path) -> str | None:
    """The run that a name, or one of its two folders, stands for; None for a checkpoint."""
    path = Path(path)
    folders = (runs / path.name, checkpoints / path.name)
    meant = len(path.parts) == 1 or any(path.resolve() == folder.resolve() for folder in folders)
    return path.name if meant and not path.is_file() and (folders[0] / "run.json").is_file() else None


def _set_in_optimizer(experiment: Experiment, param: str, value: Any) -> None:
    groups = [group for group in experiment.optimizer.param_groups if param in group]
    if not groups:
        raise UsageError(f"optimizer.{param}: the optimizer has no such setting to change; train anew")
    for group in groups:
        group[param] = tuple(value) if isinstance(value, list) else value


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tell one state of a checkpoint from another: each save makes a new file."""
    try:
        stat = path.stat()
    except OSError:  # `load` says what is wrong with it
        return None
    return stat.st_ino, stat.st_mtime_ns


def _own_run(saved: Checkpoint, runs: Path, checkpoints: Path, *, named: str | None) -> str | None:
    """The name of the run that a checkpoint goes on with: the one that was named, or whose last.pth this very file is;
    None for a copy, an older one, or without its run."""
    name = saved.run["name"]
    own = name == named or (checkpoints / name / "last.pth").resolve() == saved.path.resolve()
    return name if own and read_info(runs / name).get("id") == saved.run["id"] else None


def load_newest(path: Path) -> Checkpoint:
    """Open a run's last.pth or, if that is damaged or gone, the newest other one of its folder, with a warning."""
    try:
        return load(path)
    except CheckpointError as error:
        found = newest(path.parent)
        if found is None:
            raise
        log.warning("%s", error)
        log.warning("going on from %s instead, after %d epochs", found.path, found.epoch)
        return found
