"""Metrics of predictions, gathered from blocks of rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.errors import DataError


class Metrics:
    """Metrics as sums over points, weighted if points have weights."""

    def __init__(self, n_targets: int) -> None:
        self.n_samples, self.weight = 0, 0.0
        self.squared, self.absolute, self.mean, self.total, self.from_zero = (np.zeros(n_targets) for _ in range(5))
        self.minimum, self.maximum = np.full(n_targets, np.inf), np.full(n_targets, -np.inf)

    def add(self, y: NDArray[np.floating], error: NDArray[np.float64], weight: NDArray[Any] | None = None) -> None:
        """Add points: y and error = y - yhat (N, n_targets), weight (N,)."""
        y = y.astype(np.float64, copy=False)
        w = np.ones((len(y), 1)) if weight is None else np.asarray(weight, dtype=np.float64)[:, None]
        self.n_samples += len(y)
        weight_sum = float(w.sum())
        if not weight_sum:
            return
        weighted = y if weight is None else y[w[:, 0] > 0]
        self.minimum = np.minimum(self.minimum, weighted.min(axis=0))
        self.maximum = np.maximum(self.maximum, weighted.max(axis=0))
        self.from_zero += (w * y**2).sum(axis=0)
        self.squared += (w * error**2).sum(axis=0)
        self.absolute += (w * np.abs(error)).sum(axis=0)
        mean = (w * y).sum(axis=0) / weight_sum
        gap = mean - self.mean
        self.total += (w * (y - mean) ** 2).sum(axis=0) + gap**2 * self.weight * weight_sum / (self.weight + weight_sum)
        self.mean += gap * weight_sum / (self.weight + weight_sum)
        self.weight += weight_sum

    def loss(self) -> float:
        """Return the mean squared error over points and targets."""
        return float(np.mean(self.squared)) / self.weight

    def by_target(self, *, intercept: bool = True) -> list[dict[str, float | None]]:
        """Return mse, rmse, mae and r2 (1 - residual over total sum of squares around the mean) of each target.

        intercept: whether the model has one; if not, r2_uncentred (relative to the squares around 0) is also returned.
        """
        by_target: list[dict[str, float | None]] = []
        for target in range(len(self.squared)):
            if not self.weight:
                raise DataError("sample_weight: every weight is 0; use some weights > 0")
            squared, varies = self.squared[target], self.minimum[target] < self.maximum[target]
            mse = float(squared / self.weight)
            metrics = {
                "mse": mse,
                "rmse": mse**0.5,
                "mae": float(self.absolute[target] / self.weight),
                "r2": float(1 - squared / self.total[target]) if varies and self.total[target] > 0 else None,
            }
            if not intercept:
                from_zero = self.from_zero[target]
                metrics["r2_uncentred"] = float(1 - squared / from_zero) if from_zero > 0 else None
            by_target.append(metrics)
        return by_target

    def summary(self) -> dict[str, float | None]:
        """Return rmse, mae and r2, the means over targets; all None without points."""
        if not self.weight:
            return dict.fromkeys(("rmse", "mae", "r2"))
        by_target = self.by_target()

        def mean(name: str) -> float | None:
            values = [metrics[name] for metrics in by_target]
            return None if None in values else float(np.mean(np.array(values, dtype=np.float64)))

        return {name: mean(name) for name in ("rmse", "mae", "r2")}
