"""How training is watched and stopped: a bar on a terminal, sober lines elsewhere, signals."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from linreg.cli.text import duration, number, say

if TYPE_CHECKING:
    from linreg.experiment.building import Experiment
    from linreg.experiment.session import Report
    from linreg.runs.writer import EpochRecord

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_DRAWS = 0.1


@contextmanager
def open_progress(*, quiet: bool) -> Iterator["Report | None"]:
    """Open what is told of each epoch: nothing if quiet, a bar on a terminal, else a line every few seconds."""
    if quiet:
        yield None
    elif _on_terminal():
        with _bar() as report:
            yield report
    else:
        yield _lines()


def _on_terminal() -> bool:
    fancy = os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
    return fancy and sys.stderr is not None and sys.stderr.isatty()


class _Pace:
    """Tells the speed and the time left, from the epochs that were seen."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.first: int | None = None  # the first epoch seen; what came before it was not training alone

    def of(self, record: "EpochRecord", experiment: "Experiment") -> tuple[float, float]:
        """Steps a second, and seconds left."""
        now = time.monotonic()
        if self.first is None:
            self.first, seconds_an_epoch = record.epoch, now - self.begin
            self.begin = now
        else:
            seconds_an_epoch = (now - self.begin) / (record.epoch - self.first)
        left = (experiment.spec.epochs - record.epoch - 1) * seconds_an_epoch
        return len(experiment.loaders.train) / max(seconds_an_epoch, 1e-9), left


def _losses(record: "EpochRecord") -> str:
    val_loss = "" if record.val_loss is None else f"  val_loss {record.val_loss:.6g}"
    return f"loss {record.loss:.6g}{val_loss}"


def _lines() -> "Report":
    pace = _Pace()
    said_at = time.monotonic()

    def report(record: "EpochRecord", experiment: "Experiment") -> None:
        nonlocal said_at
        speed, left = pace.of(record, experiment)
        if time.monotonic() - said_at >= SECONDS_BETWEEN_LINES:
            said_at = time.monotonic()
            epochs = f"epoch {record.epoch + 1}/{experiment.spec.epochs}"
            say(f"{epochs}  {_losses(record)}  {number(round(speed))} steps/s  {duration(left)} left")

    return report


@contextmanager
def _bar() -> Iterator["Report"]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(24),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        pace = _Pace()
        task = progress.add_task("", total=1, visible=False)
        drawn_at = 0.0

        def report(record: "EpochRecord", experiment: "Experiment") -> None:
            nonlocal drawn_at
            speed, left = pace.of(record, experiment)
            if time.monotonic() - drawn_at >= SECONDS_BETWEEN_DRAWS:
                drawn_at = time.monotonic()
                text = f"{_losses(record)}  {speed:.0f} steps/s  {duration(left)} left"
                epochs = experiment.spec.epochs
                progress.update(task, completed=record.epoch + 1, total=epochs, description=text, visible=True)

        yield report


@contextmanager
def open_row_count(*, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Open what is told how many rows are done: nothing if quiet, a bar on a terminal, else a line now and then."""
    if quiet:
        yield None
        return
    said_at = begin = time.monotonic()
    if not _on_terminal():

        def report(rows: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= SECONDS_BETWEEN_LINES:
                said_at = time.monotonic()
                say(f"{rows} rows, {number(round(rows / (said_at - begin)))} rows/s")

        yield report
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    with Progress(BarColumn(24), TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def draw(rows: int) -> None:
            speed = rows / max(time.monotonic() - begin, 1e-9)
            progress.update(task, description=f"{rows} rows  {speed:.0f} rows/s")

        yield draw


class Stopped(BaseException):  # not an error, and nobody is to take it for one on its way
    """The process ends because a signal asked for it, wherever it was."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


class StopFlag:
    """Set by the first signal that asks to stop; calling it says whether one came. Whoever has called it once will look
    again; before that there is nothing to save."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_watched = False

    def __call__(self) -> bool:
        """Say whether a stop was asked for."""
        self.is_watched = True
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Let SIGINT, SIGTERM and SIGHUP ask for a stop, instead of ending the process. A second one ends it, and so does
    the first while there is nothing to save: a table may take long to read."""
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        if flag.signal is not None:
            os._exit(128 + number)  # at once: an exception could leave TensorBoard's writer waiting for ever
        flag.signal = number
        if not flag.is_watched:
            raise Stopped(flag.exit_code)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: list[Callable[..., object] | int | None] = [signal.signal(number, ask) for number in numbers]
    try:
        yield flag
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
