"""Text for people and programs: lines to stderr, results to stdout, tables."""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CHARACTERS = 2_000  # of one line of an error


def say(text: str) -> None:
    """Write a line to stderr; a terminal that is gone does not stop the work."""
    if sys.stderr is None:
        return
    try:
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None  # as Python itself has it for a closed one


def tolerate_any_text() -> None:
    """Write what a stream's encoding does not have as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Escape what would move a terminal's cursor or colours."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(line: str) -> str:
    """Leave out the middle of a line that nobody would read."""
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS // 2]} … {line[-MOST_CHARACTERS // 2 :]}"


def put(text: str) -> None:
    """Write a result to stdout; a pipe that nobody reads any more is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def put_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    put(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))  # JSON itself escapes those below


def show_log(*, quiet: bool) -> None:
    """Send the package's log to stderr: warnings by that name, what is good to know unless quiet."""
    log = logging.getLogger("linreg")
    log.handlers = [_Handler()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say("\n".join(map(printable, f"{prefix}{record.getMessage()}".split("\n"))))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Lay out rows under the names of the columns: numbers to the right, text to the left."""
    cells = [[number(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    right = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(line, widths, right, strict=True)
        )
        for line in [list(columns), *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def coefficients_table(coefficients: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the coefficients of a fit, the exact ones only where they are others."""
    columns = ["target", "name", "estimate", "std_error", "t", "exact"]
    same = all(row["exact"] == row["estimate"] for row in coefficients)
    left = {"target"} - set(coefficients[0]) | ({"exact"} if same else set())
    return table(coefficients, [column for column in columns if column not in left])


def fit_line(fit: Mapping[str, Any]) -> str:
    """Say in a line how well the optimum fits the training part."""
    r2 = fit["r2"] if isinstance(fit["r2"], list) else [fit["r2"]]
    said = ", ".join(number(value) for value in r2)
    return f"least squares on the training part: R2 {said}, {fit['degrees_of_freedom']} degrees of freedom"


def number(value: Any) -> str:
    """Show a value in a table: six digits of a number, a dash for none."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def duration(seconds: float) -> str:
    """Show a time: 0.61 s, 4:05, 2:04:05."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
