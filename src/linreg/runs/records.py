"""Reads the files of a run: run.json and metrics.jsonl. Anybody may have changed them."""

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 2**24  # of run.json, or of a line of metrics.jsonl


def read_info(folder: Path) -> dict[str, Any]:
    """Read run.json. Returns an empty dictionary if it is missing or cannot be read."""
    try:
        with open_regular(folder / "run.json") as file:
            info = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of metrics.jsonl, up to its end or to a truncated line."""
    records = []
    try:
        with open_regular(folder / "metrics.jsonl") as file:
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
