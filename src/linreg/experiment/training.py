"""Training: the loop of `train` and `resume`, and what is saved on the way."""

import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from linreg import plots
from linreg.checkpoint import Checkpoint, load, save
from linreg.documents import flatten
from linreg.errors import CheckpointError, DataError, DivergedError, SpecError, StorageError, UsageError
from linreg.experiment.building import Experiment, build
from linreg.experiment.changes import changes, refuse
from linreg.loops import fit, make_improved_fn, make_out_of_patience_fn
from linreg.runs import (
    FINISHED,
    Run,
    command_line,
    create,
    environment,
    git_commit,
    hold,
    last_run,
    now,
    read_info,
)
from linreg.spec import ExperimentSpec, spec_from_dict
from linreg.storage import replace_file
from linreg.version import __version__
from linreg.writer import EpochRecord, RunWriter, open_writer

log = logging.getLogger("linreg")

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")
SECONDS_BETWEEN_SAVES = 1.0
SHARE_OF_SAVING = 1 / 30  # saving by the clock takes at most this share of the time

Report = Callable[[EpochRecord, Experiment], None]


class StopRequested(Exception):  # noqa: N818  # not an error: it leaves the loops when a stop is asked for
    """Somebody asked the training to stop."""


@dataclass(frozen=True)
class Result:
    """What a session of training came to. loss, val_loss: of the last epoch; best_*: of the epoch with the lowest
    validation loss, or training loss without validation; seconds: of this session."""

    run: str
    checkpoint: str
    outcome: str
    epochs: int
    loss: float | None
    val_loss: float | None
    best_epoch: int | None
    best_loss: float | None
    best_val_loss: float | None
    device: str
    engine: str
    seconds: float


@dataclass
class Progress:
    """How far a run has come. position: the losses of the batches of the next epoch that are done; loader_state:
    the state of the loaders' generator as that epoch began."""

    loader_state: torch.Tensor
    records: list[EpochRecord] = field(default_factory=list)
    position: list[float] = field(default_factory=list)
    best: dict[str, Any] | None = None
    resumed_at: list[int] = field(default_factory=list)
    planned_epochs: int = 0
    outcome: str = "running"


