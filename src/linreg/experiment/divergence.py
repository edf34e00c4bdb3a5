"""Divergence: the warnings before a run, and the errors that end it at the first non-finite number, with a remedy."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from linreg.checkpoint.contents import is_finite
from linreg.errors import DivergedError
from linreg.exact.baseline import largest_stable_lr
from linreg.experiment.building import Experiment
from linreg.runs.writer import EpochRecord

log = logging.getLogger("linreg")


def log_warnings(experiment: Experiment) -> None:
    """Log a warning for a learning rate that rises again or is too large for the data, and for linearly dependent
    columns."""
    spec, optimum = experiment.spec, experiment.baseline
    if spec.scheduler is not None and spec.scheduler.name == "cosine" and spec.epochs > spec.scheduler.params["t_max"]:
        t_max = spec.scheduler.params["t_max"]
        log.warning("%s: after t_max (%d epochs) the learning rate rises again", spec.where("scheduler"), t_max)
    if optimum is None:
        return
    for warning in optimum.left_out:
        log.warning("%s", warning)
    if spec.optimizer.name != "sgd" or spec.clip_grad_norm is not None:
        return
    params = dict(spec.optimizer.params)
    lr, largest = params.pop("lr"), largest_stable_lr(optimum.curvature, **params)
    if largest is not None and lr > largest:
        other = "" if spec.data.standardize in (True, "features") else " or standardize (data.standardize: true)"
        log.warning(
            "%s: lr %g > %.2g: will diverge; try %.2g%s", spec.where("optimizer"), lr, largest, largest / 2, other
        )


def refuse_losses(experiment: Experiment, epoch: int, losses: Sequence[float], *, since: int = 0) -> None:
    """Raise a DivergedError for the first non-finite loss of an epoch, from batch `since` on."""
    if math.isfinite(sum(losses[since:])):  # nearly always
        return
    for step in range(since, len(losses)):
        if not math.isfinite(losses[step]):
            raise DivergedError(f"epoch {epoch}, step {step}: loss is {losses[step]}; {remedy(experiment)}")


def refuse_tensors(experiment: Experiment, where: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise a DivergedError for the first tensor that is not finite."""
    for name, tensor in tensors:
        if not is_finite(tensor):
            raise DivergedError(f"{where}: {name} is no longer finite; {remedy(experiment)}")


def refuse_epoch(experiment: Experiment, losses: Sequence[float], record: EpochRecord) -> None:
    """Raise a DivergedError if a loss of an epoch, a tensor of the network's current state or the validation loss is
    not finite."""
    refuse_losses(experiment, record.epoch, losses)
    where = f"epoch {record.epoch}, step {len(losses) - 1}"
    refuse_tensors(experiment, where, experiment.state.items())
    if record.val_loss is not None and not math.isfinite(record.val_loss):
        raise DivergedError(f"epoch {record.epoch}: val_loss is {record.val_loss}; {remedy(experiment)}")


@contextmanager
def overflow_is_divergence(experiment: Experiment, where: str) -> Iterator[None]:
    """Raise a DivergedError when torch cannot convert a number without overflow."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        what = f"a step is too large for {experiment.spec.dtype}"
        raise DivergedError(f"{where}: {what}; {remedy(experiment)}") from error


def remedy(experiment: Experiment) -> str:
    """Return the remedies against divergence, for a message."""
    lr = experiment.spec.optimizer.params.get("lr")
    lower = f"lower optimizer.lr (it is {lr})" if lr is not None else "take smaller steps"
    return f"{lower}, set clip_grad_norm, or bring the inputs to a common scale{_largest(experiment)}"


def _largest(experiment: Experiment) -> str:
    """Return the input with the largest scale, and the remedy; empty if inputs are standardized."""
    ranges = {
        feature.name: (feature.minimum, feature.maximum)
        for feature in experiment.data.features
        if feature.minimum is not None and feature.maximum is not None
    }
    if not ranges or experiment.spec.data.standardize in (True, "features"):
        return ""
    name, (low, high) = max(ranges.items(), key=lambda item: max(map(abs, item[1])))
    return f" (data.standardize: true; {name}, from {low:g} to {high:g}, has the largest)"
