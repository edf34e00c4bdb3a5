"""Lists and compares runs: `linreg runs`."""

import math
from pathlib import Path
from typing import Any

from linreg.errors import UsageError, shorten
from linreg.runs.folders import existing
from linreg.runs.lock import is_free
from linreg.runs.records import open_regular, read_info, read_metrics
from linreg.spec.document import MAX_BYTES, flatten, read_yaml


def summaries(runs: Path, checkpoints: Path) -> list[dict[str, Any]]:
    """Return a summary of every run, the oldest first. Raises UsageError if `runs` is a file."""
    if runs.exists() and not runs.is_dir():
        raise UsageError(f"{runs}: a file, not a folder of runs; name a folder with --runs")
    folders = [folder for folder in runs.iterdir() if (folder / "run.json").is_file()] if runs.is_dir() else []
    rows = [_summary(folder, checkpoints) for folder in folders]
    return sorted(rows, key=lambda run: (str(run["started"] or ""), run["run"]))


def compare(a: str, b: str, runs: Path, checkpoints: Path) -> list[dict[str, Any]]:
    """Compare two runs, as `a` and `b`: their results, then every setting in which their specs differ.

    Raises UsageError for an unknown run."""
    folders = [existing(name, runs) for name in (a, b)]
    results = [_summary(folder, checkpoints) for folder in folders]
    specs = [_read_spec(folder) for folder in folders]
    names = {"outcome": "outcome", "epochs": "epochs done", "loss": "loss", "val_loss": "val_loss"}
    rows = [{"setting": name, "a": results[0][key], "b": results[1][key]} for key, name in names.items()]
    keys = dict.fromkeys([*specs[0], *specs[1]])
    return rows + [
        {"setting": key, "a": specs[0].get(key), "b": specs[1].get(key)}
        for key in keys
        if specs[0].get(key) != specs[1].get(key)
    ]


def _read_spec(folder: Path) -> dict[str, Any]:
    path = folder / "spec.yaml"
    if not path.is_file():
        return {}
    with open_regular(path) as file:
        value = read_yaml(file.read(MAX_BYTES + 1), str(path)).value
    flat = flatten(value) if isinstance(value, dict) else {}
    return {
        key: [_plain(one) for one in item] if isinstance(item, list) else _plain(item) for key, item in flat.items()
    }


def _summary(folder: Path, checkpoints: Path) -> dict[str, Any]:
    info = read_info(folder)
    sessions = info.get("sessions")
    first = sessions[0] if isinstance(sessions, list) and sessions and isinstance(sessions[0], dict) else {}
    records = read_metrics(folder)
    outcome = info.get("outcome", "interrupted")
    if outcome == "running":
        with is_free(folder) as free:
            outcome = "interrupted" if free else "running"  # a killed run could not change it
    last = checkpoints / folder.name / "last.pth"
    return {
        "run": folder.name,
        "outcome": _plain(outcome),
        "epochs": len(records),
        "loss": _plain(records[-1].get("loss")) if records else None,
        "val_loss": _plain(records[-1].get("val_loss")) if records else None,
        "started": _plain(first.get("started")),
        "checkpoint": str(last) if last.is_file() else None,
    }


def _plain(value: Any) -> Any:
    """Return None or a finite number as it is, any other value as one short line of text."""
    if value is None or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    return shorten(str(value))
