"""Reads the files of a run: run.json, metrics.jsonl and results.jsonl. Anybody may have changed them."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 2**24  # of run.json, or of a line of another file
RESULTS = "results.jsonl"  # of a sweep or a cross-validation: a line for each training


def read_info(folder: Path) -> dict[str, Any]:
    """Read run.json. Returns an empty dictionary if it is missing or cannot be read."""
    try:
        with open_regular(folder / "run.json") as file:
            info = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def first_session(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first session of a run.json; empty without one."""
    sessions = info.get("sessions")
    return sessions[0] if isinstance(sessions, list) and sessions and isinstance(sessions[0], dict) else {}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of metrics.jsonl, up to its end or to a truncated line."""
    return _read_lines(folder / "metrics.jsonl")


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Read the records of results.jsonl, up to its end or to a truncated line; none without the file."""
    return _read_lines(folder / RESULTS)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    try:
        with open_regular(path) as file:
            while isinstance(record := json.loads(file.readline(MOST_BYTES)), dict):
                records.append(record)
    except (OSError, ValueError, RecursionError):  # also at the end of the file
        pass
    return records


def open_regular(path: Path) -> IO[bytes]:
    """Open a file of a run. Raises OSError, also for a pipe or a device, which might never end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115  # returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path}: not a file")
    return file
