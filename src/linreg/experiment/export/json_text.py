"""The JSON form of a description: the description itself. A number is the shortest decimal that reads back as it."""

import json

import numpy as np
from numpy.typing import NDArray

from linreg.experiment.export.describing import Description
from linreg.experiment.export.evaluating import evaluate
from linreg.experiment.export.rows import Rows


def write(description: Description) -> str:
    """Return the document."""
    parts = {key: value for key, value in description.items() if key not in ("inputs", "steps")}
    lines = [f"  {_one_line(key)}: {_one_line(value)}" for key, value in parts.items()]
    lines += [f"  {_one_line(key)}: {_lines(description[key])}" for key in ("inputs", "steps")]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _one_line(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _lines(entries: list[object]) -> str:
    listed = ",\n".join(f"    {_one_line(entry)}" for entry in entries)
    return f"[\n{listed}\n  ]" if entries else "[]"


def run(content: bytes, description: Description, rows: Rows) -> NDArray[np.float64]:
    """Predict with the document: (N, n_targets)."""
    return evaluate(json.loads(content), rows)
