"""A trained model, loaded from its checkpoint: used by `predict`, `evaluate` and robust covariances."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.checkpoint import Checkpoint, load_or_advise
from linreg.data.preprocessing import FILLING, Preprocessed, Preprocessing, features_of, rows_as_data_errors
from linreg.data.rows import Rows
from linreg.data.split import Parts
from linreg.errors import CheckpointError, DataError
from linreg.experiment.compatibility import assemble
from linreg.experiment.data import dates_of, open_parts
from linreg.experiment.network import apply_model, choose_device, errors_of, outputs_of
from linreg.experiment.state import saved_spec
from linreg.spec.schema import ExperimentSpec

if TYPE_CHECKING:
    from linreg.exact.closed_form import LinearPart


class LoadedModel:
    """The model of a checkpoint, ready to predict for rows of inputs."""

    def __init__(self, source: str | Path | Checkpoint, *, device: str) -> None:
        """source: the path of a checkpoint, or one that is loaded. Raises CheckpointError."""
        self.saved = source if isinstance(source, Checkpoint) else load_or_advise(source)
        self.spec = saved_spec(self.saved, [f"device={json.dumps(device)}"])
        self.features = features_of(self.saved.preprocessing)
        self.model, self.device = _load_model(self.saved, self.spec)
        self.dtype = getattr(torch, self.spec.dtype)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preprocessing before the network, or None."""
        return self.model.preprocessing if isinstance(self.model, Preprocessed) else None

    @property
    def dates(self) -> list[str]:
        """The features that are dates."""
        return dates_of(self.spec)

    @property
    def fills_gaps(self) -> bool:
        """Whether the preprocessing fills gaps in the inputs."""
        return self.saved.preprocessing["missing"] in FILLING

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Predict for inputs (N, n_features): (N, n_targets) (see `apply_model`)."""
        return apply_model(self.model, x, self.spec.dtype)

    def predict(self, x: NDArray[np.floating], where: Callable[[int], str]) -> NDArray[np.floating]:
        """Predict for the inputs of a block. Raises DataError for a prediction that is not finite, by its row."""
        with rows_as_data_errors(self.preprocessing, x, None, where):
            return _finite(self(x), where)

    def errors(
        self, x: NDArray[np.floating], y: NDArray[np.floating], where: Callable[[int], str]
    ) -> NDArray[np.float64]:
        """Return y - yhat (N, n_targets) for the points of a block. Raises DataError as `predict`."""
        with rows_as_data_errors(self.preprocessing, x, None, where):
            errors: NDArray[np.float64] = _finite(errors_of(self.model, x, y, self.spec.dtype), where)
        return errors

    def residuals(
        self, x: NDArray[np.floating], y: NDArray[np.floating], where: Callable[[int], str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return targets and residuals, both (N, n_targets), for the points of a block: in the targets' units, or those
        of the transformed targets, which the model is fitted to. Raises DataError as `predict`."""
        preprocessing = self.preprocessing
        if preprocessing is None or preprocessing.target is None:
            return y.astype(np.float64), self.errors(x, y, where)
        assert isinstance(self.model, Preprocessed)  # it has the preprocessing
        with rows_as_data_errors(preprocessing, x, y, where), torch.no_grad():
            scaled = preprocessing.scaled(torch.from_numpy(np.ascontiguousarray(y)))
            targets = scaled * preprocessing.y_scale + preprocessing.y_mean
            residuals = (scaled - outputs_of(self.model, x).double()) * preprocessing.y_scale
        return targets.numpy(), _finite(residuals.numpy(), where)

    @property
    def residual_names(self) -> list[str]:
        """The names of the targets that `residuals` returns."""
        target = None if self.preprocessing is None else self.preprocessing.target
        names = self.saved.target_names
        return names if target is None else [target.of_target.name(name) for name in names]

    @cached_property
    def linear_part(self) -> "LinearPart | None":
        """The parts of a network that is linear in its parameters, else None."""
        from linreg.exact.closed_form import linear_part  # imported only for intervals, relations and diagnostics

        return linear_part(self.model.network if isinstance(self.model, Preprocessed) else self.model)

    def design(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the design matrix (N, p) of a model that is linear in its parameters."""
        part = self.linear_part
        assert part is not None  # a fit has one
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
        with torch.no_grad():
            return part.design(inputs if self.preprocessing is None else self.preprocessing(inputs))

    def targets(self, y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return targets (N, n_targets) on the scale of the network."""
        values = torch.from_numpy(np.ascontiguousarray(y, dtype=np.float64))
        scaled: NDArray[np.float64] = (
            values if self.preprocessing is None else self.preprocessing.scaled(values)
        ).numpy()
        return scaled

    def restored(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return outputs of the network (N, n_targets) in the targets' units."""
        if self.preprocessing is None:
            return outputs
        with torch.no_grad():
            values: NDArray[np.float64] = self.preprocessing.restored(torch.from_numpy(outputs)).numpy()
        return values

    def ends(
        self, x: NDArray[np.floating], yhat: NDArray[np.floating], margins: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and the upper ends, both (N, m, n_targets), of m intervals around the predictions yhat
        (N, n_targets) for inputs x (N, n_features).

        margins (N or 1, m, n_targets): half of the widths, in the targets' units, or with a transform of the target in
        those of the transformed target."""
        if not isinstance(self.model, Preprocessed) or self.model.preprocessing.target is None:
            centre = yhat.astype(np.float64)[:, None]
            return centre - margins, centre + margins
        shape = (len(x), *margins.shape[1:])
        wide = torch.from_numpy(np.broadcast_to(margins, shape).reshape(-1, shape[2]).copy())
        restored = self.model.preprocessing.restored
        with torch.no_grad():
            outputs = self.model.outputs(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)))
            outputs = outputs.repeat_interleave(shape[1], dim=0)
            ends = [restored(outputs, margin).numpy().reshape(shape) for margin in (-wide, wide)]
        return np.minimum(*ends), np.maximum(*ends)  # a plugin's transform may decrease


def open_own_parts(model: LoadedModel, path: str | Path) -> tuple[Rows, Parts]:
    """Open the rows that a model was trained on, and divide them into its parts. Raises DataError if they have
    changed."""
    rows, parts = open_parts(model.spec)
    if rows.fingerprint != model.saved.data_fingerprint:
        raise DataError(f"{path}: data.source has changed since training; restore the old data")
    return rows, parts


def weight_divisor(fit: Mapping[str, Any], rows: Rows, training: NDArray[np.bool_]) -> float:
    """Return the divisor that turns weights of training rows into those of a fit. training: a mask (n_rows,).

    Beside a trained model those of the optimum have the mean 1 (`WeightScale`)."""
    weight = None if fit["exact"] else rows.weight()
    return 1.0 if weight is None else float(weight[training].mean())


def _finite(values: NDArray[Any], where: Callable[[int], str]) -> NDArray[Any]:
    """Return predictions, or errors, (N, n_targets). Raises DataError for a row with one that is not finite."""
    if not np.isfinite(values).all():
        row = int(np.nonzero(~np.isfinite(values).all(axis=1))[0][0])
        raise DataError(f"{where(row)}: its prediction is not finite; use smaller values")
    return values


def open_like(
    model: LoadedModel,
    path: Any,
    *,
    targets: Sequence[str],
    missing: str,
    gap_hint: str = "add the value, or remove the row",
    keep: Sequence[str] = (),
) -> Any:
    """Open a table with the columns of the table that the model was trained on. Raises DataError."""
    from linreg.data.tables.paths import format_options
    from linreg.data.tables.reading import like

    params = model.spec.data.source.params
    weight = params.get("sample_weight") if targets else None
    return like(
        path,
        format_options(params),
        features=model.saved.feature_names,
        categorical=[feature.name for feature in model.features if feature.categories is not None],
        dates=model.dates,
        targets=targets,
        sample_weight=weight,
        missing=missing,
        unseen=model.saved.preprocessing["unseen"],
        keep=keep,
        gap_hint=gap_hint,
    )


def _load_model(saved: Checkpoint, spec: ExperimentSpec) -> tuple[nn.Module, torch.device]:
    """Build the model of a checkpoint in evaluation mode; return it and its device. Raises CheckpointError."""
    device = choose_device(spec)
    model = assemble(saved, spec, device)
    try:
        model.load_state_dict(saved.model_state_dict, strict=True)
    except RuntimeError:  # torch's text is for programmers
        raise CheckpointError(
            f"{saved.path}: does not fit the model that its spec builds; use another checkpoint"
        ) from None
    model.eval()  # always use EVAL for fully trained models!
    return model, device
