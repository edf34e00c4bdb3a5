"""A session of training: runs the epochs, and writes and saves between them."""

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from linreg.components.losses import LOSSES
from linreg.components.models import MODELS
from linreg.errors import DivergedError, StorageError
from linreg.experiment.building import Experiment, build
from linreg.experiment.divergence import log_warnings, overflow_is_divergence, refuse_epoch, refuse_losses
from linreg.experiment.reporting import write_end, write_plot, write_start
from linreg.experiment.result import CHECKPOINTS, RUNS, Result, make_result, monitored
from linreg.experiment.saving import Saver
from linreg.experiment.solving import solve
from linreg.experiment.state import Progress, snapshot
from linreg.runs.folders import FINISHED, Run, create
from linreg.runs.sessions import new_session, now
from linreg.runs.writer import EpochRecord, RunWriter, open_writer
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators
from linreg.training.loops import fit, make_improved_fn, make_out_of_patience_fn

Report = Callable[[EpochRecord, Experiment], None]


class StopRequested(Exception):  # noqa: N818  # not an error: it leaves the loops
    """The caller asked the training to stop."""


def train(
    spec: ExperimentSpec,
    *,
    runs: Path = RUNS,
    checkpoints: Path = CHECKPOINTS,
    report: Report | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a spec from the beginning, in a new run.

    report: called with the record of each epoch; stop: called at the start and between steps, returns whether to save
    and return. Writes `runs/<run>/` and `checkpoints/<run>/`, after everything is built. Raises SpecError, DataError,
    StorageError, DivergedError.
    """
    if spec.solver == "exact":
        return solve(spec, runs=runs, checkpoints=checkpoints)
    experiment = build(spec)
    log_warnings(experiment)
    progress = Progress(experiment.loaders.generator.get_state(), planned_epochs=spec.epochs)
    with create(spec.name, runs, checkpoints) as run:
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
        with open_writer(run.folder, progress.records, histograms=spec.writer.histograms) as writer:
            write_start(writer, experiment)
            with warnings.catch_warnings():
                # torch's warning for a run resumed between a step and that of the scheduler
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                if progress.outcome not in FINISHED:
                    _epochs(experiment, progress, saver, writer, report, stop)
            if progress.outcome in FINISHED:
                write_end(writer, experiment, progress)
            writer.flush()
            saver.save()
        if spec.writer.plots and progress.records:
            write_plot(run.folder / "losses.png", progress)
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
    session |= {"ended": now(), "epochs": len(progress.records), "outcome": progress.outcome}
    run.write_info(outcome=progress.outcome)
    return make_result(
        run,
        progress.outcome,
        progress.records,
        device=experiment.device,
        engine=experiment.engine.name,
        seconds=time.monotonic() - begin,
        exact=experiment.baseline,
        model=experiment.model,
        target_names=experiment.target_names,
    )


def _epochs(
    experiment: Experiment,
    progress: Progress,
    saver: Saver,
    writer: RunWriter,
    report: Report | None,
    stop: Callable[[], bool],
) -> None:
    """Run each epoch: train and validate, then write, report, save, and stop if asked to."""
    spec = experiment.spec
    pause = _make_pause_fn(experiment, progress, saver, writer, stop)
    train_epoch, val_epoch = _make_epoch_fns(experiment, progress, pause)
    state = experiment.network.state_dict()  # its tensors are those of the network
    improved = make_improved_fn()
    early = spec.early_stopping
    out_of_patience = make_out_of_patience_fn(early.patience, early.min_delta) if early else None
    for record in progress.records:
        improved(monitored(record))
        if out_of_patience:
            out_of_patience(monitored(record))

    try:
        for losses in fit(train_epoch, val_epoch, range(len(progress.records), spec.epochs)):
            lr = experiment.optimizer.param_groups[0]["lr"]
            record = EpochRecord(losses.epoch, losses.loss, losses.val_loss, float(lr), experiment.exact_loss)
            refuse_epoch(experiment, progress.position, record, state)
            if experiment.schedule and experiment.schedule.after_epoch:
                experiment.schedule.after_epoch(monitored(record))
            progress.records.append(record)
            progress.position = []
            progress.loader_state = experiment.loaders.generator.get_state()
            if improved(monitored(record)):
                progress.best = snapshot(experiment, progress)

            writer.write(record, experiment.network)
            if report:
                report(record, experiment)
            if out_of_patience and out_of_patience(monitored(record)):
                progress.outcome = "early_stopped"
                return
            if saver.is_due_by_count():
                writer.flush()
                saver.save()
            pause()
    except StopRequested:
        done = len(progress.records) >= spec.epochs
        progress.outcome = "finished" if done else "interrupted"
    else:
        progress.outcome = "finished"


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
