"""A trained model, loaded from its checkpoint: used by `predict`, `predict_table` and `evaluate`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.checkpoint import Checkpoint, load_or_advise
from linreg.data.preprocessing import FILLING, Preprocessed, Preprocessing, features_of, rows_as_data_errors
from linreg.errors import CheckpointError, DataError, UsageError
from linreg.experiment.compatibility import assemble
from linreg.experiment.data import dates_of
from linreg.experiment.network import apply_model, choose_device, errors_of
from linreg.experiment.state import saved_spec
from linreg.spec.schema import ExperimentSpec


class LoadedModel:
    """The model of a checkpoint, ready to predict for rows of inputs."""

    def __init__(self, path: str | Path, *, device: str) -> None:
        self.saved = load_or_advise(path)
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
        return apply_model(self.model, x, self.spec.dtype, self.device)

    def predict(self, x: NDArray[np.floating], where: Callable[[int], str]) -> NDArray[np.floating]:
        """Predict for the inputs of a block. Raises DataError for a prediction that is not finite, by its row."""
        with rows_as_data_errors(self.preprocessing, x, None, where):
            return _finite(self(x), where)

    def errors(
        self, x: NDArray[np.floating], y: NDArray[np.floating], where: Callable[[int], str]
    ) -> NDArray[np.float64]:
        """Return y - yhat (N, n_targets) for the points of a block. Raises DataError as `predict`."""
        with rows_as_data_errors(self.preprocessing, x, None, where):
            errors: NDArray[np.float64] = _finite(errors_of(self.model, x, y, self.spec.dtype, self.device), where)
        return errors

    def design(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the design matrix (N, p) of a model that is linear in its parameters."""
        from linreg.exact.closed_form import linear_part  # imported only for intervals and relations

        part = linear_part(self.model.network if isinstance(self.model, Preprocessed) else self.model)
        assert part is not None  # a fit has one
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
        with torch.no_grad():
            return part.design(inputs if self.preprocessing is None else self.preprocessing(inputs))

    def check_interval(self) -> None:
        """Raise a UsageError where the model is not an exact linear fit with degrees of freedom left."""
        fit = self.saved.fit
        if fit is None or not fit["exact"]:
            raise UsageError(f"--interval: {self.saved.path} is not an exact fit; train with solver: exact")
        if fit["residual_variance"] is None:
            raise UsageError(
                f"--interval: {self.saved.path} has no standard errors (ridge, or no more rows than columns)"
            )

    def interval(
        self, x: NDArray[np.floating], yhat: NDArray[np.floating], level: float
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return the bounds, both (N, n_targets), of the interval that holds a new point with probability `level`.

        x: inputs (N, n_features); yhat: their predictions (N, n_targets).
        Raises UsageError as `check_interval`. Source: N. R. Draper and H. Smith, Applied Regression Analysis, 3rd ed.,
        eq. 8.1.6.
        """
        self.check_interval()
        fit: dict[str, Any] = self.saved.fit or {}
        from scipy.special import stdtrit

        leverage = ((self.design(x) @ fit["inverse"].numpy()) ** 2).sum(axis=1, keepdims=True)
        deviation = np.sqrt((1 + leverage) * fit["residual_variance"].numpy()) * fit["y_scale"].numpy()
        margin = np.asarray(stdtrit(fit["degrees_of_freedom"], (1 + level) / 2) * deviation)
        if not isinstance(self.model, Preprocessed) or self.model.preprocessing.target is None:
            return (yhat - margin).astype(yhat.dtype), (yhat + margin).astype(yhat.dtype)
        with torch.no_grad():
            outputs = self.model.outputs(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)))
            restored = self.model.preprocessing.restored
            return tuple(restored(outputs, torch.from_numpy(end)).numpy() for end in (-margin, margin))  # type: ignore[return-value]  # a pair


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
