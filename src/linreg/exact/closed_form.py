"""The closed form for a network that is linear in its parameters: its equations and their optimum.

`fit`, a part of a checkpoint, has the optimum on the scale of the network, and its transform to the units of the table:
`columns`, `coefficients` (p, n_targets), `inverse` (p, p) with inverse @ inverse.T = (X'X)^-1,
`residual_variance` (n_targets,) or None, `degrees_of_freedom`, `n_rows`, `log_weights` (the sum of the logarithms of
the weights > 0, None in checkpoints of earlier versions), `r2`, `r2_uncentred` (without an intercept),
`left_out`, `relations` (for each linearly dependent column the factors (p,) with which the columns add to 0); `names`
(q), `groups` (the rows of each category), `transform` (q, p), `y_mean` and `y_scale`, with which
(transform @ coefficients) * y_scale, plus y_mean in the intercept, are those in the original units; `layer`, the name
of the layer with the coefficients; `exact`, whether the model has the optimum itself; `ridge`; `targets`, the names
of the transformed targets that the fit describes, or None without a transform; and `penalty` (see `Path.described`) or
None.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from linreg.data.derived import ColumnInfo
from linreg.data.preprocessing import Preprocessing
from linreg.exact.least_squares import (
    DEPENDENT,
    Factor,
    LeftOut,
    Solution,
    Triangle,
    given,
    mean_squared_errors,
    solve,
)
from linreg.exact.penalties import Path, Penalty, solve_path

MOST_COLUMNS = 2000  # a triangle of more takes longer than the training
CHUNK = 2**15  # values at once: they fit the near caches, and torch uses one thread
INTERCEPT = "intercept"


@dataclass(frozen=True)
class Exact:
    """An optimum. loss, val_loss: mean squared errors in the targets' units, over points; val_loss of a baseline is the
    mean over mini-batches, as in training; curvature: the largest eigenvalue of the loss's Hessian; left_out: a warning
    for each column left out; path: with a penalty, over its strengths."""

    fit: dict[str, Any]
    loss: float
    val_loss: float | None
    curvature: float
    left_out: list[str]
    path: Path | None = None


@dataclass(frozen=True)
class LinearPart:
    """A network that is linear in its parameters: a basis without parameters, then one linear layer."""

    basis: nn.Sequential
    layer: nn.Linear
    name: str

    @property
    def intercept(self) -> bool:
        """Whether the layer has a bias."""
        return self.layer.bias is not None

    def design(self, x: torch.Tensor) -> NDArray[np.float64]:
        """Return the design matrix (n, p) of inputs (n, n_columns): ones for a bias, then the basis."""
        with torch.no_grad():
            columns: NDArray[np.float64] = self.basis(x).numpy()
        return np.hstack([np.ones((len(columns), 1)), columns]) if self.intercept else columns

    def set_coefficients(self, coefficients: torch.Tensor) -> None:
        """Set the parameters of the layer to coefficients (n_targets, p), the intercept first."""
        with torch.no_grad():
            self.layer.weight.copy_(coefficients[:, int(self.intercept) :])
            if self.intercept:
                self.layer.bias.copy_(coefficients[:, 0])


def linear_part(network: nn.Module) -> LinearPart | None:
    """Return the parts of a network that is linear in its parameters, else None."""
    modules = list(network) if isinstance(network, nn.Sequential) else []
    if not modules or not isinstance(modules[-1], nn.Linear):
        return None
    basis = nn.Sequential(*modules[:-1])
    random = any(isinstance(module, nn.Dropout) and module.p > 0 for module in basis.modules())
    if random or any(True for _ in basis.parameters()) or modules[-1].in_features > MOST_COLUMNS:
        return None
    doubled = copy.deepcopy(basis).cpu().double().eval()
    return LinearPart(doubled, modules[-1], str(len(modules) - 1))


class Equations:
    """The least-squares equations of pieces of the rows, gathered from blocks. pieces: a factor for each."""

    def __init__(
        self,
        part: LinearPart,
        columns: Sequence[ColumnInfo],
        preprocessing: Preprocessing | None,
        n_targets: int,
        *,
        n_pieces: int = 1,
    ) -> None:
        self.part, self.columns, self.preprocessing, self.n_targets = part, columns, preprocessing, n_targets
        width = part.layer.in_features + part.intercept
        self.pieces = [Factor(width, n_targets, intercept=part.intercept) for _ in range(n_pieces)]

    def add(
        self, x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any] | None, numbers: NDArray[Any] | None = None
    ) -> None:
        """Add rows of the table to their pieces, by default the first; a row with a number < 0 has none. It adds a few
        at a time, to use little memory."""
        n_rows = max(1, CHUNK // max(1, x.shape[1]))
        for start in range(0, len(x), n_rows):
            chunk = slice(start, start + n_rows)
            own = None if weight is None else weight[chunk]
            design, targets = self.rows(x[chunk], y[chunk])
            present = numbers[chunk] if numbers is not None else np.zeros(1, dtype=np.int16)
            if (present == present[0]).all():
                if present[0] >= 0:
                    self.pieces[present[0]].add(design, targets, own)
                continue
            order = np.argsort(present, kind="stable")
            design, targets, own = design[order], targets[order], None if own is None else own[order]
            found, starts = np.unique(present[order], return_index=True)
            for number, first, last in zip(found, starts, [*starts[1:], len(order)], strict=True):
                if number >= 0:
                    weights = None if own is None else own[first:last]
                    self.pieces[number].add(design[first:last], targets[first:last], weights)

    def triangles(self) -> list[Triangle]:
        """Return the triangle of each piece. Raises OverflowError."""
        return [piece.triangle() for piece in self.pieces]

    def rows(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the design matrix (n, p) and the targets (n, n_targets), on the scale of the network."""
        with torch.no_grad():
            inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
            targets = torch.from_numpy(np.ascontiguousarray(y, dtype=np.float64))
            if self.preprocessing is not None:
                inputs, targets = self.preprocessing(inputs), self.preprocessing.scaled(targets)
        return self.part.design(inputs), targets.numpy()

    def solve(
        self,
        train: Triangle,
        val: Triangle | None = None,
        *,
        ridge: float = 0.0,
        is_result: bool,
        dependent: float = DEPENDENT,
        rounding: float = 0.0,
    ) -> Exact:
        """Solve for the optimum on a training part. dependent, rounding: see `least_squares.solve`."""
        offset = int(self.part.intercept)
        penalty = None
        if ridge:
            penalty = np.full(train.n_columns, ridge)
            penalty[:offset] = 0
        scale, mean = self._y_scale()
        solution = solve(
            train,
            penalty=penalty,
            last=self._references(),
            dependent=dependent,
            rounding=rounding,
            offset=mean / scale,
        )
        return self._exact(solution, train, val, is_result=is_result, ridge=ridge)

    def solve_penalised(
        self, train: Triangle, val: Triangle | None, folds: Sequence[tuple[Triangle, Triangle]], penalty: Penalty
    ) -> Exact:
        """Solve for the optimum with a penalty on a training part. folds: see `solve_path`."""
        path = solve_path(train, folds, penalty, scale=self._y_scale()[0])
        means = train.values[0] / train.values[0, 0] if train.intercept else np.zeros(train.n_columns)
        left_out = [LeftOut(column, {0: float(means[column])} if train.intercept else {}) for column in path.constant]
        solution = given(train, path.coefficients[path.chosen], n_used=path.n_slopes + train.intercept)
        exact = self._exact(replace(solution, left_out=left_out), train, val, is_result=True, ridge=0.0)
        return replace(exact, path=path, fit={**exact.fit, "penalty": path.described(penalty)})

    def _exact(
        self, solution: Solution, train: Triangle, val: Triangle | None, *, is_result: bool, ridge: float
    ) -> Exact:
        """Describe a solution, with its losses on both parts."""
        offset, identity = int(self.part.intercept), not len(self.part.basis)
        names, references = self._column_names(), self._references()
        scale, mean = self._y_scale()
        dependents = [left for left in solution.left_out if left.column not in references]
        left_out = [_warning(names, left, is_result) for left in dependents]
        original_names, transform = self._transform(names, offset, identity)
        fit = {
            "columns": names,
            "coefficients": torch.from_numpy(solution.coefficients),
            "inverse": torch.from_numpy(solution.inverse),
            "residual_variance": _tensor(solution.residual_variance),
            "degrees_of_freedom": solution.degrees_of_freedom,
            "n_rows": train.n_rows,
            "log_weights": float(train.log_weights),
            "r2": solution.r2,
            "r2_uncentred": solution.r2_uncentred,
            "left_out": [names[left.column] for left in solution.left_out],
            "relations": [_relation(left, len(names)) for left in dependents],
            "names": original_names,
            "transform": torch.from_numpy(transform),
            "groups": self._groups(original_names),
            "y_mean": torch.from_numpy(mean),
            "y_scale": torch.from_numpy(scale),
            "layer": ("network." if self.preprocessing is not None else "") + self.part.name,
            "exact": is_result,
            "ridge": float(ridge),
            "targets": None,
            "penalty": None,
        }
        val_loss = None
        if val is not None:
            val_loss = float(np.mean(mean_squared_errors(val, solution.coefficients) * scale**2))
        return Exact(
            fit,
            float(np.mean(solution.losses * scale**2)),
            val_loss,
            2 * solution.largest_eigenvalue / self.n_targets,
            left_out,
        )

    def _column_names(self) -> list[str]:
        columns = [column.name for column in self.columns]
        for module in self.part.basis:
            if self.preprocessing is not None:
                scaled = (self.preprocessing.scale != 1).tolist()
                columns = [f"z({name})" if z else name for name, z in zip(columns, scaled, strict=True)]
            name_columns = getattr(module, "column_names", None)
            if callable(name_columns):
                columns = list(name_columns(columns))
        if len(columns) != self.part.layer.in_features:
            columns = [f"f{i + 1}" for i in range(self.part.layer.in_features)]
        return [INTERCEPT, *columns] if self.part.intercept else columns

    def _references(self) -> list[int]:
        """Return the columns that are redundant beside an intercept, such as the first one of each category."""
        if not self.part.intercept or len(self.part.basis):
            return []
        return [1 + i for i, column in enumerate(self.columns) if column.reference]

    def _groups(self, names: list[str]) -> list[list[int]]:
        """Return the positions among the names of the columns of each group that adds to 1."""
        positions = {name: row for row, name in enumerate(names)}
        numbers = dict.fromkeys(column.group for column in self.columns if column.group >= 0)
        groups = [[column.name for column in self.columns if column.group == number] for number in numbers]
        return [[positions[column] for column in group] for group in groups if set(group) <= set(positions)]

    def _y_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.preprocessing is None:
            return np.ones(self.n_targets), np.zeros(self.n_targets)
        return self.preprocessing.y_scale.numpy().copy(), self.preprocessing.y_mean.numpy().copy()

    def _transform(self, names: list[str], offset: int, identity: bool) -> tuple[list[str], NDArray[np.float64]]:
        """Return the matrix from coefficients on the network's scale to those of the table's columns."""
        p = len(names)
        centred = self.preprocessing is not None and bool((self.preprocessing.y_mean != 0).any())
        slopes, shifts = np.ones(p - offset), np.zeros(p - offset)
        if self.preprocessing is not None and identity:
            scale = self.preprocessing.scale.numpy()
            slopes = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)  # 0 for a constant column
            shifts = -self.preprocessing.mean.numpy() * slopes
            centred = centred or bool((shifts != 0).any())
        matrix = np.zeros((p, p))
        matrix[np.arange(offset, p), np.arange(offset, p)] = slopes
        if offset:
            matrix[0, 0] = 1
            matrix[0, 1:] = shifts
        elif centred:
            return [INTERCEPT, *names], np.vstack([shifts, matrix])
        return names, matrix


def _tensor(values: NDArray[np.float64] | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _warning(names: list[str], left: LeftOut, is_result: bool) -> str:
    """Describe a column that was left out, and its effect on the model: the optimum itself, or a trained one."""
    others = [names[column] for column in left.combination if names[column] != INTERCEPT]
    listed = ", ".join(map(repr, others[:10])) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
    relation = f"repeats {listed}" if len(others) == 1 else f"is a linear combination of {listed}"
    if not others:
        relation = "is constant in the training part"
    effect = "its coefficient is set to 0" if is_result else "a trained model divides the effect among them"
    if not others and not is_result:
        effect = "a model cannot learn its effect; put it in exclude"
    return f"column {names[left.column]!r} {relation}; {effect}"


def _relation(left: LeftOut, n_columns: int) -> list[float]:
    """Return the factors (n_columns,) with which the columns add to 0 in the training part."""
    factors = [0.0] * n_columns
    for column, factor in left.combination.items():
        factors[column] = factor
    factors[left.column] = -1.0
    return factors
