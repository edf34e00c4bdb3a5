"""Inputs outside the range of the training part."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linreg.data.preprocessing import Feature
from linreg.data.statistics import reduce_columns


class Ranges:
    """Counts the inputs outside the range of the training part."""

    def __init__(self, features: Sequence[Feature], dates: Sequence[str] = ()) -> None:
        """dates: the features that are dates, in days since 1970-01-01."""
        self.features, self.dates = features, dates
        self.n_rows = 0
        self.outside = [0] * len(features)
        self.first: list[tuple[int, float] | None] = [None] * len(features)

    def add(self, x: NDArray[np.floating]) -> None:
        """Add inputs (N, n_features), the next rows of a table."""
        low, high = reduce_columns(np.fmin, x), reduce_columns(np.fmax, x)
        for position, feature in enumerate(self.features):
            if feature.minimum is None or feature.maximum is None:
                continue
            margin = 1e-6 * max(abs(feature.minimum), abs(feature.maximum))  # for inputs in float32
            if not (low[position] < feature.minimum - margin or high[position] > feature.maximum + margin):
                continue
            column = x[:, position]
            rows = np.nonzero((column < feature.minimum - margin) | (column > feature.maximum + margin))[0]
            self.outside[position] += len(rows)
            if len(rows) and self.first[position] is None:
                self.first[position] = (self.n_rows + int(rows[0]) + 1, float(column[rows[0]]))
        self.n_rows += len(x)

    def warnings(self) -> list[str]:
        """Return a warning for each feature with inputs outside its range."""
        return [
            f"{feature.name}: {n_outside} of {self.n_rows} rows outside the range of the training part, "
            f"{self._text(feature, feature.minimum)} to {self._text(feature, feature.maximum)}; the first is row "
            f"{first[0]} ({self._text(feature, first[1])})"
            for feature, n_outside, first in zip(self.features, self.outside, self.first, strict=True)
            if first is not None
        ]

    def _text(self, feature: Feature, value: float | None) -> str:
        if feature.name not in self.dates or value is None:
            return f"{value:g}"
        time = np.datetime64(0, "s") + np.timedelta64(round(value * 86_400), "s")
        return str(time.astype("datetime64[D]" if value == int(value) else "datetime64[m]"))
