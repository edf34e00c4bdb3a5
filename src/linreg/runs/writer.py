"""Writes metrics.jsonl and the event files of TensorBoard. Nothing here affects the training."""

import contextlib
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from linreg.runs.lock import lock
from linreg.system import generators
from linreg.system.files import replace_file, translated_errors
from linreg.training.loops import EpochLosses

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class EpochRecord(EpochLosses):
    """A line of metrics.jsonl: an epoch and its losses, the learning rate at its end, and the loss of the exact
    solution, if it is known (of the validation part, if there is one)."""

    lr: float
    exact: float | None = None

    def to_json(self) -> str:
        """Return the record as a line of JSON, with the exact numbers."""
        return json.dumps(vars(self)) + "\n"


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

SECONDS_BETWEEN_FLUSHES = 0.5  # a reader sees what is at most a second old


def _translated(
    method: Callable[Concatenate["RunWriter", Arguments], Answer],
) -> Callable[Concatenate["RunWriter", Arguments], Answer]:
    """Make a method raise StorageError for errors of the files."""

    @wraps(method)
    def translated(self: "RunWriter", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with translated_errors(self.folder):
            return method(self, *args, **kwargs)

    return translated


class RunWriter:
    """Writes metrics.jsonl and TensorBoard's event files in the folder of a run.

    Records wait in memory until they are written at once, with `flush`, or by the clock with `flush_if_due`."""

    def __init__(self, folder: Path, *, histograms: int = 0) -> None:
        from linreg.runs.events import Board, EventFile  # slow: imports tensorboard

        self.folder = folder
        self.histograms = histograms
        self.board: Any = Board(str(folder))
        self.charts: dict[str, Any] = {}  # an event file for each curve of the losses
        self.open_chart: Callable[[str], Any] = lambda name: EventFile(folder / f"loss_{name}")
        self.metrics = (folder / "metrics.jsonl").open("a")
        self.waiting: list[tuple[float, EpochRecord]] = []
        self.due_at = 0.0

    @_translated
    def write(self, record: EpochRecord, model: nn.Module) -> None:
        """Add the record of an epoch, and histograms of the parameters if they are due; write them by the clock."""
        self.waiting.append((time.time(), record))
        if self.histograms and (record.epoch + 1) % self.histograms == 0:
            for name, parameter in model.named_parameters():
                self.board.add_histogram(f"parameters/{name}", parameter.detach(), record.epoch)
        self.flush_if_due()

    def write_scalars(self, record: EpochRecord, now: float) -> None:
        """Add the losses to one chart, and the learning rate to another."""
        losses = {"training": record.loss, "validation": record.val_loss, "exact": record.exact}
        for name, loss in losses.items():
            if loss is not None:
                if name not in self.charts:
                    self.charts[name] = self.open_chart(name)
                self.charts[name].add_scalar("loss", loss, record.epoch, now)
        self.board.file_writer.add_scalar("learning_rate", record.lr, record.epoch, now)

    @_translated
    def write_spec(self, text: str) -> None:
        """Write the spec, as text."""
        self.board.add_text("spec", f"```yaml\n{text}```")

    def write_graph(self, model: nn.Module, x: torch.Tensor) -> None:
        """Write the model's graph, traced on inputs x (N, n_features). Warn if the model cannot be traced."""
        was_training, before = model.training, generators.states(x.device)
        model.eval()
        try:
            # Tracing draws random numbers, warns, and prints.
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                # add_graph would trace three times to compare, and import sympy
                self.board.add_graph(torch.jit.trace(model, x, check_trace=False), x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        except Exception as error:  # a model may raise anything
            reason = str(error).strip().partition("\n")[0]
            log.warning("cannot write the model's graph: %s; set writer.graph=false to skip it", reason)
        finally:
            model.train(was_training)
            generators.set_states(before, x.device)

    @_translated
    def write_hparams(self, hparams: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Write the hyperparameters and the names of the final metrics. `add_hparams` would make an extra run."""
        from torch.utils.tensorboard.summary import hparams as summaries

        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in hparams.items()
        }
        for summary in summaries(plain, dict.fromkeys(metrics)):  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.board.file_writer.add_summary(summary)

    @_translated
    def write_summary(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Write the metrics of the whole run, for the table of hyperparameters."""
        for name, value in metrics.items():
            self.board.add_scalar(name, value, epoch)

    @_translated
    def write_figure(self, name: str, figure: Any, epoch: int) -> None:
        """Write a matplotlib figure."""
        self.board.add_figure(name, figure, epoch)

    @_translated
    def write_events(self, events: Sequence[Any]) -> None:
        """Write events from another file."""
        for event in events:
            self.board.file_writer.add_event(event)

    def flush_if_due(self) -> None:
        """Write what waits if the last time was half a second ago. Raises StorageError."""
        if time.monotonic() >= self.due_at:
            self.flush()

    @_translated
    def flush(self) -> None:
        """Write what waits to all files."""
        waiting, self.waiting = self.waiting, []
        self.metrics.write("".join(record.to_json() for _, record in waiting))
        self.metrics.flush()
        for now, record in waiting:
            self.write_scalars(record, now)
        for file in self._event_files:
            file.flush()
        self.due_at = time.monotonic() + SECONDS_BETWEEN_FLUSHES

    @_translated
    def close(self) -> None:
        """Flush and close."""
        try:
            self.flush()  # it may open charts
        finally:
            with contextlib.ExitStack() as stack:  # close all, even if one fails
                for file in (self.metrics, *self._event_files):
                    stack.callback(file.close)

    @property
    def _event_files(self) -> list[Any]:
        return [self.board.file_writer, *self.charts.values()]


def add_figure(folder: Path, name: str, figure: Any, step: int) -> None:
    """Add a matplotlib figure to the events of a run that no process is writing. Raises StorageError.

    It stays until the run is resumed, which changes its model."""
    from linreg.runs.events import Board  # slow: imports tensorboard

    with lock(folder), translated_errors(folder):
        board = Board(str(folder))
        with contextlib.closing(board):
            board.add_figure(name, figure, step)


@contextlib.contextmanager
def open_writer(folder: Path, records: Sequence[EpochRecord] = (), *, histograms: int = 0) -> Iterator[RunWriter]:
    """Open the writer of a run whose first epochs are `records`.

    metrics.jsonl and the event files are rewritten with these epochs only, without those of an interrupted session.
    """
    old_files = sorted(folder.rglob("events.out.tfevents.*"))
    old_histograms = _histograms(old_files, len(records))
    with translated_errors(folder):
        if records or (folder / "metrics.jsonl").exists():
            replace_file(folder / "metrics.jsonl", "".join(record.to_json() for record in records))
        writer = RunWriter(folder, histograms=histograms)
    try:
        with translated_errors(folder):
            now = time.time()
            for record in records:
                writer.write_scalars(record, now)
        writer.write_events(old_histograms)
        writer.flush()
        with translated_errors(folder):
            for file in old_files:
                file.unlink()
        yield writer
    finally:
        writer.close()


def _histograms(files: Sequence[Path], epochs: int) -> list[Any]:
    """Read the events with histograms of the first epochs, without duplicates: a session that was killed while
    rewriting left both old and new files. Scalars come from the records."""
    if not files:
        return []
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events = [event for file in files for event in LegacyEventFileLoader(str(file)).Load()]
    histograms = {
        (value.tag, event.step): event
        for event in events
        for value in event.summary.value
        if event.step < epochs and value.HasField("histo")
    }
    return sorted(histograms.values(), key=lambda event: event.step)
