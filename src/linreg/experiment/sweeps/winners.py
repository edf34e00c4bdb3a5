"""`train_winners`: makes ordinary runs of the winners of a sweep."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from linreg.experiment.result import Result
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.runs.folders import Run, find
from linreg.spec.sweeps import Trial

log = logging.getLogger("linreg")


def train_winners(
    trials: Sequence[Trial],
    sweep: Run,
    lines: Sequence[Mapping[str, Any]],
    *,
    runs: Path,
    checkpoints: Path,
    stop: Callable[[], bool],
) -> list[Result]:
    """Train winners as ordinary runs, up to one that is interrupted. lines: the results of the sweep, whose losses the
    runs must have. Raises the errors of `train`."""
    results = []
    for trial in trials:
        results.append(_train_winner(trial, sweep, runs=runs, checkpoints=checkpoints, stop=stop))
        if results[-1].outcome == "interrupted":
            break
        _warn_of_other_losses(results[-1], trial, lines)
    return results


def _train_winner(trial: Trial, sweep: Run, *, runs: Path, checkpoints: Path, stop: Callable[[], bool]) -> Result:
    """Train a winner, or finish the run that an interrupted session of the sweep began for it."""
    spec, winner_of = trial.spec, {"sweep": sweep.name, "id": sweep.info.get("id"), "trial": trial.number}
    begun = find(spec.name, runs, winner_of)
    if begun is not None and spec.solver != "exact" and any((checkpoints / begun).glob("*.pth")):
        return resume(begun, runs=runs, checkpoints=checkpoints, stop=stop, extend=False)
    return train(spec, runs=runs, checkpoints=checkpoints, stop=stop, winner_of=winner_of)


def _warn_of_other_losses(result: Result, trial: Trial, lines: Sequence[Mapping[str, Any]]) -> None:
    """Warn if the run of a winner has other losses than its trial, of which `lines` has the results. With folds, the
    trial has no line of the run's split."""
    line = next((line for line in lines if (line["trial"], line["seed"]) == (trial.number, trial.spec.seed)), None)
    if line is None or line["fold"] is not None:
        return
    if (line["loss"], line["val_loss"]) != (result.loss, result.val_loss):
        log.warning(
            "trial %d: its run has the losses %r and %r, and the trial %r and %r; please report this",
            trial.number, result.loss, result.val_loss, line["loss"], line["val_loss"],
        )  # fmt: skip