def train(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a spec from the beginning, in a new run.

    report: told each epoch's record; stop: asked between steps whether to save and return. Writes `runs/<run>/`
    and `checkpoints/<run>/`, after everything is built. Raises SpecError, DataError, StorageError, DivergedError.
    """
    experiment = build(spec)
    progress = Progress(experiment.loaders.generator.get_state(), planned_epochs=spec.epochs)
    with create(spec.name, runs, checkpoints) as run:
        return _train(experiment, progress, run, report, stop)


def resume(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Go on from a checkpoint: finish its run, or train a finished one for as many epochs again.

    A run's own last.pth is continued in its folders. Any other checkpoint, an older one or a copy, and any change
    that makes it another run, goes on in a new run. Raises CheckpointError, UsageError for a change that cannot be
    made, and what `train` raises.
    """
    saved = load(path)
    old = saved_spec(saved)
    if not any(override.startswith("epochs=") for override in overrides) and saved.epoch >= old.epochs:
        overrides = [*overrides, f"epochs={saved.epoch + saved.planned_epochs}"]
    spec = spec_from_dict(saved.spec, str(path), overrides)
    if spec.epochs <= saved.epoch:
        raise UsageError(f"{path}: has {saved.epoch} epochs already; ask for more than that with --epochs")
    found = changes(old, spec)
    refuse(found)
    for change in found:
        log.log(logging.WARNING if change.verdict == "warned" else logging.INFO, "changed: %s", change)

    experiment = build(spec, planned_epochs=saved.planned_epochs)
    _refuse_other_data(saved, experiment)
    progress = restore(experiment, saved)
    for change in found:
        if change.key.startswith("optimizer."):  # or the state that was just loaded would undo it
            _set_in_optimizer(experiment, change.key.removeprefix("optimizer."), change.new)

    changed = any(change.verdict == "warned" or change.key == "name" for change in found)
    own = None if changed else _own_run(saved, runs, checkpoints)
    if own is None:
        with create(spec.name, runs, checkpoints) as run:
            log.info("going on from %s in a new run, %s", path, run.name)
            return _train(experiment, progress, run, report, stop, origin=str(path))
    with hold(own, runs, checkpoints) as run:
        return _train(experiment, progress, run, report, stop, origin=str(path))


def train_or_resume(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Continue this spec's last run if it was interrupted; else train it in a new one."""
    name = last_run(spec.name, runs)
    path = checkpoints / name / "last.pth" if name else None
    if path is not None and path.is_file():
        saved = load(path)
        if saved.outcome in FINISHED:
            log.info("the last run, %s, is finished; starting a new one", name)
        elif saved_spec(saved) != spec:
            log.warning("the last run, %s, is of another spec; starting a new one", name)
        else:
            return resume(path, runs=runs, checkpoints=checkpoints, report=report, stop=stop)
    return train(spec, runs=runs, checkpoints=checkpoints, report=report, stop=stop)


def saved_spec(saved: Checkpoint, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Check the spec in a checkpoint by the rules of any other. Raises CheckpointError."""
    try:
        return spec_from_dict(saved.spec, str(saved.path), overrides)
    except SpecError as error:
        hint = "; if a plugin registers it, add --plugin FILE.py" if "unknown" in str(error) else ""
        raise CheckpointError("\n".join(f"{problem}{hint}" for problem in error.problems)) from None


def states(experiment: Experiment, loader_state: torch.Tensor) -> dict[str, Any]:
    """Collect the states that training moves, as the model, optimizer, scheduler and generators now hold them."""
    schedule = experiment.schedule
    cuda = experiment.device.type == "cuda"
    return {
        "model_state_dict": dict(experiment.model.state_dict()),
        "optimizer_state_dict": experiment.optimizer.state_dict(),
        "scheduler_state_dict": schedule.scheduler.state_dict() if schedule else None,
        "loader_state": loader_state,
        "rng_state": torch.get_rng_state(),
        "cuda_rng_state": torch.cuda.get_rng_state(experiment.device) if cuda else None,
    }


def restore(experiment: Experiment, saved: Checkpoint) -> Progress:
    """Put an experiment that was just built into the state of a checkpoint. Raises CheckpointError if the two do
    not fit."""
    try:
        experiment.model.load_state_dict(saved.model_state_dict)
        experiment.model.train()  # always use TRAIN for resuming training
        experiment.optimizer.load_state_dict(_copy(saved.optimizer_state_dict))
        if experiment.schedule is not None and saved.scheduler_state_dict is not None:
            experiment.schedule.scheduler.load_state_dict(_copy(saved.scheduler_state_dict))
        experiment.loaders.generator.set_state(saved.loader_state)
        torch.set_rng_state(saved.rng_state)
        if saved.cuda_rng_state is not None and experiment.device.type == "cuda":
            torch.cuda.set_rng_state(saved.cuda_rng_state, experiment.device)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().replace("\n", " ")
        raise CheckpointError(f"{saved.path}: does not fit what its spec builds: {reason}") from None
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


def _train(
    experiment: Experiment,
    progress: Progress,
    run: Run,
    report: Report | None,
    stop: Callable[[], bool],
    *,
    origin: str | None = None,
) -> Result:
    """Run the epochs that are left, saving on the way; run.json says at any moment how it stands."""
    spec = experiment.spec
    begin = time.monotonic()
    session = _session(experiment, progress, origin)
    run.write_info(
        name=run.name,
        outcome="running",
        sessions=[*run.info.get("sessions", []), session],
        data_fingerprint=experiment.data_fingerprint,
    )
    replace_file(run.folder / "spec.yaml", spec.to_yaml())
    saver = _Saver(experiment, progress, run)
    try:
        with open_writer(run.folder, progress.records, histograms=spec.writer.histograms) as writer:
            _write_start(writer, experiment)
            _epochs(experiment, progress, saver, writer, report, stop)
            if progress.outcome in FINISHED:
                _write_end(writer, experiment, progress)
            writer.flush()
            saver.save()
        if spec.writer.plots and progress.records:
            _plot(run.folder / "losses.png", progress)
    except BaseException as error:
        outcome = {DivergedError: "diverged", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
        session |= {"ended": now(), "epochs": len(progress.records), "outcome": outcome}
        with contextlib.suppress(StorageError):  # the error itself is what to tell
            run.write_info(outcome=outcome)
        raise
    session |= {"ended": now(), "epochs": len(progress.records), "outcome": progress.outcome}
    run.write_info(outcome=progress.outcome)
    return _result(experiment, progress, run, time.monotonic() - begin)


def _epochs(
    experiment: Experiment,
    progress: Progress,
    saver: "_Saver",
    writer: RunWriter,
    report: Report | None,
    stop: Callable[[], bool],
) -> None:
    """The loop: train and validate, then write, report, save, stop, epoch by epoch."""
    spec, parts = experiment.spec, experiment.loaders
    run_epoch = partial(experiment.engine, experiment.device)

    def train_epoch() -> float:
        progress.loader_state = parts.generator.get_state()
        batches = _until(stop, parts.train)
        return run_epoch(batches, experiment.train_step_fn, mini_batch_losses=progress.position)

    def val_epoch() -> float:
        return run_epoch(_until(stop, parts.val or ()), experiment.val_step_fn)

    improved = make_improved_fn()
    early = spec.early_stopping
    out_of_patience = make_out_of_patience_fn(early.patience, early.min_delta) if early else None
    for record in progress.records:
        improved(_monitored(record))
        if out_of_patience:
            out_of_patience(_monitored(record))

    try:
        for losses in fit(train_epoch, val_epoch if parts.val else None, range(len(progress.records), spec.epochs)):
            lr = experiment.optimizer.param_groups[0]["lr"]
            record = EpochRecord(losses.epoch, losses.loss, losses.val_loss, float(lr))
            _refuse_divergence(experiment, record, saver)
            if experiment.schedule and experiment.schedule.after_epoch:
                experiment.schedule.after_epoch(_monitored(record))
            progress.records.append(record)
            progress.position = []
            progress.loader_state = parts.generator.get_state()
            if improved(_monitored(record)) and spec.checkpoint.best:
                progress.best = _snapshot(experiment, progress)

            writer.write(record, experiment.model)
            if report:
                report(record, experiment)
            if out_of_patience and out_of_patience(_monitored(record)):
                progress.outcome = "early_stopped"
                return
            if saver.is_due():
                writer.flush()
                saver.save()
            if stop():
                raise StopRequested
    except StopRequested:
        done = len(progress.records) >= spec.epochs
        progress.outcome = "finished" if done else "interrupted"
    else:
        progress.outcome = "finished"


class _Saver:
    """Knows when a checkpoint is due, and writes it: best.pth, the numbered ones, last.pth."""

    def __init__(self, experiment: Experiment, progress: Progress, run: Run) -> None:
        self.experiment, self.progress, self.run = experiment, progress, run
        self.spec = experiment.spec.checkpoint
        self.due_at = -math.inf
        self.saved_best: int | None = None

    def is_due(self) -> bool:
        """Whether this epoch's end is one to save at: by the count of epochs, or by the clock."""
        if self.spec.every is not None:
            return len(self.progress.records) % self.spec.every == 0
        return time.monotonic() >= self.due_at

    def save(self) -> None:
        """Write what there is to write. No checkpoint ever holds a number that is not finite."""
        begin = time.monotonic()
        progress, folder = self.progress, self.run.checkpoints
        current = states(self.experiment, progress.loader_state)
        for name, tensor in current["model_state_dict"].items():
            if not torch.isfinite(tensor).all():
                epoch = len(progress.records)
                raise DivergedError(f"epoch {epoch}: {name} is no longer finite; {_remedy(self.experiment)}")
        best = progress.best
        if best is not None and best["epoch"] != self.saved_best:
            self.saved_best = best["epoch"]
            save(folder / "best.pth", self._checkpoint(best["states"], best["epoch"] + 1, [], "running"))
        done = len(progress.records)
        checkpoint = self._checkpoint(current, done, progress.position, progress.outcome)
        if self.spec.keep and self.spec.every and done % self.spec.every == 0 and not progress.position:
            save(folder / f"epoch_{done:06}.pth", checkpoint)
        save(folder / "last.pth", checkpoint)
        self.run.publish()
        if self.spec.keep:
            for old in sorted(folder.glob("epoch_*.pth"))[: -self.spec.keep]:
                old.unlink()
        cost = time.monotonic() - begin
        self.due_at = time.monotonic() + max(SECONDS_BETWEEN_SAVES, cost / SHARE_OF_SAVING)

    def _checkpoint(self, current: dict[str, Any], epochs: int, position: list[float], outcome: str) -> Checkpoint:
        experiment, progress = self.experiment, self.progress
        records = progress.records[:epochs]
        return Checkpoint(
            **current,
            epoch=epochs,
            loss=[record.loss for record in records],
            val_loss=[record.val_loss for record in records],
            lr=[record.lr for record in records],
            spec=experiment.spec.to_dict(),
            planned_epochs=progress.planned_epochs,
            n_features=len(experiment.feature_names),
            n_targets=len(experiment.target_names),
            feature_names=experiment.feature_names,
            target_names=experiment.target_names,
            position=position,
            best=progress.best,
            resumed_at=progress.resumed_at,
            outcome=outcome,
            run={"name": self.run.name, "id": self.run.info["id"]},
            data_fingerprint=experiment.data_fingerprint,
            environment={"linreg": __version__, **environment(experiment.device)},
        )


def _until(stop: Callable[[], bool], batches: Iterable[Any]) -> Iterator[Any]:
    """Hand on batches until a stop is asked for; then leave the loops between two steps."""
    for batch in batches:
        if stop():
            raise StopRequested
        yield batch


def _monitored(record: EpochRecord) -> float:
    return record.loss if record.val_loss is None else record.val_loss


def _snapshot(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    record = progress.records[-1]
    current = _copy(states(experiment, progress.loader_state))
    return {"epoch": record.epoch, "loss": record.loss, "val_loss": record.val_loss, "states": current}


def _copy(value: Any) -> Any:
    """Copy a state: the tensors too, which training would go on changing."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _refuse_divergence(experiment: Experiment, record: EpochRecord, saver: _Saver) -> None:
    for name, value in (("loss", record.loss), ("val_loss", record.val_loss)):
        if value is not None and not math.isfinite(value):
            last = saver.run.last
            kept = f"; {last} has the last good state" if last.is_file() else ""
            raise DivergedError(f"epoch {record.epoch}: {name} is {value}; {_remedy(experiment)}{kept}")


def _remedy(experiment: Experiment) -> str:
    lr = experiment.spec.optimizer.params.get("lr")
    lower = f"lower optimizer.lr (it is {lr})" if lr is not None else "take smaller steps"
    return f"{lower}, set clip_grad_norm, or bring the inputs to a common scale"


def _refuse_other_data(saved: Checkpoint, experiment: Experiment) -> None:
    if saved.data_fingerprint != experiment.data_fingerprint:
        raise DataError(
            f"{saved.path}: was trained on other data than data.source gives now ({len(experiment.dataset)} points); "
            "bring the old data back, or train anew"
        )


def _set_in_optimizer(experiment: Experiment, param: str, value: Any) -> None:
    for group in experiment.optimizer.param_groups:
        if param in group:
            group[param] = tuple(value) if isinstance(value, list) else value


def _own_run(saved: Checkpoint, runs: Path, checkpoints: Path) -> str | None:
    """The name of the run whose last.pth this very file is; None for a copy, an older one, or without its run."""
    name = saved.run["name"]
    own = (checkpoints / name / "last.pth").resolve() == saved.path.resolve()
    return name if own and read_info(runs / name).get("id") == saved.run["id"] else None


def _session(experiment: Experiment, progress: Progress, origin: str | None) -> dict[str, Any]:
    return {
        "command": command_line(),
        "from_epoch": len(progress.records),
        "from_checkpoint": origin,
        "started": now(),
        "ended": None,
        "outcome": None,
        "device": str(experiment.device),
        "engine": experiment.engine_name,
        "git_commit": git_commit(),
        "environment": {"linreg": __version__, **environment(experiment.device)},
    }


def _write_start(writer: RunWriter, experiment: Experiment) -> None:
    spec = experiment.spec
    writer.write_spec(spec.to_yaml())
    if spec.writer.graph:
        writer.write_graph(experiment.model, experiment.x_sample)
    if spec.writer.hparams:
        writer.write_hparams(flatten(spec.to_dict()), [f"final/{name}" for name in _losses_of(experiment)])
    writer.flush()


def _write_end(writer: RunWriter, experiment: Experiment, progress: Progress) -> None:
    last = progress.records[-1]
    if experiment.spec.writer.hparams:
        writer.write_final({f"final/{name}": getattr(last, name) for name in _losses_of(experiment)}, last.epoch)
    if experiment.spec.writer.figures:
        writer.board.add_figure("losses", _figure(progress), last.epoch)


def _losses_of(experiment: Experiment) -> list[str]:
    return ["loss", "val_loss"] if experiment.loaders.val else ["loss"]


def _figure(progress: Progress) -> Any:
    records = progress.records
    return plots.plot_losses(
        [record.loss for record in records],
        [record.val_loss for record in records],
        resumed_at=progress.resumed_at,
    )


def _plot(path: Path, progress: Progress) -> None:
    buffer = io.BytesIO()
    _figure(progress).savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())


def _result(experiment: Experiment, progress: Progress, run: Run, seconds: float) -> Result:
    last = progress.records[-1] if progress.records else None
    lowest = min(progress.records, key=_monitored) if progress.records else None
    return Result(
        run=run.name,
        checkpoint=str(run.last),
        outcome=progress.outcome,
        epochs=len(progress.records),
        loss=last.loss if last else None,
        val_loss=last.val_loss if last else None,
        best_epoch=lowest.epoch if lowest else None,
        best_loss=lowest.loss if lowest else None,
        best_val_loss=lowest.val_loss if lowest else None,
        device=str(experiment.device),
        engine=experiment.engine_name,
        seconds=round(seconds, 3),
    )
