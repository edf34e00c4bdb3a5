"""The result of a session of training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")


@dataclass(frozen=True)
class Result:
    """The result of a session of training. loss, val_loss: of the last epoch; best_*: of the epoch with the lowest
    validation loss, or training loss without validation; seconds: of this session; exact_*: of the closed-form
    optimum, if it is known; fit: its equation (see `equation`)."""

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
