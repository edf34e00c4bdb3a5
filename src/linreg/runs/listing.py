"""Lists runs: `linreg runs`."""

import sys
from pathlib import Path
from typing import Any

from linreg.errors import UsageError, shorten
from linreg.runs.lock import is_free
from linreg.runs.records import first_session, read_info, read_metrics


def summaries(runs: Path, checkpoints: Path) -> list[dict[str, Any]]:
    """Return a summary of every run, the oldest first. Raises UsageError if `runs` is a file."""
    if runs.exists() and not runs.is_dir():
        raise UsageError(f"{runs}: a file, not a folder of runs; name a folder with --runs")
    folders = [folder for folder in runs.iterdir() if (folder / "run.json").is_file()] if runs.is_dir() else []
    rows = [summary(folder, checkpoints) for folder in folders]
    return sorted(rows, key=lambda run: (str(run["started"] or ""), run["run"]))


def summary(folder: Path, checkpoints: Path) -> dict[str, Any]:
    """Return the name of a run, its outcome, and the losses of its last epoch."""
    info, records = read_info(folder), read_metrics(folder)
    outcome = info.get("outcome", "interrupted")
    if outcome == "running":
        with is_free(folder) as free:
            outcome = "interrupted" if free else "running"  # a killed run could not change it
    last = checkpoints / folder.name / "last.pth"
    return {
        "run": folder.name,
        "outcome": plain(outcome),
        "epochs": len(records),
        "loss": plain(records[-1].get("loss")) if records else None,
        "val_loss": plain(records[-1].get("val_loss")) if records else None,
        "started": plain(first_session(info).get("started")),
        "checkpoint": str(last) if last.is_file() else None,
    }


def plain(value: Any) -> Any:
    """Return None or a finite number as it is, any other value as one short line of text."""
    if value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max):
        return value
    return shorten(str(value))
