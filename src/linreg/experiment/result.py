"""What a session comes to, and what run.json says of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from linreg.runs.folders import command_line, environment, git_commit, now

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")


@dataclass(frozen=True)
class Result:
    """What a session of training came to. loss, val_loss: of the last epoch; best_*: of the epoch with the lowest
    validation loss, or training loss without validation; seconds: of this session; exact_*: of the closed-form
    optimum, where there is one; fit: its equation (see `equation`)."""

    run: str
    checkpoint: str
    outcome: str
    epochs: int
    loss: float | None
    val_loss: float | None
    best_epoch: int | None
    best_loss: float | None
    best_val_loss: float | None
    device: str
    engine: str
    seconds: float
    exact_loss: float | None = None
    exact_val_loss: float | None = None
    fit: dict[str, Any] | None = None


def new_session(device: torch.device, engine: str, from_epoch: int, origin: str | None) -> dict[str, Any]:
    """Begin the record of a session, for run.json."""
    return {
        "command": command_line(),
        "from_epoch": from_epoch,
        "from_checkpoint": origin,
        "started": now(),
        "ended": None,
        "outcome": None,
        "device": str(device),
        "engine": engine,
        "git_commit": git_commit(),
        "environment": environment(device),
    }
