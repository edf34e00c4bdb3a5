"""The files of a sweep: trials.jsonl, written before the training, and results.jsonl, a line for each member."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linreg.errors import SpecError, StorageError
from linreg.runs.records import MOST_BYTES, first_session, open_regular
from linreg.spec.sweeps import Sweep, Trial, trials_of
from linreg.system.files import replace_file, translated_errors

TRIALS = "trials.jsonl"
ENGINE = "sweep"  # of the sessions in run.json


def is_sweep(info: Mapping[str, Any], kind: str = ENGINE) -> bool:
    """Return whether run.json is that of a sweep, or of a cross-validation if kind is `cv`. info: its content, which
    anybody may have changed."""
    return first_session(info).get("engine") == kind


def part_of(path: Path, rank: int) -> Path:
    """Return the file of a process: that of the whole for the first one."""
    return path if rank == 0 else path.with_name(f"{path.stem}.{rank}{path.suffix}")


def parts_of(path: Path) -> list[Path]:
    """Return the files of all processes but the first (see `part_of`)."""
    return sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))


def trial_lines(trials: Sequence[Trial]) -> str:
    """Return the content of trials.jsonl."""
    return "".join(json.dumps({"trial": trial.number, "parameters": trial.parameters}) + "\n" for trial in trials)


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write trials.jsonl. Raises StorageError."""
    replace_file(folder / TRIALS, trial_lines(trials))


def has_trials(folder: Path, trials: Sequence[Trial], *, grows: bool) -> bool:
    """Return whether trials.jsonl has these trials; with `grows`, whether it begins with them."""
    text, expected = read_text(folder / TRIALS), trial_lines(trials)
    return text.startswith(expected) if grows else text == expected


def read_trials(spec: Sweep, folder: Path, first: Sequence[Trial]) -> list[Trial]:
    """Return the trials of trials.jsonl, which begins with `first`. Raises StorageError if the others are damaged."""
    path = folder / TRIALS
    text, later = read_text(path), list[Trial]()
    try:
        rest = [json.loads(line)["parameters"] for line in text.splitlines()[len(first) :]]
        if all(map(spec.sweep.has, rest)):
            later = trials_of(spec, rest, len(first))
    except (ValueError, KeyError, TypeError, RecursionError, SpecError):
        pass
    if text != trial_lines([*first, *later]):
        raise StorageError(f"{path}: damaged; run the command without --resume to start another sweep")
    return [*first, *later]


def read_text(path: Path) -> str:
    """Return the content of a file of a sweep; empty without one."""
    try:
        with open_regular(path) as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def results_of(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of results; none without the file."""
    lines = []
    try:
        with open_regular(path) as file:
            for text in file:
                if not text.endswith(b"\n") or not isinstance(line := json.loads(text), dict):
                    break
                lines.append(line)
    except (OSError, ValueError, RecursionError):
        pass
    return lines


class Results:
    """Appends lines to results.jsonl, each on disk before the next, and keeps all lines."""

    def __init__(self, path: Path) -> None:
        """Read the lines of an interrupted sweep; a line that is cut off is removed. Raises StorageError."""
        self.path, self.lines = path, results_of(path)
        with translated_errors(self.path):
            replace_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
            self._file = self.path.open("a")

    def add(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines, and wait until they are on disk. Raises StorageError."""
        with translated_errors(self.path):
            self._file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.lines += map(dict, lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
