"""A check of a spec before training: `check`."""

import math
from itertools import islice
from typing import Any

import torch

from linreg.data.split import Parts
from linreg.errors import DivergedError
from linreg.experiment.building import build
from linreg.experiment.divergence import log_warnings, overflow_is_divergence, remedy
from linreg.experiment.network import count_parameters
from linreg.experiment.selection import PARTS
from linreg.experiment.sharing import estimate
from linreg.experiment.solving import ENGINE, note_unused, solve_exactly
from linreg.spec.schema import ExperimentSpec
from linreg.training.loops import mini_batch


def check(spec: ExperimentSpec) -> dict[str, Any]:
    """Build a spec, run one training and one validation batch by the textbook's steps, and describe the result.

    Writes only the cache of mapped tables. Raises the errors of `build`, and DivergedError for a non-finite loss.
    """
    if spec.solver == "exact":
        return _check_exact(spec)
    experiment = build(spec)
    log_warnings(experiment)
    parts = experiment.loaders
    with overflow_is_divergence(experiment, spec.where("optimizer")):
        loss = mini_batch(experiment.device, islice(parts.train, 1), experiment.train_step_fn)
    val_loss = None
    if parts.val is not None:
        with torch.no_grad():
            val_loss = mini_batch(experiment.device, islice(parts.val, 1), experiment.val_step_fn)
    if not all(math.isfinite(value) for value in (loss, val_loss) if value is not None):
        raise DivergedError(f"{spec.where('optimizer')}: not finite after one step; {remedy(experiment)}")
    return {
        **(estimate(experiment) if spec.data.shards is not None else {}),
        "device": str(experiment.device),
        "engine": experiment.engine.name,
        **_sizes(experiment.data.parts),
        "features": experiment.feature_names,
        "targets": experiment.target_names,
        "n_parameters": count_parameters(experiment.network),
        "loss": loss,
        "val_loss": val_loss,
        "exact_loss": experiment.baseline.loss if experiment.baseline else None,
        "exact_val_loss": experiment.baseline.val_loss if experiment.baseline else None,
    }


def _sizes(parts: Parts) -> dict[str, int]:
    """Return the numbers of points of all parts, and of each."""
    sizes = {name: 0 if rows is None else len(rows) for name, rows in vars(parts).items() if name in PARTS}
    if parts.calibration is not None:
        sizes["calibration"] = len(parts.calibration)
    n_samples = parts.n_rows - (0 if parts.unused is None else len(parts.unused))
    return {"n_samples": n_samples, **{f"n_{name}": size for name, size in sizes.items()}}


def _check_exact(spec: ExperimentSpec) -> dict[str, Any]:
    """Solve a spec, and describe the result."""
    note_unused(spec)
    solved = solve_exactly(spec)
    return {
        "device": str(solved.device),
        "engine": ENGINE,
        **_sizes(solved.parts),
        "features": list(solved.rows.feature_names),
        "targets": list(solved.rows.target_names),
        "n_parameters": count_parameters(solved.network),
        "loss": solved.exact.loss,
        "val_loss": solved.exact.val_loss,
        "exact_loss": solved.exact.loss,
        "exact_val_loss": solved.exact.val_loss,
    }
