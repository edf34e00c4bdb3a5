"""Shows the progress of a command on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from linreg.cli.text import format_duration, print_stderr

if TYPE_CHECKING:
    from linreg.experiment.building import Experiment
    from linreg.experiment.session import Report
    from linreg.runs.writer import EpochRecord

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_DRAWS = 0.1

Show = Callable[[int, int | None, Callable[[], str]], None]  # of n done, n in all, and a text if it is shown


@contextmanager
def open_progress(*, quiet: bool) -> Iterator["Report | None"]:
    """Open the report of each epoch: losses, speed and the time left. None if quiet."""
    if quiet:
        yield None
        return
    begin = time.monotonic()
    first: int | None = None  # the first reported epoch; the time before it is not only training

    with _open_display("epoch {}") as show:

        def report(record: "EpochRecord", experiment: "Experiment") -> None:
            nonlocal begin, first
            n_done, n_epochs, now = record.epoch + 1, experiment.spec.epochs, time.monotonic()
            seconds_per_epoch = (now - begin) / (1 if first is None else record.epoch - first)
            if first is None:
                first, begin = record.epoch, now

            def text() -> str:
                val_loss = "" if record.val_loss is None else f"  val_loss {record.val_loss:.6g}"
                speed = len(experiment.loaders.train) / max(seconds_per_epoch, 1e-9)
                left = format_duration((n_epochs - n_done) * seconds_per_epoch)
                return f"loss {record.loss:.6g}{val_loss}  {speed:.0f} steps/s  {left} left"

            show(n_done, n_epochs, text)

        yield report


@contextmanager
def open_row_count(*, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Open the report of the number of rows that are done, with the speed. None if quiet."""
    if quiet:
        yield None
        return
    begin = time.monotonic()
    with _open_display("{} rows") as show:
        yield lambda n_rows: show(n_rows, None, lambda: f"{n_rows / max(time.monotonic() - begin, 1e-9):.0f} rows/s")


@contextmanager
def open_column_count(*, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Open the report of the number of columns that are done. None if quiet."""
    if quiet:
        yield None
        return
    with _open_display("column {}") as show:
        yield lambda n_done, n_columns: show(n_done, n_columns, lambda: "")


@contextmanager
def open_count(count: str, *, quiet: bool) -> Iterator[Show | None]:
    """Open the report of a number that is done. count: a format of it, as `model {}`. None if quiet."""
    if quiet:
        yield None
        return
    with _open_display(count) as show:
        yield show


@contextmanager
def _open_display(count: str) -> Iterator[Show]:
    """Open a bar on a terminal; elsewhere, and in CI, print lines. count: a format of the number that is done."""
    is_plain = os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))
    if not is_plain and sys.stderr is not None and sys.stderr.isatty():
        with _open_bar(count) as draw:
            yield _limit(draw, SECONDS_BETWEEN_DRAWS, shown_at=0.0)
    else:

        def print_line(n_done: int, total: int | None, text: Callable[[], str]) -> None:
            print_stderr(f"{_format(count, n_done, total)}  {text()}")

        yield _limit(print_line, SECONDS_BETWEEN_LINES, shown_at=time.monotonic())


@contextmanager
def _open_bar(count: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.fields[count]}"), BarColumn(24), TextColumn("{task.description}"))
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("", total=None, visible=False, count="")

        def draw(n_done: int, total: int | None, text: Callable[[], str]) -> None:
            done = _format(count, n_done, total)
            progress.update(task, completed=n_done, total=total, description=text(), count=done, visible=True)

        yield draw


def _format(count: str, n_done: int, total: int | None) -> str:
    return count.format(n_done if total is None else f"{n_done}/{total}")


def _limit(show: Show, seconds: float, *, shown_at: float) -> Show:
    """Return a function that shows at most once in a number of seconds."""

    def limited(n_done: int, total: int | None, text: Callable[[], str]) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= seconds:
            shown_at = time.monotonic()
            show(n_done, total, text)

    return limited
