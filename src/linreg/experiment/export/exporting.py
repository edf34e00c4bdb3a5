"""Export: a checkpoint to a file that needs no linreg: `export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.errors import UsageError
from linreg.experiment.export import c, json_text, onnx_graph, pt2, sql
from linreg.experiment.export.checking import Check, check
from linreg.experiment.export.describing import Description, describe, inputs_of
from linreg.experiment.export.rows import Rows, draw_rows
from linreg.experiment.loaded import LoadedModel
from linreg.system.files import replace_file

FORMATS: dict[str, Any] = {"json": json_text, "sql": sql, "c": c, "onnx": onnx_graph, "pt2": pt2}


@dataclass(frozen=True)
class Exported:
    """A written file, and its comparison with `predict`."""

    path: Path
    check: Check


def export(checkpoint: str | Path, to: str, output: Path | None = None) -> Exported:
    """Write a model in a format, after a comparison with `predict` on rows of the training range.

    output: by default the name of the experiment in the working directory, where no file is replaced. Raises
    CheckpointError, StorageError, and UsageError for a part of the model that the format cannot have.
    """
    model = LoadedModel(checkpoint, device="cpu")
    path = _output(output, Path(checkpoint), f"{model.spec.name}.{to}")
    content, description = _written(model, to)

    def predict(rows: Rows) -> NDArray[np.float64]:
        yhat: NDArray[np.float64] = FORMATS[to].run(content, description, rows)
        return yhat

    checked = check(model, draw_rows(description["inputs"]), predict)
    replace_file(path, content)
    return Exported(path, checked)


def _output(output: Path | None, checkpoint: Path, name: str) -> Path:
    """Return the path to write. Raises UsageError for one that must stay."""
    if output is None:
        if Path(name).exists():
            raise UsageError(f"{name}: exists; remove it, or write --output {name} to replace it")
        return Path(name)
    if output.exists() and output.samefile(checkpoint):
        raise UsageError(f"--output {output}: is also the checkpoint; name another file")
    return output


def _written(model: LoadedModel, to: str) -> tuple[bytes, Description]:
    """Return the content of the file, and the description of the model; of pt2 only the inputs and outputs, as the
    rest may be a plugin's."""
    if to == "pt2":
        return pt2.write(model), {"inputs": inputs_of(model), "outputs": model.saved.target_names}
    description = describe(model)
    content = FORMATS[to].write(description)
    return content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content, description
