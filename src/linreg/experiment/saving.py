"""Saves a run: decides when a checkpoint is due, and writes it in a thread beside the training."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from linreg.checkpoint import Checkpoint, save, serialize
from linreg.errors import DivergedError, StorageError
from linreg.experiment.building import Experiment
from linreg.experiment.divergence import refuse_losses, remedy
from linreg.experiment.intervals.calibrating import Calibration
from linreg.experiment.state import Progress, states
from linreg.runs.folders import Run
from linreg.system.files import replace_file

SECONDS_BETWEEN_SAVES = 1.0
SHARE_OF_SAVING = 1 / 30  # the largest share of the time for saving by the clock


class Saver:
    """Decides when a checkpoint is due, and writes best.pth, the numbered ones, and last.pth.

    A thread writes the files while training continues, one save after the other.
    """

    def __init__(self, experiment: Experiment, progress: Progress, run: Run) -> None:
        self.experiment, self.progress, self.run = experiment, progress, run
        self.spec = experiment.spec.checkpoint
        self.constant: dict[str, Any] = {
            "spec": experiment.spec.to_dict(),
            "preprocessing": experiment.data.described,
            "n_features": len(experiment.feature_names),
            "n_targets": len(experiment.target_names),
            "feature_names": experiment.feature_names,
            "target_names": experiment.target_names,
            "fit": experiment.baseline.fit if experiment.baseline else None,
            "run": {"name": run.name, "id": run.info["id"]},
            "data_fingerprint": experiment.data.fingerprint,
            "environment": run.session["environment"],
        }
        self.seconds = self.spec.every_seconds or SECONDS_BETWEEN_SAVES
        self.due_at = time.monotonic() + self.seconds
        self.saved_best: int | None = None
        self.calibration: Calibration | None = None  # at the end of the training
        self.thread = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None

    def is_due_by_count(self) -> bool:
        """Return whether `checkpoint.every` asks for a save after this epoch."""
        return self.spec.every is not None and len(self.progress.records) % self.spec.every == 0

    def is_due_by_clock(self) -> bool:
        """Return whether enough time has passed, unless the spec counts only epochs."""
        counts = self.spec.every is not None and self.spec.every_seconds is None
        return not counts and time.monotonic() >= self.due_at and (self.writing is None or self.writing.done())

    def save(self) -> None:
        """Start to write the current state, after the previous save is written.

        Raises DivergedError, and saves nothing, for a non-finite state, and the StorageError of the previous save."""
        self.wait()
        begin = time.monotonic()
        checkpoint = self.checkpoint()
        refuse_losses(self.experiment, checkpoint.epoch, checkpoint.position)
        folder, files, content = self.run.checkpoints, {}, self._serialized(checkpoint)
        best = checkpoint.best
        if self.spec.best and best is not None and best["epoch"] != self.saved_best:
            is_own = best["states"]["model_state_dict"] is checkpoint.model_state_dict
            files[folder / "best.pth"] = content if is_own else self._serialized(self._best(checkpoint))
            self.saved_best = best["epoch"]
        if self.spec.keep and self.is_due_by_count() and not checkpoint.position:
            files[folder / f"epoch_{checkpoint.epoch:06}.pth"] = content
        files[self.run.last] = content
        self.writing = self.thread.submit(self._write, files, time.monotonic() - begin)

    def take(self, calibration: Calibration) -> None:
        """Take the calibration of a finished run into the next save, which also writes best.pth again."""
        self.calibration, self.saved_best = calibration, None

    def wait(self) -> None:
        """Wait until everything is written. Raises StorageError."""
        if self.writing is not None:
            self.writing.result()

    def refuse_failed(self) -> None:
        """Raise the StorageError of a save that has failed."""
        if self.writing is not None and self.writing.done():
            self.writing.result()

    def kept(self) -> str:
        """Write the best epoch of a run that diverged. Return a text about its good checkpoints."""
        path, best = self.run.checkpoints / "best.pth", self.progress.best
        with suppress(StorageError):  # report the divergence
            self.wait()
            if self.spec.best and best is not None and best["epoch"] != self.saved_best:
                save(path, self._best(self.checkpoint()))
        files = {path: "the best epoch", self.run.last: "the last good state"}
        return " and ".join(f"{path} has {what}" for path, what in files.items() if path.is_file())

    def close(self) -> None:
        """End the thread, after it has written everything."""
        self.thread.shutdown()

    def _serialized(self, checkpoint: Checkpoint) -> bytes:
        try:
            return serialize(checkpoint)
        except DivergedError as error:
            raise DivergedError(f"epoch {checkpoint.epoch}: {error}; {remedy(self.experiment)}") from None

    def _write(self, files: Mapping[Path, bytes], cost: float) -> None:
        """Write files, in their order. cost: the seconds that this save has taken so far."""
        begin = time.monotonic()
        for path, content in files.items():
            replace_file(path, content)
        self.run.publish(best=self.experiment.spec.early_stopping is not None and self.saved_best is not None)
        self._prune(files[self.run.last])
        share = 0.0 if self.spec.every_seconds else (cost + time.monotonic() - begin) / SHARE_OF_SAVING
        self.due_at = time.monotonic() + max(self.seconds, share)

    def _prune(self, content: bytes) -> None:
        """Remove the oldest numbered checkpoints, after checking that the newest reads back as written."""
        old = sorted(self.run.checkpoints.glob("epoch_*.pth"))[: -self.spec.keep] if self.spec.keep else []
        if old and self.run.last.read_bytes() != content:
            raise StorageError(f"{self.run.last}: does not read back as it was written; check the disk")
        for path in old:
            path.unlink()

    def _best(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint of the best epoch of a checkpoint."""
        assert checkpoint.best is not None
        best: dict[str, Any] = checkpoint.best
        epochs = best["epoch"] + 1
        return replace(
            checkpoint,
            **best["states"],
            epoch=epochs,
            loss=checkpoint.loss[:epochs],
            val_loss=checkpoint.val_loss[:epochs],
            lr=checkpoint.lr[:epochs],
            spec=best["spec"],
            position=[],
            intervals=self.calibration.best if self.calibration else None,
            resumed_at=[epoch for epoch in checkpoint.resumed_at if epoch <= epochs],
            outcome="running",
        )

    def checkpoint(self) -> Checkpoint:
        """Return the current state of the run."""
        experiment, progress = self.experiment, self.progress
        records, best = progress.records, progress.best
        is_best = best is not None and (best["epoch"], best["spec"]) == (len(records) - 1, self.constant["spec"])
        is_best = is_best and not progress.position
        current = best["states"] if best and is_best else states(experiment, progress)
        return Checkpoint(
            **current,
            epoch=len(records),
            loss=[record.loss for record in records],
            val_loss=[record.val_loss for record in records],
            lr=[record.lr for record in records],
            planned_epochs=progress.planned_epochs,
            position=list(progress.position),
            best=best,
            intervals=self.calibration.last if self.calibration else None,
            resumed_at=list(progress.resumed_at),
            outcome=progress.outcome,
            **self.constant,
        )
