"""A session of training: runs the epochs, and writes and saves between them."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from linreg.components.losses import LOSSES
from linreg.components.models import MODELS
from linreg.errors import DivergedError, StorageError
from linreg.experiment.building import Experiment, build
from linreg.experiment.divergence import log_warnings, overflow_is_divergence, refuse_epoch, refuse_losses
from linreg.experiment.exact_run import solve
from linreg.experiment.group import lead
from linreg.experiment.intervals.calibrating import calibrate
from linreg.experiment.reporting import write_end, write_plot, write_start
from linreg.experiment.result import CHECKPOINTS, RUNS, Result, make_result
from linreg.experiment.saving import Saver
from linreg.experiment.state import Progress, snapshot
from linreg.experiment.stopping import StopRequested
from linreg.runs.folders import FINISHED, Run, create
from linreg.runs.sessions import new_session, now
from linreg.runs.writer import EpochRecord, RunWriter, open_writer
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators
from linreg.training.loops import Group, Patience, fit_in_groups

Report = Callable[[EpochRecord, Experiment], None]


def train(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
    winner_of: Mapping[str, Any] | None = None,
) -> Result:
    """Train a spec from the beginning, in a new run.

    report: called with the record of each epoch; with `engine: compiled` the experiment may be some epochs ahead of it.
    stop: called at the start and between steps, returns whether to save and return. winner_of: as in `create`. Writes
    `runs/<run>/` and `checkpoints/<run>/`, after everything is built. Raises SpecError, DataError, StorageError,
    DivergedError.
    """
    if spec.solver == "exact":
        return solve(spec, runs=runs, checkpoints=checkpoints, winner_of=winner_of)
    experiment = build(spec, exchange=lead(spec, spec.epochs))
    log_warnings(experiment)
    progress = Progress(experiment.loaders.generator.get_state(), planned_epochs=spec.epochs)
    with create(spec.name, runs, checkpoints, winner_of) as run:
        return run_session(experiment, progress, run, report, stop)


def run_session(
    experiment: Experiment,
    progress: Progress,
    run: Run,
    report: Report | None,
    stop: Callable[[], bool],
    *,
    origin: str | None = None,
) -> Result:
    """Run the remaining epochs, and save. run.json always has the current outcome."""
    spec = experiment.spec
    stop()  # from the first call on, the caller lets the session save
    progress.records = [replace(record, exact=experiment.exact_loss) for record in progress.records]
    begin = time.monotonic()
    session = new_session(experiment.device, experiment.engine.name, len(progress.records), origin)
    run.start_session(session, data_fingerprint=experiment.data.fingerprint, spec=spec.to_yaml())
    saver = Saver(experiment, progress, run)
    try:
        experiment.exchange.lead(saver.checkpoint)
        _run_and_save(experiment, progress, saver, report, experiment.exchange.agreed(stop))
        with experiment.exchange.closing():
            outcome = _calibrated(experiment, progress, saver, experiment.exchange.relay_stop(stop))
        saver.wait()
    except BaseException as error:
        kept = saver.kept() if isinstance(error, DivergedError) else ""
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # ended at once
        outcome = "interrupted" if stopped else "diverged" if isinstance(error, DivergedError) else "failed"
        session |= {"ended": now(), "epochs": len(progress.records), "outcome": outcome}
        with contextlib.suppress(StorageError):  # report the first error
            run.write_info(outcome=outcome)
        if kept:
            raise DivergedError(f"{error}; {kept}") from error
        raise
    finally:
        saver.close()
    session |= {"ended": now(), "epochs": len(progress.records), "outcome": outcome}
    run.write_info(outcome=outcome)
    return make_result(
        run,
        outcome,
        progress.records,
        device=experiment.device,
        engine=experiment.engine.name,
        seconds=time.monotonic() - begin,
        exact=experiment.baseline,
        model=experiment.model,
        target_names=experiment.target_names,
    )


def _run_and_save(
    experiment: Experiment, progress: Progress, saver: Saver, report: Report | None, stop: Callable[[], bool]
) -> None:
    """Run the remaining epochs, write what a run writes for people, and save."""
    settings, run = experiment.spec.writer, saver.run
    with open_writer(run.folder, progress.records, histograms=settings.histograms) as writer:
        write_start(writer, experiment)
        with warnings.catch_warnings():
            # torch's warning for a run resumed between a step and that of the scheduler
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            if progress.outcome not in FINISHED:
                run_epochs(experiment, progress, saver, writer, report, stop)
        if progress.outcome in FINISHED:
            write_end(writer, experiment, progress)
        writer.flush()
        saver.save()
    if settings.plots and progress.records:
        write_plot(run.folder / "losses.png", progress)


def _calibrated(experiment: Experiment, progress: Progress, saver: Saver, stop: Callable[[], bool]) -> str:
    """Calibrate the intervals of a finished run, and save again. Return the outcome of the session: a run whose
    calibration is interrupted repeats it when it is resumed."""
    if experiment.spec.intervals is None or progress.outcome not in FINISHED:
        return progress.outcome

    def pause() -> None:
        if stop():
            raise StopRequested

    best = progress.best
    try:
        saver.take(calibrate(experiment, None if best is None else best["states"]["model_state_dict"], pause))
    except StopRequested:
        return "interrupted"
    saver.save()
    return progress.outcome


def run_epochs(
    experiment: Experiment,
    progress: Progress,
    saver: Saver,
    writer: RunWriter,
    report: Report | None,
    stop: Callable[[], bool],
) -> None:
    """Run each epoch: train and validate, then write, report, save, and stop if asked to."""
    pause = _make_pause_fn(experiment, progress, saver, writer, stop)
    train_epoch, val_epoch = _make_epoch_fns(experiment, progress, pause)
    early, n_epochs = experiment.spec.early_stopping, experiment.spec.epochs
    patience = Patience(early.patience, early.min_delta) if early else None
    lowest = float("inf")
    for record in progress.records:
        lowest = min(lowest, record.monitored)
        if patience:
            patience.runs_out(record.monitored)

    groups = fit_in_groups(
        train_epoch,
        val_epoch,
        experiment.engine.group,
        range(len(progress.records), n_epochs),
        lowest=lambda: lowest,
        most=lambda: _most_epochs(experiment, len(progress.records), patience),
    )
    try:
        for group in groups:
            for record in _finish(experiment, progress, group):
                lowest = min(lowest, record.monitored)
                writer.write(record, experiment.network)
                if report:
                    report(record, experiment)
                if patience and patience.runs_out(record.monitored):
                    progress.outcome = "early_stopped"
                    return
            if saver.is_due_by_count():
                writer.flush()
                saver.save()
            pause()
    except StopRequested:
        progress.outcome = "finished" if len(progress.records) >= n_epochs else "interrupted"
    else:
        progress.outcome = "finished"


def _most_epochs(experiment: Experiment, n_done: int, patience: Patience | None) -> int:
    """Return how many epochs may pass until something is due that needs the state at their end."""
    spec = experiment.spec
    if experiment.schedule:
        return 1
    intervals = [n for n in (spec.checkpoint.every, spec.writer.histograms) if n]
    return min([patience.left if patience else spec.epochs, *(n - n_done % n for n in intervals)])


def _finish(experiment: Experiment, progress: Progress, group: Group) -> Iterator[EpochRecord]:
    """Take a group of epochs into the progress, and yield their records one by one. Raises DivergedError."""
    lr, generator = float(experiment.optimizer.param_groups[0]["lr"]), experiment.loaders.generator
    for losses in group.epochs:
        record = EpochRecord(losses.epoch, losses.loss, losses.val_loss, lr, experiment.exact_loss)
        if losses is group.epochs[-1]:
            refuse_epoch(experiment, group.mini_batch_losses or progress.position, record)
            if experiment.schedule and experiment.schedule.after_epoch:
                experiment.schedule.after_epoch(record.monitored)
        progress.records.append(record)
        if losses.epoch == group.best:
            with group.at_best():
                progress.loader_state = generator.get_state()
                progress.best = snapshot(experiment, progress)
        if losses is group.epochs[-1]:
            progress.position = []
            progress.loader_state = generator.get_state()
        yield record


def _make_epoch_fns(
    experiment: Experiment, progress: Progress, pause: Callable[[], None]
) -> tuple[Callable[[], float], Callable[[], float] | None]:
    """Make the functions that train and validate an epoch. The second is None without a validation part."""
    engine, validate, spec = experiment.engine, experiment.engine.val_epoch, experiment.spec
    # linreg's own components draw no numbers in a validation, so a save within it may take the states then
    may_draw = not (MODELS.is_own(spec.model.name) and LOSSES.is_own(spec.loss.name))

    def train_epoch() -> float:
        with overflow_is_divergence(experiment, f"epoch {len(progress.records)}"):
            return engine.train_epoch(mini_batch_losses=progress.position, pause=pause)

    if validate is None:
        return train_epoch, None

    def val_epoch() -> float:
        progress.generators = generators.states(experiment.device) if may_draw else None
        val_loss = validate(pause=pause)
        progress.generators = None
        return val_loss

    return train_epoch, val_epoch


def _make_pause_fn(
    experiment: Experiment, progress: Progress, saver: Saver, writer: RunWriter, stop: Callable[[], bool]
) -> Callable[[], None]:
    """Make the function that is called between steps: it checks the losses, saves when due, and stops if asked to."""
    n_checked = 0  # losses of the epoch

    def pause() -> None:
        nonlocal n_checked
        n_done = len(progress.position)
        refuse_losses(
            experiment, len(progress.records), progress.position, since=n_checked if n_checked <= n_done else 0
        )
        n_checked = n_done
        saver.refuse_failed()
        writer.flush_if_due()
        if saver.is_due_by_clock():
            writer.flush()
            saver.save()
        if stop():
            raise StopRequested

    return pause
