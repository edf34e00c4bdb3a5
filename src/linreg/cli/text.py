"""Prints results to stdout and messages to stderr, and formats tables and numbers. Every command uses it."""

import io
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CHARACTERS = 2_000  # of one line of an error


def print_stderr(text: str) -> None:
    """Print lines to stderr. A closed terminal does not stop the command."""
    if sys.stderr is None:
        return
    try:
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None  # as Python does for a closed one


def escape_unencodable() -> None:
    """Print characters that are not in a stream's encoding as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Escape control characters, which could change a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(line: str) -> str:
    """Cut the middle out of a line that is too long to read."""
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS // 2]} … {line[-MOST_CHARACTERS // 2 :]}"


def print_stdout(text: str) -> None:
    """Print a result to stdout. A pipe without a reader is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    print_stdout(re.sub(r"[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text))  # JSON escapes the lower ones


def show_log(*, quiet: bool) -> None:
    """Print the package's log to stderr: warnings, and notes unless quiet."""
    log = logging.getLogger("linreg")
    log.handlers = [_Handler()]
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print_stderr("\n".join(map(printable, f"{prefix}{record.getMessage()}".split("\n"))))


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Format rows under the names of the columns. Numbers are aligned to the right, text to the left."""
    cells = [[format_value(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    is_right = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(line, widths, is_right, strict=True)
        )
        for line in [list(columns), *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def coefficients_table(coefficients: Sequence[Mapping[str, Any]]) -> str:
    """Format the coefficients of a fit, with the exact ones where they differ."""
    columns = ["target", "name", "estimate", "std_error", "t", "exact"]
    same = all(row["exact"] == row["estimate"] for row in coefficients)
    dropped = {"target"} - set(coefficients[0]) | ({"exact"} if same else set())
    return format_table(coefficients, [column for column in columns if column not in dropped])


def fit_line(fit: Mapping[str, Any]) -> str:
    """Describe in a line how well the exact solution fits the training part."""
    of = f" of {', '.join(fit['targets'])}" if "targets" in fit else ""
    text = f"least squares on the training part: R2{of} {_values(fit['r2'])}"
    if "r2_uncentred" in fit:
        text += f" (uncentred, as without an intercept: {_values(fit['r2_uncentred'])})"
    text += f", {fit['degrees_of_freedom']} degrees of freedom"
    if fit["perfect_fit"]:
        text += "\nperfect fit: residuals are zero up to rounding; standard errors are not meaningful"
    return text


def _values(values: Any) -> str:
    return ", ".join(format_value(value) for value in (values if isinstance(values, list) else [values]))


def format_value(value: Any) -> str:
    """Format a value: a number with six digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def format_duration(seconds: float) -> str:
    """Format a time: 0.61 s, 4:05, 2:04:05."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_count(n: int, noun: str) -> str:
    """Format a number of things: 1 feature, 2 features."""
    return f"{n} {noun}{'s' * (n != 1)}"
