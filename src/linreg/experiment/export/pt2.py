"""The pt2 form of a model: the program that `torch.export` makes of its modules."""

import io
import warnings
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.preprocessing import Preprocessing
from linreg.errors import UsageError
from linreg.experiment.export.describing import Description
from linreg.experiment.export.rows import Rows
from linreg.experiment.loaded import LoadedModel


class Exportable(nn.Module):
    """A model without decisions in Python: a row that linreg refuses becomes NaN.

    Maps x (N, n_features), float64, with NaN for gaps and the positions of categories, to (N, n_targets), float64.
    """

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        self.network: nn.Module = model.model if model.preprocessing is None else cast(nn.Module, model.model.network)
        self.dtype = model.dtype
        self.preprocessing = model.preprocessing
        self.is_standardized = self.preprocessing is not None and (
            bool(self.preprocessing.mean.any()) or bool((self.preprocessing.scale != 1).any())
        )
        takes_unseen = model.saved.preprocessing["unseen"] == "zeros"
        widths = [np.inf if feature.categories is None else len(feature.categories) for feature in model.features]
        lowest = [-np.inf if np.isinf(width) else -1.0 if takes_unseen else 0.0 for width in widths]
        self.register_buffer("below", torch.tensor(widths, dtype=torch.float64))
        self.register_buffer("lowest", torch.tensor(lowest, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict for inputs (N, n_features)."""
        preprocessing = self.preprocessing
        if preprocessing is not None and preprocessing.fills:
            x = torch.where(torch.isnan(x), preprocessing.fill, x)
        lowest, below = cast(torch.Tensor, self.lowest), cast(torch.Tensor, self.below)
        is_taken = ((x >= lowest) & (x < below)).all(dim=1, keepdim=True)
        if preprocessing is not None:
            x, is_taken = self._columns(preprocessing, x, is_taken)
        y: torch.Tensor = self.network(x.to(self.dtype)).double()
        if preprocessing is not None:
            y = preprocessing.restored(y)
        is_taken = is_taken & torch.isfinite(y).all(dim=1, keepdim=True)
        return torch.where(is_taken, y, torch.nan)

    def _columns(
        self, preprocessing: Preprocessing, x: torch.Tensor, is_taken: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs of the network, and which rows the transforms take."""
        x = preprocessing.filled(x)
        for step in () if preprocessing.transforms is None else preprocessing.transforms.steps:
            derived = [piece(x) for piece in step.pieces]
            parts = [derived[part] if isinstance(part, int) else x[:, part] for part in step.segments]
            x = torch.cat(parts, dim=1)
            is_taken = is_taken & torch.isfinite(x).all(dim=1, keepdim=True)
        if self.is_standardized:
            x = torch.where(preprocessing.scale == 0, 0.0, (x - preprocessing.mean) / preprocessing.scale)
        return x, is_taken


def write(model: LoadedModel) -> bytes:
    """Return the program as a file. Raises UsageError for a plugin's module that torch cannot export."""
    x = torch.zeros(2, len(model.features), dtype=torch.float64)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own parts
        try:
            program = torch.export.export(
                Exportable(model).eval(), (x,), dynamic_shapes={"x": {0: torch.export.Dim("n")}}
            )
        except Exception as error:  # torch raises many kinds
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"{model.saved.path}: torch cannot export the model: {reason}; use --to json") from error
        torch.export.save(program, content)
    return content.getvalue()


def run(content: bytes, description: Description, rows: Rows) -> NDArray[np.float64]:
    """Predict with the loaded program: (N, n_targets)."""
    program = torch.export.load(io.BytesIO(content))
    with torch.no_grad():
        return np.asarray(program.module()(torch.from_numpy(rows.codes)).numpy())
