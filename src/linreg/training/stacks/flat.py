"""The memory of a stack: a row of numbers for each model, with a view of each parameter of all models."""

from collections.abc import Sequence

import torch
from torch import nn

ALIGNMENT = 64  # bytes, of tensors by torch's CPU allocator


class Layout:
    """The places of the parameters in a row. Each begins at a multiple of ALIGNMENT, as a tensor of its own does."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        step = ALIGNMENT // parameters[0].element_size()
        self.shapes = [parameter.shape for parameter in parameters]
        self.starts: list[int] = []
        self.width = 0
        for parameter in parameters:
            self.starts.append(self.width)
            self.width += -(-parameter.numel() // step) * step

    def views(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Return the views (n_models, *shape) of the parameters in rows (n_models, width)."""
        return [
            rows[:, start : start + shape.numel()].view(len(rows), *shape)
            for start, shape in zip(self.starts, self.shapes, strict=True)
        ]

    def own_views(self, row: torch.Tensor) -> list[torch.Tensor]:
        """Return the views of the parameters in the row (width,) of one model."""
        return [view[0] for view in self.views(row.unsqueeze(0))]
