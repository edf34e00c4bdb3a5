"""The prediction intervals of a checkpoint: `open_intervals`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.checkpoint.calibrations import n_calibration_rows
from linreg.data.preprocessing import Feature
from linreg.data.transform import codes_of
from linreg.errors import UsageError
from linreg.experiment.intervals.ranks import bounds, fewest, highest_level, rank
from linreg.experiment.loaded import LoadedModel

log = logging.getLogger("linreg")

CELLS = 2**20  # ends of intervals at once, 8 MiB

Ends = tuple[NDArray[np.floating], NDArray[np.floating]]
BoundsFn = Callable[[NDArray[np.floating], NDArray[np.floating]], Ends]


@dataclass(frozen=True)
class Intervals:
    """Prediction intervals of a model. level: the probability with which one has the target of a new row; method:
    `split`, `cv_plus`, `jackknife_plus` or `students_t`; n_rows: the rows that calibrate them, None for Student's t;
    bounds: returns both ends (N, n_targets) for inputs (N, n_features) and their predictions (N, n_targets)."""

    level: float
    method: str
    n_rows: int | None
    bounds: BoundsFn

    def described(self) -> dict[str, Any]:
        """Return the intervals as plain values."""
        return {"level": self.level, "method": self.method, "n_rows": self.n_rows}


def open_intervals(model: LoadedModel, level: float) -> Intervals:
    """Open the intervals of a model. Raises UsageError for a model without them, or without enough rows for the
    level."""
    if not 0 < level < 1:
        raise UsageError(f"--interval: must be between 0 and 1, got {level:g}; write for instance 0.95")
    kept = model.saved.intervals
    if kept is None:
        _refuse_uncalibrated(model)
        return Intervals(level, "students_t", None, _students_t(model, level))
    n = n_calibration_rows(kept)
    if rank(n, level) > n:
        raise UsageError(
            f"--interval {level:g}: {n} calibration rows are enough for levels up to {highest_level(n):g}; use a lower "
            f"level, or train with {fewest(level)} calibration rows or more"
        )
    rule, _ = model.spec.data.split.rule
    if rule in ("time", "order"):
        log.warning(
            "the calibration rows are before the new ones (by: %s): the intervals have the level %g only if the errors "
            "do not change with time", rule, level,
        )  # fmt: skip
    make = {"split": _split, "cv_plus": _cv_plus, "jackknife_plus": _jackknife_plus}[kept["method"]]
    log.info("intervals of level %g: %s, %d calibration rows", level, kept["method"], n)
    return Intervals(level, kept["method"], n, make(model, kept, level))


def _refuse_uncalibrated(model: LoadedModel) -> None:
    """Raise a UsageError for a model that is not an exact fit with degrees of freedom left."""
    path, fit = model.saved.path, model.saved.fit
    if model.spec.intervals is not None:
        raise UsageError(
            f"--interval: {path} was saved before its intervals were calibrated, at the end of the training; finish it "
            "with linreg resume, or use the last.pth or best.pth of the run"
        )
    remedy = "train with data.split.calibration_ratio=0.2 'intervals={method: split}'"
    if fit is None or not fit["exact"]:
        raise UsageError(f"--interval: {path} has no calibrated intervals; {remedy}, or with solver: exact")
    if fit["residual_variance"] is None:
        raise UsageError(
            f"--interval: {path} has no standard errors (a penalty, or no more rows than columns); {remedy}"
        )


def _students_t(model: LoadedModel, level: float) -> BoundsFn:
    """Make the bounds of an exact fit with normal errors. Source: N. R. Draper and H. Smith, Applied Regression
    Analysis, 3rd ed., eq. 8.1.6."""
    from scipy.special import stdtrit

    fit: dict[str, Any] = model.saved.fit or {}
    quantile = stdtrit(fit["degrees_of_freedom"], (1 + level) / 2)

    def bounds_of(x: NDArray[np.floating], yhat: NDArray[np.floating]) -> Ends:
        leverage = ((model.design(x) @ fit["inverse"].numpy()) ** 2).sum(axis=1, keepdims=True)
        deviation = np.sqrt((1 + leverage) * fit["residual_variance"].numpy()) * fit["y_scale"].numpy()
        lower, upper = model.ends(x, yhat, (quantile * deviation)[:, None])
        return lower[:, 0].astype(yhat.dtype), upper[:, 0].astype(yhat.dtype)

    return bounds_of


def _split(model: LoadedModel, kept: dict[str, Any], level: float) -> BoundsFn:
    """Make the bounds by the errors on a calibration part: the prediction, plus and minus their quantile."""
    scores = kept["scores"].numpy()
    margin = scores[rank(len(scores), level) - 1]

    def bounds_of(x: NDArray[np.floating], yhat: NDArray[np.floating]) -> Ends:
        lower, upper = model.ends(x, yhat, margin[None, None])
        return lower[:, 0].astype(yhat.dtype), upper[:, 0].astype(yhat.dtype)

    return bounds_of


def _cv_plus(model: LoadedModel, kept: dict[str, Any], level: float) -> BoundsFn:
    """Make the bounds by the models of the folds, each with the errors on its own fold. Source: as in `ranks`, eq.
    1.3."""
    folds = [
        LoadedModel(
            replace(
                model.saved,
                model_state_dict=fold["model_state_dict"],
                preprocessing=fold["preprocessing"],
                fit=None,
                intervals=None,
                best=None,
            ),
            device=str(model.device),
        )
        for fold in kept["folds"]
    ]
    margins = [fold["scores"].numpy()[None] for fold in kept["folds"]]

    def bounds_of(x: NDArray[np.floating], yhat: NDArray[np.floating]) -> Ends:
        inputs = [_recoded(x, model.features, fold.features) for fold in folds]
        predictions = [fold(own) for fold, own in zip(folds, inputs, strict=True)]
        lower, upper = np.empty_like(yhat), np.empty_like(yhat)
        for rows in _chunks(len(x), n_calibration_rows(kept) * yhat.shape[1]):
            ends = [
                fold.ends(own[rows], its[rows], margin)
                for fold, own, its, margin in zip(folds, inputs, predictions, margins, strict=True)
            ]
            low, high = (np.concatenate(side, axis=1) for side in zip(*ends, strict=True))
            lower[rows], upper[rows] = bounds(low, high, level)
        return lower, upper

    return bounds_of


def _recoded(x: NDArray[np.floating], features: Sequence[Feature], own: Sequence[Feature]) -> NDArray[np.floating]:
    """Return inputs (N, n_features) with the category codes of other features; -1 for a category that these lack."""
    x = np.array(x)
    for column, (one, other) in enumerate(zip(features, own, strict=True)):
        if one.categories is not None and one.categories != other.categories:
            code_of = codes_of(other.categories or ())
            codes = np.array([*(code_of(category) for category in one.categories), -1], dtype=x.dtype)
            is_known = ~np.isnan(x[:, column])
            x[is_known, column] = codes[x[is_known, column].astype(np.int64)]
    return x


def _jackknife_plus(model: LoadedModel, kept: dict[str, Any], level: float) -> BoundsFn:
    """Make the bounds by the models without each training row. Source: as in `ranks`, eq. 1.2."""
    fit: dict[str, Any] = model.saved.fit or {}
    inverse, coefficients = fit["inverse"].numpy(), fit["coefficients"].numpy()
    shifts, errors = kept["shifts"].numpy(), kept["errors"].numpy()
    margin = np.abs(errors)

    def bounds_of(x: NDArray[np.floating], yhat: NDArray[np.floating]) -> Ends:
        design = model.design(x)
        lower, upper = np.empty(yhat.shape), np.empty(yhat.shape)
        for rows in _chunks(len(x), errors.size):
            own = design[rows]
            shift = (own @ inverse) @ shifts.T
            without = (own @ coefficients)[:, None] - shift[:, :, None] * errors
            lower[rows], upper[rows] = bounds(without - margin, without + margin, level)
        ends = model.restored(lower), model.restored(upper)
        return np.minimum(*ends).astype(yhat.dtype), np.maximum(*ends).astype(yhat.dtype)

    return bounds_of


def _chunks(n_rows: int, n_ends: int) -> Iterator[slice]:
    """Yield pieces of n_rows rows with n_ends ends each, as many at once as CELLS allow."""
    step = max(1, CELLS // max(1, n_ends))
    return (slice(first, first + step) for first in range(0, n_rows, step))
