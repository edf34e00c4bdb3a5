"""A trained model, applied: predictions, and metrics."""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.checkpoint import Checkpoint, load_or_advise
from linreg.data.pipeline import with_mask
from linreg.data.preprocessing import FILLING, Feature, Preprocessed, Preprocessing, features_of, make_recode_fn
from linreg.data.ranges import Ranges
from linreg.data.sources import Block, Points
from linreg.errors import CheckpointError, DataError, UsageError
from linreg.experiment.building import choose_device
from linreg.experiment.compatibility import assemble
from linreg.experiment.data import open_points, survey
from linreg.experiment.state import saved_spec
from linreg.runs import plots
from linreg.spec.schema import ExperimentSpec
from linreg.system.files import replace_file

log = logging.getLogger("linreg")

BATCH_CELLS = 2**15  # torch divides work on more of them among threads, and those are busy with reading the table
MOST_POINTS = 20_000  # drawn in a picture

Value = float | str
Row = Value | Sequence[Value] | dict[str, Value]


@dataclass(frozen=True)
class Prediction:
    """Inputs (N, n_features) and predictions (N, n_targets), with the names of their columns; lower, upper: the bounds
    of the interval, where one was asked for. A category stands in the inputs as its position."""

    feature_names: list[str]
    target_names: list[str]
    inputs: NDArray[np.floating]
    predictions: NDArray[np.floating]
    rows: list[list[Value]] = field(default_factory=list)
    lower: NDArray[np.floating] | None = None
    upper: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a part of its data. metrics: by target, `mse`, `rmse`, `mae` (the mean over points,
    in the target's units or their square) and `r2` (None where the target does not vary)."""

    part: str
    n_samples: int
    metrics: dict[str, dict[str, float | None]]


class Applied:
    """A checkpoint's model, ready to be applied to rows of inputs."""

    def __init__(self, path: str | Path, *, device: str) -> None:
        self.saved = load_or_advise(path)
        self.spec = saved_spec(self.saved, [f"device={json.dumps(device)}"])
        self.features = features_of(self.saved.preprocessing)
        self.model, self.device = load_model(self.saved, self.spec)
        self.dtype = getattr(torch, self.spec.dtype)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What stands before the network, if anything."""
        return self.model.preprocessing if isinstance(self.model, Preprocessed) else None

    @property
    def fills_gaps(self) -> bool:
        """Whether a gap in the inputs is filled in."""
        return self.saved.preprocessing["missing"] in FILLING

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Predict for inputs (N, n_features): (N, n_targets) in the model's precision."""
        dtype = self.spec.dtype if self.preprocessing is None else "float64"
        with np.errstate(over="ignore"):  # what does not fit is told of the prediction
            inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=dtype))
        if self.preprocessing is None:
            inputs = inputs.to(self.device)
        batch_size = max(1, BATCH_CELLS // inputs.shape[1])
        with torch.no_grad():
            outputs = [self.model(batch).cpu() for batch in torch.split(inputs, batch_size)]
        return np.asarray(torch.cat(outputs).numpy())

    def margin(self, x: NDArray[np.floating], level: float) -> NDArray[np.float64]:
        """Give half the width (N, n_targets) of the interval that holds a new point with a probability of `level`.

        Raises UsageError where the model is not an exact linear fit with degrees of freedom left. Source: N. R. Draper
        and H. Smith, Applied Regression Analysis, 3rd ed., eq. 8.1.6.
        """
        from linreg.exact.closed_form import linear_part  # only those who ask pay for it

        fit = self.saved.fit
        if fit is None or not fit["exact"]:
            raise UsageError(f"--interval: {self.saved.path} is not an exact fit; train with solver: exact")
        if fit["residual_variance"] is None:
            raise UsageError(
                f"--interval: {self.saved.path} has no standard errors (ridge, or no more rows than columns)"
            )
        from scipy.special import stdtrit

        network = self.model.network if isinstance(self.model, Preprocessed) else self.model
        part = linear_part(self.spec, network)
        assert part is not None  # or it would not have been fitted
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
        with torch.no_grad():
            design = part.design(inputs if self.preprocessing is None else self.preprocessing(inputs))
        leverage = ((design @ fit["inverse"].numpy()) ** 2).sum(axis=1, keepdims=True)
        deviation = np.sqrt((1 + leverage) * fit["residual_variance"].numpy()) * fit["y_scale"].numpy()
        return np.asarray(stdtrit(fit["degrees_of_freedom"], (1 + level) / 2) * deviation)


def predict(path: str | Path, rows: Sequence[Row], *, device: str = "cpu", interval: float | None = None) -> Prediction:
    """Predict for rows of inputs, each a list of n_features values, a mapping of names to values, or one value, with
    the model alone: no data, no optimizer. Raises CheckpointError, UsageError for rows that do not fit."""
    if not rows:
        raise UsageError("--inputs: no rows to predict for; give at least one")
    applied = Applied(path, device=device)
    saved = applied.saved
    ordered = [_ordered(row, saved.feature_names) for row in rows]
    table = np.array([[_number(*pair) for pair in zip(row, applied.features, strict=True)] for row in ordered])
    if applied.preprocessing is None:
        with np.errstate(over="ignore"):
            table = table.astype(applied.spec.dtype)
    if not np.isfinite(table).all():
        raise UsageError(
            f"--inputs: a value is too large for {applied.spec.dtype}, the model's precision; give smaller ones"
        )
    predictions = applied(table)
    if not np.isfinite(predictions).all():
        row = int(np.nonzero(~np.isfinite(predictions).all(axis=1))[0][0])
        raise UsageError(f"--inputs: the prediction for row {row + 1} is not finite; give smaller values")
    margin = None if interval is None else applied.margin(table, interval)
    ranges = Ranges(applied.features)
    ranges.add(table)
    for told in ranges.told():
        log.warning("%s", told)
    return Prediction(
        saved.feature_names,
        saved.target_names,
        table,
        predictions,
        ordered,
        None if margin is None else (predictions - margin).astype(predictions.dtype),
        None if margin is None else (predictions + margin).astype(predictions.dtype),
    )


def evaluate(
    path: str | Path, *, data: str | Path | None = None, device: str = "cpu", plot: str | Path | None = None
) -> Evaluation:
    """Measure a checkpoint's model on its validation part, or on the training part where there is no validation; or on
    a table, `data`. plot: the picture to write, of predictions against the truth. Raises CheckpointError, DataError."""
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise UsageError(f"--plot {plot}: a picture is written as PNG; let its name end with .png")
    applied = Applied(path, device=device)
    saved, spec = applied.saved, applied.spec
    if data is not None:
        points: Points = open_like(
            applied, Path(data), targets=saved.target_names, missing=saved.preprocessing["missing"]
        )
        part = str(data)
        blocks: Iterable[tuple[Block, Any]] = ((block, np.ones(len(block.x), dtype=bool)) for block in points.blocks())
    else:
        points = open_points(spec)
        surveyed = survey(points, spec)
        if surveyed.fingerprint != saved.data_fingerprint:
            raise DataError(f"{path}: was trained on other data than data.source gives now; bring the old data back")
        validated = not surveyed.mask.all()
        part = "validation" if validated else "training"
        blocks = with_mask(points, ~surveyed.mask if validated else surveyed.mask)
    recode = make_recode_fn(applied.features, points)
    metrics = Metrics(len(saved.target_names))
    kept: list[tuple[Any, Any]] = []
    for block, mask in blocks:
        if not mask.any():
            continue
        here = block if mask.all() else _rows_of(block, mask)
        y, yhat = here.y.astype(np.float64), applied(recode(here)).astype(np.float64)
        metrics.add(y, yhat, here.weight)
        if plot is not None and sum(len(pair[0]) for pair in kept) < MOST_POINTS:
            kept.append((y, yhat))
    if plot is not None:
        drawn = [np.concatenate([pair[side] for pair in kept])[:MOST_POINTS] for side in (0, 1)]
        replace_file(Path(plot), plots.to_png(plots.plot_predictions(drawn[0], drawn[1], saved.target_names)))
    return Evaluation(part, metrics.n_samples, dict(zip(saved.target_names, metrics.by_target(), strict=True)))


def open_like(applied: Applied, path: Any, *, targets: Sequence[str], missing: str, keep: Sequence[str] = ()) -> Any:
    """Open a table that has the columns of the one that a model was trained on. Raises DataError."""
    from linreg.data.tables.reading import like

    options = {
        key: applied.spec.data.source.params[key]
        for key in ("missing_values", "encoding")
        if key in applied.spec.data.source.params
    }
    if applied.spec.data.source.name == "csv":
        options |= {key: applied.spec.data.source.params[key] for key in ("delimiter", "decimal")}
    return like(
        path,
        options,
        features=applied.saved.feature_names,
        categorical=[feature.name for feature in applied.features if feature.categories is not None],
        targets=targets,
        sample_weight=applied.spec.data.source.params.get("sample_weight") if targets else None,
        missing=missing,
        unseen=applied.saved.preprocessing["unseen"],
        keep=keep,
    )


class Metrics:
    """Sums over points, from which the metrics follow; weighted where points are."""

    def __init__(self, n_targets: int) -> None:
        self.n_samples, self.weight = 0, 0.0
        self.squared, self.absolute, self.mean, self.total = (np.zeros(n_targets) for _ in range(4))

    def add(self, y: NDArray[np.float64], yhat: NDArray[np.float64], weight: NDArray[Any] | None = None) -> None:
        """Add points: y and yhat (N, n_targets), weight (N,)."""
        w = np.ones((len(y), 1)) if weight is None else np.asarray(weight, dtype=np.float64)[:, None]
        self.n_samples += len(y)
        here = float(w.sum())
        if not here:
            return
        error = y - yhat
        self.squared += (w * error**2).sum(axis=0)
        self.absolute += (w * np.abs(error)).sum(axis=0)
        mean = (w * y).sum(axis=0) / here
        gap = mean - self.mean
        self.total += (w * (y - mean) ** 2).sum(axis=0) + gap**2 * self.weight * here / (self.weight + here)
        self.mean += gap * here / (self.weight + here)
        self.weight += here

    def by_target(self) -> list[dict[str, float | None]]:
        """Give mse, rmse, mae and r2 (1 - residual over total sum of squares) of each target."""
        found: list[dict[str, float | None]] = []
        for squared, absolute, total in zip(self.squared, self.absolute, self.total, strict=True):
            if not self.weight:
                raise DataError("sample_weight: every weight is 0; give some points weight")
            mse = float(squared / self.weight)
            r2 = float(1 - squared / total) if total > 0 else None
            found.append({"mse": mse, "rmse": mse**0.5, "mae": float(absolute / self.weight), "r2": r2})
        return found


def load_model(saved: Checkpoint, spec: ExperimentSpec) -> tuple[nn.Module, torch.device]:
    """Build the model of a checkpoint, in evaluation mode, and give it with its device. Raises CheckpointError."""
    device = choose_device(spec)
    model = assemble(saved, spec, device)
    try:
        model.load_state_dict(saved.model_state_dict, strict=True)
    except RuntimeError:  # its text is for those who write programs
        raise CheckpointError(
            f"{saved.path}: does not fit the model that its spec builds; use another checkpoint"
        ) from None
    model.eval()  # always use EVAL for fully trained models!
    return model, device


def _rows_of(block: Block, mask: NDArray[np.bool_]) -> Block:
    rows = np.nonzero(mask)[0]
    weight = None if block.weight is None else block.weight[rows]
    return replace(
        block, x=block.x[rows], y=block.y[rows], weight=weight, where=lambda row: block.where(int(rows[row]))
    )


def _ordered(row: Row, names: list[str]) -> list[Value]:
    """Put the values of one row into the order of the features."""
    wanted = f"{_values(len(names))} ({', '.join(names)})"
    if isinstance(row, int | float | str):
        row = [row]
    if not isinstance(row, dict):
        if len(row) != len(names):
            met = ",".join(_show(value) for value in row)
            raise UsageError(
                f"--inputs {met}: {_values(len(row))}, and the model takes {wanted}; "
                "put commas within a row, spaces between rows"
            )
        return list(row)
    unknown = [name for name in row if name not in names]
    missing = [name for name in names if name not in row]
    if unknown or missing:
        met = ",".join(f"{name}={_show(value)}" for name, value in row.items())
        what = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise UsageError(f"--inputs {met}: {'; '.join(what)}; the model takes {wanted}")
    return [row[name] for name in names]


def _number(value: Value, feature: Feature) -> float:
    """Give a value as a number: that of a category is its position among those of the feature."""
    if feature.categories is None:
        if isinstance(value, str):
            raise UsageError(f"--inputs {value}: {value!r} is not a number; write for instance 0.2, -0.34 or 1e-3")
        return float(value)
    for position, category in enumerate(feature.categories):
        if category == value or (not isinstance(value, str) and _is_plain(category) and float(category) == value):
            return float(position)
    known = ", ".join(feature.categories[:20])
    raise UsageError(f"--inputs {_show(value)}: unknown {feature.name}; it is one of {known}")


def _is_plain(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) is not None


def _show(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _values(number: int) -> str:
    return f"{number} value" if number == 1 else f"{number} values"
