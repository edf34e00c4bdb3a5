"""All that TensorBoard and metrics.jsonl see. Nothing written here moves a number of the training."""

import contextlib
import io
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

from linreg.system import generators
from linreg.system.files import replace_file, translated_errors

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class EpochRecord:
    """One line of metrics.jsonl: an epoch counted from 0, its losses, the learning rate as it ended, and the lowest
    loss that there can be (of the validation part where there is one), if it is known."""

    epoch: int
    loss: float
    val_loss: float | None
    lr: float
    exact: float | None = None

    def to_json(self) -> str:
        """Write the record as a line of JSON; the numbers read back as the same."""
        return json.dumps(asdict(self)) + "\n"


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def _translated(
    method: Callable[Concatenate["RunWriter", Arguments], Answer],
) -> Callable[Concatenate["RunWriter", Arguments], Answer]:
    """Let a method raise StorageError for what befalls the files, be it of this write or of one before: TensorBoard
    writes in threads, which hand on what ended them at the next call."""

    @wraps(method)
    def translated(self: "RunWriter", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with translated_errors(self.folder):
            return method(self, *args, **kwargs)

    return translated


@cache
def _tell_once() -> None:
    """Keep Python from telling, with a traceback, of the disk's error that ended a thread of TensorBoard's."""
    before = threading.excepthook

    def tell(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = tell


class RunWriter:
    """Writes one run's folder: metrics.jsonl and TensorBoard's event files."""

    def __init__(self, folder: Path, *, histograms: int = 0) -> None:
        _tell_once()
        self.folder = folder
        self.histograms = histograms
        from torch.utils.tensorboard import SummaryWriter  # only those who write pay for it

        self.board: Any = SummaryWriter(str(folder))
        self.metrics = (folder / "metrics.jsonl").open("a")

    @_translated
    def write(self, record: EpochRecord, model: nn.Module) -> None:
        """Write what an epoch came to."""
        self.metrics.write(record.to_json())
        self.metrics.flush()
        self.write_scalars(record)
        if self.histograms and (record.epoch + 1) % self.histograms == 0:
            for name, parameter in model.named_parameters():
                self.board.add_histogram(f"parameters/{name}", parameter.detach(), record.epoch)

    @_translated
    def write_scalars(self, record: EpochRecord) -> None:
        """Send the losses to one chart, and the learning rate to another."""
        losses = {"training": record.loss}
        if record.val_loss is not None:
            losses["validation"] = record.val_loss
        if record.exact is not None:
            losses["exact"] = record.exact
        self.board.add_scalars("loss", losses, record.epoch)
        self.board.add_scalar("learning_rate", record.lr, record.epoch)

    @_translated
    def write_spec(self, text: str) -> None:
        """Send the spec, as text."""
        self.board.add_text("spec", f"```yaml\n{text}```")

    def write_graph(self, model: nn.Module, x: torch.Tensor) -> None:
        """Send the model's graph, traced on inputs x (N, n_features). A model that cannot be traced is trained all
        the same, with a warning."""
        was_training, before = model.training, generators.states(x.device)
        model.eval()
        try:
            # Tracing draws random numbers, warns, and prints what it could not do.
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                # traced here, and not by add_graph: that would trace thrice to compare, and import sympy for it
                self.board.add_graph(torch.jit.trace(model, x, check_trace=False), x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        except Exception as error:  # whatever a model raises when it is traced
            reason = str(error).strip().partition("\n")[0]
            log.warning("the model's graph is not shown: %s; writer.graph=false leaves it out", reason)
        finally:
            model.train(was_training)
            generators.set_states(before, x.device)

    @_translated
    def write_hparams(self, hparams: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Send the hyperparameters and the names of the final metrics; `add_hparams` would make an extra run."""
        from torch.utils.tensorboard.summary import hparams as summaries

        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in hparams.items()
        }
        for summary in summaries(plain, dict.fromkeys(metrics)):  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.board.file_writer.add_summary(summary)

    @_translated
    def write_summary(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Send the metrics of the whole run, which stand beside the hyperparameters."""
        for name, value in metrics.items():
            self.board.add_scalar(name, value, epoch)

    @_translated
    def write_figure(self, name: str, figure: Any, epoch: int) -> None:
        """Send a matplotlib figure."""
        self.board.add_figure(name, figure, epoch)

    @_translated
    def write_events(self, events: Sequence[Any]) -> None:
        """Send events as they were read from another file."""
        for event in events:
            self.board.file_writer.event_writer.add_event(event)

    @_translated
    def flush(self) -> None:
        """Bring all that was written so far to the files."""
        self.board.flush()
        self.metrics.flush()

    @_translated
    def close(self) -> None:
        """Flush and close."""
        with contextlib.ExitStack() as stack:  # each is closed, though another fails
            stack.callback(self.metrics.close)
            for file_writer in self.board.all_writers.values():
                stack.callback(file_writer.close)
            self.board.flush()


@contextlib.contextmanager
def open_writer(folder: Path, records: Sequence[EpochRecord] = (), *, histograms: int = 0) -> Iterator[RunWriter]:
    """Open the writer of a run whose first epochs are `records`.

    What the folder held beyond them, an interrupted session's, is dropped: metrics.jsonl and the event files are
    written anew, so that every reader of them agrees.
    """
    old_files = sorted(folder.rglob("events.out.tfevents.*"))
    old_histograms = _histograms(old_files, len(records))
    with translated_errors(folder):
        if records or (folder / "metrics.jsonl").exists():
            replace_file(folder / "metrics.jsonl", "".join(record.to_json() for record in records))
        writer = RunWriter(folder, histograms=histograms)
    try:
        for record in records:
            writer.write_scalars(record)
        writer.write_events(old_histograms)
        writer.flush()
        with translated_errors(folder):
            for file in old_files:
                file.unlink()
        yield writer
    finally:
        writer.close()


def _histograms(files: Sequence[Path], epochs: int) -> list[Any]:
    """Read the events with histograms of the first epochs, each once: a session that was killed while it wrote the
    files anew has left both the old ones and its own. The scalars come from the records."""
    if not files:
        return []
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events = [event for file in files for event in LegacyEventFileLoader(str(file)).Load()]
    found = {
        (value.tag, event.step): event
        for event in events
        for value in event.summary.value
        if event.step < epochs and value.HasField("histo")
    }
    return sorted(found.values(), key=lambda event: event.step)
