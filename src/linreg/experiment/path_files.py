"""The files of a run with a penalty: path.csv and path.png, with the optimum of each strength."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.exact import penalties
from linreg.exact.equation import in_units
from linreg.runs import plots
from linreg.system.files import replace_file


def write_path(
    folder: Path, path: penalties.Path, fit: Mapping[str, Any], target_names: list[str], *, plot: bool
) -> None:
    """Write the path of a fit into the folder of its run. plot: whether to write path.png. Raises StorageError."""
    replace_file(folder / "path.csv", _table(path, fit, target_names))
    if plot:
        replace_file(folder / "path.png", plots.to_png(_picture(path, fit, target_names)))


def _table(path: penalties.Path, fit: Mapping[str, Any], target_names: list[str]) -> str:
    """Return a line for each strength as CSV: the errors, and the coefficients of the table's columns."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = _labels(fit["names"], target_names)
    errors = [] if path.means is None else ["mean_squared_error", "standard_error"]
    writer.writerow(["strength", "chosen", *errors, *names])
    for number, strength in enumerate(path.strengths.tolist()):
        line: list[Any] = [strength, int(number == path.chosen)]
        if path.means is not None and path.standard_errors is not None:
            line += [float(path.means[number]), float(path.standard_errors[number])]
        writer.writerow([*line, *in_units(fit, path.coefficients[number]).T.ravel().tolist()])
    return buffer.getvalue()


def _labels(names: list[str], target_names: list[str]) -> list[str]:
    if len(target_names) == 1:
        return names
    return [f"{target}: {name}" for target in target_names for name in names]


def _picture(path: penalties.Path, fit: Mapping[str, Any], target_names: list[str]) -> Any:
    slopes: NDArray[np.float64] = path.slopes.transpose(0, 2, 1).reshape(len(path.strengths), -1)
    columns = fit["columns"][fit["columns"][:1] == ["intercept"] :]
    return plots.plot_path(
        path.strengths,
        slopes,
        _labels(columns, target_names),
        chosen=path.chosen,
        means=path.means,
        standard_errors=path.standard_errors,
        target=", ".join(fit["targets"] or target_names),
    )
