"""The values of a description for rows of inputs, in float64 with NumPy: the check of a JSON export."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.experiment.export.describing import Description
from linreg.experiment.export.expressions import Expression, fold, variable
from linreg.experiment.export.functions import activation, derived, inverse
from linreg.experiment.export.rows import Rows

Array = NDArray[np.float64]


def evaluate(description: Description, rows: Rows) -> Array:
    """Predict for rows (N): (N, n_targets), NaN for rows that the model refuses."""
    with np.errstate(all="ignore"):
        x, is_refused = encode(description, rows)
        for step in description["steps"]:
            x = apply_step(step, x)
            if step["step"] == "derive":
                is_refused |= ~np.isfinite(x).all(axis=1)
        is_refused |= ~np.isfinite(x).all(axis=1)
    return np.where(is_refused[:, None], np.nan, x)


def encode(description: Description, rows: Rows) -> tuple[Array, NDArray[np.bool_]]:
    """Return the columns of rows (N, n_columns), gaps filled and categories one-hot, and the rows to refuse (N,)."""
    columns: list[Array] = []
    is_refused = np.zeros(rows.n_rows, dtype=bool)
    for entry in description["inputs"]:
        values = rows.values[entry["name"]]
        if entry["kind"] == "category":
            texts = [entry["gap"] if text is None else entry["also"].get(text, text) for text in values]
            columns += [np.array([text == own for text in texts], dtype=np.float64) for own in entry["categories"]]
            is_refused |= [text is None or _is_refused(text, entry) for text in texts]
            continue
        numbers = np.array(values, dtype=np.float64)
        if entry["gap"] is not None:
            numbers[np.isnan(numbers)] = entry["gap"]
        is_refused |= ~np.isfinite(numbers)
        columns.append(numbers)
    return np.stack(columns, axis=1) if columns else np.zeros((rows.n_rows, 0)), is_refused


def _is_refused(text: str, entry: dict[str, Any]) -> bool:
    return entry["unseen"] == "error" and text not in entry["categories"]


def apply_step(step: dict[str, Any], x: Array) -> Array:
    """Apply a step to columns (N, n_columns)."""
    match step["step"]:
        case "derive":
            before = [variable(str(i)) for i in range(x.shape[1])]
            columns = {str(i): x[:, i] for i in range(x.shape[1])}
            return np.stack([value_of(derived(column, before), columns) for column in step["columns"]], axis=1)
        case "standardize":
            scale = np.array(step["scale"])
            return np.asarray(np.where(scale == 0, 0.0, (x - np.array(step["mean"])) / scale))
        case "powers":
            return np.hstack([x**power for power in range(1, step["degree"] + 1)])
        case "linear":
            weights = np.array(step["weights"]).reshape(len(step["bias"]), x.shape[1])
            return np.asarray(x @ weights.T + np.array(step["bias"]))
        case "activation":
            return value_of(activation(step["function"])(variable("x")), {"x": x})
        case "restore":
            return np.asarray(x * np.array(step["scale"]) + np.array(step["mean"]))
        case "invert":
            inverses = (inverse(step, target)(variable("z")) for target in range(x.shape[1]))
            return np.stack([value_of(f, {"z": z}) for f, z in zip(inverses, x.T, strict=True)], axis=1)
    return x


def value_of(root: Expression, variables: dict[str, Array]) -> Array:
    """Return the value of an expression. All variables have the same shape, as the result has."""
    from scipy.special import erf

    operations: dict[str, Any] = {
        "absolute": np.abs,
        "erf": erf,
        "if_less": lambda a, b, yes, no: np.where(a < b, yes, no),
        "if_equal": lambda a, b, yes, no: np.where(a == b, yes, no),
    }
    shape = next(iter(variables.values())).shape

    def make(expression: Expression, arguments: list[Any]) -> Any:
        if expression.operation == "variable":
            return variables[expression.name]
        if expression.operation == "constant":
            return np.full(shape, expression.value)
        return (operations.get(expression.operation) or getattr(np, expression.operation))(*arguments)

    return np.asarray(fold(root, make))
