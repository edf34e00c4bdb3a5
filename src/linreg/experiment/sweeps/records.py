"""The files of a sweep: trials.jsonl, written before the training, and results.jsonl, a line for each member."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linreg.runs.records import MOST_BYTES, open_regular
from linreg.spec.sweeps import Trial
from linreg.system.files import replace_file, translated_errors

TRIALS, RESULTS = "trials.jsonl", "results.jsonl"


def trial_lines(trials: Sequence[Trial]) -> str:
    """Return the content of trials.jsonl."""
    return "".join(json.dumps({"trial": trial.number, "parameters": trial.parameters}) + "\n" for trial in trials)


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write trials.jsonl. Raises StorageError."""
    replace_file(folder / TRIALS, trial_lines(trials))


def read_text(path: Path) -> str:
    """Return the content of a file of a sweep; empty without one."""
    try:
        with open_regular(path) as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


class Results:
    """Appends lines to results.jsonl, each on disk before the next, and keeps all lines."""

    def __init__(self, folder: Path) -> None:
        """Read the lines of an interrupted sweep; a line that is cut off is removed. Raises StorageError."""
        self.path = folder / RESULTS
        self.lines = self._read()
        with translated_errors(self.path):
            replace_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
            self._file = self.path.open("a")

    def _read(self) -> list[dict[str, Any]]:
        lines = []
        try:
            with open_regular(self.path) as file:
                for text in file:
                    if not text.endswith(b"\n") or not isinstance(line := json.loads(text), dict):
                        break
                    lines.append(line)
        except (OSError, ValueError, RecursionError):
            pass
        return lines

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
