"""The row that every part of the benchmarks gives, and how times are taken."""

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

ROOT = Path(__file__).parent.parent

# What a process gets that runs in another folder: this source, and this package.
_PATH = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

_SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass(frozen=True)
class Row:
    """One comparison of linreg with a reference.

    ratio: ours / reference if lower is better, reference / ours (a speed-up) if higher is; None if it was not measured.
    target: the largest or smallest allowed ratio; None without one. seconds: ours, in `unit`, like the reference's.
    note: the reason why it was not measured, or a remark.
    """

    name: str
    ratio: float | None
    target: float | None
    better: Literal["lower", "higher"]
    reference: str
    seconds: float | None
    reference_seconds: float | None
    note: str = ""
    unit: str = "s"


def compare(
    name: str,
    reference: str,
    seconds: float | None,
    reference_seconds: float | None,
    *,
    target: float | None = None,
    better: Literal["lower", "higher"] = "lower",
    note: str = "",
    unit: str = "s",
) -> Row:
    """Make the row of two measurements; one that is None leaves the ratio None."""
    ratio = None
    if seconds is not None and reference_seconds is not None:
        ratio = seconds / reference_seconds if better == "lower" else reference_seconds / seconds
    return Row(name, ratio, target, better, reference, seconds, reference_seconds, note, unit)


def verdict(row: Row) -> str:
    """Return whether a row meets its target: met, missed, not measured, or nothing without a target."""
    if row.ratio is None:
        return "not measured"
    if row.target is None:
        return ""
    met = row.ratio <= row.target if row.better == "lower" else row.ratio >= row.target
    return "met" if met else "missed"


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """Make the function that calls another and returns the seconds that it took."""

    def call() -> float:
        start = perf_counter()
        function()
        return perf_counter() - start

    return call


def time_process(
    argv: Sequence[str], *, cwd: Path | None = None, code: int = 0, env: Mapping[str, str] | None = None
) -> float:
    """Run a process to its end; the seconds from start to end. Another exit code than `code` is a RuntimeError. env:
    added to os.environ."""
    start = perf_counter()
    _run(argv, cwd, env or {}, code)
    return perf_counter() - start


def figures(
    program: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> list[float]:
    """Run a Python program in a new process, and return the figures that it prints. env: added to os.environ.
    One that fails is a RuntimeError."""
    printed = _run([sys.executable, "-c", program, *arguments], cwd, env or {}, 0)
    return [float(word) for word in printed.split()]


def _run(argv: Sequence[str], cwd: Path | None, env: Mapping[str, str], code: int) -> str:
    env = {**os.environ, "PYTHONPATH": _PATH, **env}
    ended = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if ended.returncode != code:
        raise RuntimeError(f"{' '.join(argv)}: exit code {ended.returncode}, not {code}\n{ended.stderr}")
    return ended.stdout


def peak_memory() -> int:
    """Return the peak of resident memory of this process, in bytes, since `forget_peak` if that works."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before it started this process
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Reset the peak to the memory that is resident now, on Linux. Elsewhere the peak stays."""
    peaks = Path("/proc/self/clear_refs")
    if peaks.exists():
        peaks.write_text("5")


def reason(complaints: str) -> str:
    """Return the last line of a traceback, which names the exception."""
    last = (complaints.strip().splitlines() or ["no word"])[-1].replace(f"{ROOT}/", "")
    kind, _, text = last.partition(": ")
    return f"not installed: {text}" if kind == "ModuleNotFoundError" else f"failed: {last}"


def in_turn(functions: Mapping[str, Callable[[], float]], runs: int, *, warm_up: int = 1) -> dict[str, float]:
    """Call functions that return a measurement in turn (A B A B ...), `runs` times each; the medians by their names.

    In turn, so that whatever else the machine does slows all alike. warm_up: rounds before, which do not count: they
    fill caches, and compile.
    """
    for _ in range(warm_up):
        for function in functions.values():
            function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            found[name].append(function())
    return {name: statistics.median(values) for name, values in found.items()}


def quantity(value: float | None, unit: str = "s") -> str:
    """Write a measurement to three digits, seconds as s, ms, µs or ns."""
    if value is None:
        return ""
    if unit == "s":
        scale, unit = next((pair for pair in _SCALES if value >= pair[0]), _SCALES[-1])
        value /= scale
    return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return str(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):.{decimals}f}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table whose columns are aligned, so that it reads well in a terminal too."""
    cells = [list(head), *(list(line) for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]

    def written(line: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([written(cells[0]), rule, *map(written, cells[1:])]) + "\n"


def table(parts: Mapping[str, Sequence[Row]]) -> str:
    """Write the rows of all parts as one table of ratios."""
    lines = []
    for part, rows in parts.items():
        for row in rows:
            sign, times = ("≤", "") if row.better == "lower" else ("≥", "x")
            lines.append([
                part,
                row.name,
                row.reference,
                "" if row.ratio is None else _three_digits(row.ratio) + times,
                "" if row.target is None else f"{sign} {row.target:g}{times}",
                verdict(row),
                quantity(row.seconds, row.unit),
                quantity(row.reference_seconds, row.unit),
                row.note,
            ])  # fmt: skip
    return markdown(["part", "linreg", "against", "ratio", "target", "", "linreg's", "the other's", "note"], lines)
