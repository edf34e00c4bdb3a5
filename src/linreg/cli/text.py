"""Prints results to stdout and messages to stderr, and formats tables and numbers. Every command uses it."""

import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from linreg.errors import brief
from linreg.system.place import place

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


def shorten(line: str, most: int = MOST_CHARACTERS) -> str:
    """Cut the middle out of a line that is too long to read, so that about `most` characters are left."""
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for each Chinese, Japanese or Korean character."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def filled(text: str, width: int, *, is_right: bool = False) -> str:
    """Fill a text with blanks up to a width in a terminal."""
    blanks = " " * (width - width_of(text))
    return blanks + text if is_right else text + blanks


def shorten_middle(name: str, most: int) -> str:
    """Shorten a name to at most `most` columns of a terminal, in the middle."""
    if width_of(name) <= most:
        return name
    from rich.cells import set_cell_size

    end = (most - 1) // 2
    return f"{set_cell_size(name, most - 1 - end)}…{set_cell_size(name[::-1], end)[::-1]}"


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
    """Print the package's log to stderr: warnings, and notes unless quiet. Of a group only the first process does."""
    log = logging.getLogger("linreg")
    log.handlers = [_Handler()]
    log.propagate = False
    log.setLevel(logging.ERROR if not place().is_first else logging.WARNING if quiet else logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        print_stderr("\n".join(map(printable, f"{prefix}{record.getMessage()}".split("\n"))))


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, break_names: bool = False) -> str:
    """Format rows under the names of the columns. Numbers are aligned to the right, text to the left.

    break_names: break names after dots and spaces where they are wider than the values."""
    cells = [[format_value(row.get(column)) for column in columns] for row in rows]
    widths = [max((width_of(line[i]) for line in cells), default=0) for i in range(len(columns))]
    names = [_broken(column, width) if break_names else [column] for column, width in zip(columns, widths, strict=True)]
    widths = [max(width, *map(width_of, name)) for width, name in zip(widths, names, strict=True)]
    height = max(map(len, names))
    head = list(zip(*([""] * (height - len(name)) + name for name in names), strict=True))
    is_right = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    lines = [
        "  ".join(
            filled(cell, width, is_right=right) for cell, width, right in zip(line, widths, is_right, strict=True)
        )
        for line in [*head, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)


def _broken(name: str, width: int) -> list[str]:
    """Break the name of a column into lines that are not wider than `width`, or than its longest part."""
    parts = re.split(r"(?<=[. ])", name)
    width, lines = max(width, *(width_of(part.rstrip()) for part in parts)), [""]
    for part in parts:
        if width_of((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def format_wide_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int | None, *, together: Sequence[str] = ()
) -> str:
    """Format a table for a terminal of a width, None for a file.

    A table that is too wide has broken names of columns. If it still is, some columns are in another table below it,
    beside the first column. together: the last columns, which are in one table if they fit.
    """
    first, *others = columns

    def formatted(block: Sequence[str]) -> str:
        table = format_table(rows, [first, *block])
        is_wide = width is not None and max(map(width_of, table.split("\n"))) > width
        return format_table(rows, [first, *block], break_names=True) if is_wide else table

    def fits(block: Sequence[str]) -> bool:
        return width is None or max(map(width_of, formatted(block).split("\n"))) <= width

    groups = [[column] for column in others if column not in together]
    groups += [list(together)] if fits(together) else [[column] for column in together]
    blocks: list[list[str]] = [[]]
    for group in groups:
        if blocks[-1] and not fits([*blocks[-1], *group]):
            blocks.append([])
        blocks[-1] += group
    return "\n\n".join(map(formatted, blocks))


def terminal_width() -> int | None:
    """Return the number of columns of the terminal that stdout goes to; None if it goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_interval(interval: tuple[float, float] | None) -> str | None:
    """Format an interval with three digits: -0.0012 to 0.345."""
    return None if interval is None else "{:.3g} to {:.3g}".format(*interval)


def coefficients_table(coefficients: Sequence[Mapping[str, Any]]) -> str:
    """Format the coefficients of a fit, with the exact ones where they differ."""
    columns = ["target", "name", "estimate", "std_error", "t", "exact"]
    same = all(row["exact"] == row["estimate"] for row in coefficients)
    dropped = {"target"} - set(coefficients[0]) | ({"exact"} if same else set())
    if all(row["std_error"] is None for row in coefficients):
        dropped |= {"std_error", "t"}
    return format_table(coefficients, [column for column in columns if column not in dropped])


def fit_line(fit: Mapping[str, Any]) -> str:
    """Describe in a line how well the exact solution fits the training part."""
    of = f" of {', '.join(fit['targets'])}" if "targets" in fit else ""
    penalty = fit.get("penalty")
    name = "least squares" if penalty is None else penalty["name"].replace("_", " ")
    text = f"{name} on the training part: R2{of} {_values(fit['r2'])}"
    if "r2_uncentred" in fit:
        text += f" (uncentred, as without an intercept: {_values(fit['r2_uncentred'])})"
    text += f", {fit['degrees_of_freedom']} degrees of freedom" if penalty is None else f"; {describe_penalty(penalty)}"
    if fit["perfect_fit"]:
        text += "\nperfect fit: residuals are zero up to rounding; standard errors are not meaningful"
    return text


def describe_penalty(penalty: Mapping[str, Any]) -> str:
    """Describe the strength of a penalty and its choice."""
    text = f"strength {format_value(penalty['strength'])}"
    if penalty["n_folds"] is not None:
        error, deviation = (format_value(penalty[key]) for key in ("error", "standard_error"))
        text += f", {penalty['select']} of {penalty['n_strengths']} on {penalty['n_folds']} folds"
        text += f" (mean squared error {error}, standard error {deviation})"
    return text + f"; {penalty['n_slopes']} of {penalty['n_columns']} slopes are not 0"


def _values(values: Any) -> str:
    return ", ".join(format_value(value) for value in (values if isinstance(values, list) else [values]))


def format_value(value: Any) -> str:
    """Format a value: a number with six digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def format_probability(p: float) -> str:
    """Format a p value: <1e-16, 3.4e-05, 0.0312."""
    if p < 1e-16:
        return "<1e-16"
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def setting_cell(value: Any, most: int = 60) -> Any:
    """Return a value of a spec for a table: a number as it is, anything else as about `most` characters."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if value is None or is_number else shorten(printable(brief(value)), most)


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
