"""The first loss or parameter that is not a finite number ends a run: where that was, and what would do."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from linreg.errors import DivergedError
from linreg.experiment.building import Experiment


def refuse_losses(experiment: Experiment, epoch: int, losses: Sequence[float], *, since: int = 0) -> None:
    """Refuse an epoch whose batches' losses, from the one numbered `since` on, are not all finite: DivergedError."""
    for step in range(since, len(losses)):
        if not math.isfinite(losses[step]):
            raise DivergedError(f"epoch {epoch}, step {step}: loss is {losses[step]}; {remedy(experiment)}")


def refuse_tensors(experiment: Experiment, where: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse named tensors that are not all finite: DivergedError."""
    for name, tensor in tensors:
        if not torch.isfinite(tensor).all():
            raise DivergedError(f"{where}: {name} is no longer finite; {remedy(experiment)}")


@contextmanager
def overflow_is_divergence(experiment: Experiment, where: str) -> Iterator[None]:
    """Take torch's refusal of a number that its type cannot hold for the divergence that it is."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        what = f"a step is too large for {experiment.spec.dtype}"
        raise DivergedError(f"{where}: {what}; {remedy(experiment)}") from error


def remedy(experiment: Experiment) -> str:
    """Say what helps against divergence."""
    lr = experiment.spec.optimizer.params.get("lr")
    lower = f"lower optimizer.lr (it is {lr})" if lr is not None else "take smaller steps"
    clip = "" if experiment.engine.name == "compiled" else " set clip_grad_norm,"
    return f"{lower},{clip} or bring the inputs to a common scale{_largest(experiment)}"


def _largest(experiment: Experiment) -> str:
    """Say which input has the largest scale, where they are not on one, and what would bring them to it."""
    ranges = {
        feature.name: (feature.minimum, feature.maximum)
        for feature in experiment.data.features
        if feature.minimum is not None and feature.maximum is not None
    }
    if not ranges or experiment.spec.data.standardize in (True, "features"):
        return ""
    name, (low, high) = max(ranges.items(), key=lambda item: max(map(abs, item[1])))
    return f" (data.standardize: true; {name}, from {low:g} to {high:g}, has the largest)"
