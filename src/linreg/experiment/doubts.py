"""Doubtful rows of a prediction: each kind is counted, and becomes a warning. `predict` and `evaluate` use it."""

import logging

import numpy as np
from numpy.typing import NDArray

from linreg.data.ranges import Ranges
from linreg.data.transform import Recode
from linreg.experiment.loaded import LoadedModel

log = logging.getLogger("linreg")


class Doubts:
    """Inputs outside the range of the training part, unseen categories, and rows that leave a relation between columns
    which held in the training part."""

    def __init__(self, model: LoadedModel, recode: Recode | None = None) -> None:
        self.ranges, self.relations, self.recode = Ranges(model.features, model.dates), Relations(model), recode

    @property
    def n_rows(self) -> int:
        """The number of rows so far."""
        return self.ranges.n_rows

    def add(self, x: NDArray[np.floating]) -> None:
        """Add inputs (N, n_features), the next rows of a table."""
        self.ranges.add(x)
        self.relations.add(x)

    def log(self, *, ranges: bool = True) -> None:
        """Log a warning for each doubt, with or without those of the ranges."""
        unseen = [] if self.recode is None else self.recode.warnings()
        for warning in [*(self.ranges.warnings() if ranges else []), *unseen, *self.relations.warnings()]:
            log.warning("%s", warning)


class Relations:
    """Counts the rows for which a linearly dependent column is not the combination of others that it was in training.

    Their predictions depend on how the effect is divided among these columns, which the training part does not say."""

    def __init__(self, model: LoadedModel) -> None:
        fit = model.saved.fit or {}
        self.model, self.names = model, fit.get("columns", [])
        kept = [factors for factors in fit.get("relations", []) if self._involved(factors)[1:]]
        self.factors = np.array(kept).reshape(len(kept), len(self.names)).T
        self.tolerance = 1e-6 if fit.get("exact") else 1e-4  # a trained model has seen rounded inputs
        self.n_rows, self.outside, self.first = 0, [0] * len(kept), [0] * len(kept)

    def _involved(self, factors: list[float]) -> list[str]:
        """Return the names of the columns of a relation, the dependent one first; constants add no relation."""
        names = [name for name, factor in zip(self.names, factors, strict=True) if factor and name != "intercept"]
        return sorted(names, key=lambda name: factors[self.names.index(name)] != -1.0)

    def add(self, x: NDArray[np.floating]) -> None:
        """Add inputs (N, n_features), the next rows of a table."""
        if self.factors.size:
            known = np.ones(len(x), dtype=bool) if self.model.fills_gaps else ~np.isnan(x).any(axis=1)
            design = np.full((len(x), len(self.names)), np.nan)
            design[known] = self.model.design(x[known])
            scale = np.abs(design) @ np.abs(self.factors)
            wrong = np.abs(design @ self.factors) > self.tolerance * np.maximum(scale, np.nanmedian(scale, axis=0))
            for position, rows in enumerate(wrong.T):
                if rows.any() and not self.outside[position]:
                    self.first[position] = self.n_rows + int(np.nonzero(rows)[0][0]) + 1
                self.outside[position] += int(rows.sum())
        self.n_rows += len(x)

    def warnings(self) -> list[str]:
        """Return a warning for each relation that some rows leave."""
        texts = []
        for factors, n_outside, first in zip(self.factors.T, self.outside, self.first, strict=True):
            name, *others = self._involved(list(factors))
            if n_outside:
                listed = ", ".join(map(repr, others[:10]))
                texts.append(
                    f"{name}: in the training part it is a linear combination of {listed}, but not in {n_outside} of "
                    f"{self.n_rows} rows, the first is row {first}; the data does not determine their predictions"
                )
        return texts
