"""The result of a session of training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from linreg.exact.closed_form import Exact
from linreg.exact.equation import equation
from linreg.runs.folders import Run
from linreg.runs.writer import EpochRecord

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


def make_result(
    run: Run,
    outcome: str,
    records: Sequence[EpochRecord],
    *,
    device: torch.device,
    engine: str,
    seconds: float,
    exact: Exact | None,
    model: nn.Module,
    target_names: Sequence[str],
) -> Result:
    """Return the result of a session, from the records of all epochs."""
    last, best = (records[-1], min(records, key=lambda record: record.monitored)) if records else (None, None)
    return Result(
        run=run.name,
        checkpoint=str(run.last),
        outcome=outcome,
        epochs=len(records),
        loss=last.loss if last else None,
        val_loss=last.val_loss if last else None,
        best_epoch=best.epoch if best else None,
        best_loss=best.loss if best else None,
        best_val_loss=best.val_loss if best else None,
        device=str(device),
        engine=engine,
        seconds=round(seconds, 3),
        exact_loss=exact.loss if exact else None,
        exact_val_loss=exact.val_loss if exact else None,
        fit=equation(exact.fit, model.state_dict(), target_names) if exact else None,
    )
