"""Write docs/accuracy.md: how many digits of NIST's certified values `solver: exact` gets right. `make accuracy`."""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np

import linreg
from linreg.checkpoint import summary

sys.path.insert(0, str(Path(__file__).parent))
from certified import SETS, Certified

ROOT = Path(__file__).parent.parent
MOST = 15.0  # digits of the certified values

HEAD = """\
# Accuracy

This page counts the correct digits of `solver: exact` on NIST's
[Statistical Reference Datasets](https://www.itl.nist.gov/div898/strd/lls/lls.shtml). A number is the smallest, over the
coefficients of a set, of -log10 of the relative error against the certified value. It is the absolute error where the
certified value is 0, and at most 15.

`make accuracy` measures with `dtype: float64`, beside `numpy.linalg.lstsq` on the same matrix. The standard deviations
of lstsq use the inverse of X'X. linreg factorizes problems as small as these in the processor's extended precision, if
it has one, and large ones in float64.

"""


def digits(found: np.ndarray, certified: np.ndarray) -> float:
    """Return the smallest number of correct digits among the values."""
    error = np.abs(found - certified) / np.where(certified == 0, 1, np.abs(certified))
    worst = float(error.max())
    return MOST if worst == 0 else min(MOST, max(0.0, -math.log10(worst)))


def certified_values(case: Certified) -> tuple[np.ndarray, np.ndarray]:
    """Return the certified coefficients and standard deviations."""
    return np.array(case.estimates.split(), dtype=float), np.array(case.deviations.split(), dtype=float)


def by_linreg(case: Certified, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Solve a set as a user does: from a file, by a spec. Coefficients and standard errors, the intercept first."""
    lines = [",".join(case.columns.split()), *(",".join(row) for row in case.table)]
    (folder / f"{case.name}.csv").write_text("\n".join(lines) + "\n")
    bias = str(case.intercept).lower()
    model = f"{{name: linear, bias: {bias}}}" if case.degree == 1 else f"{{name: polynomial, degree: {case.degree}}}"
    (folder / "spec.yaml").write_text(
        f"name: {case.name}\ndtype: float64\nsolver: exact\nmodel: {model}\n"
        f"data:\n  source: {{name: csv, path: {folder / case.name}.csv, target: y}}\n  split: {{train_ratio: 1.0}}\n"
    )
    result = linreg.train(
        linreg.load_spec(folder / "spec.yaml"), runs=folder / "runs", checkpoints=folder / "checkpoints"
    )
    coefficients = summary(linreg.load(result.checkpoint))["coefficients"]
    return np.array([row["estimate"] for row in coefficients]), np.array([row["std_error"] for row in coefficients])


def by_lstsq(case: Certified) -> tuple[np.ndarray, np.ndarray]:
    """Solve a set by numpy.linalg.lstsq."""
    table = np.array(case.table, dtype=float)
    x, y = table[:, :-1], table[:, -1]
    design = np.hstack([x**power for power in range(0 if case.intercept else 1, case.degree + 1)][: case.degree + 1])
    if case.degree == 1 and case.intercept:
        design = np.hstack([np.ones((len(x), 1)), x])
    estimates = np.linalg.lstsq(design, y, rcond=np.finfo(float).eps)[0]
    variance = ((y - design @ estimates) ** 2).sum() / (len(design) - design.shape[1])
    return estimates, np.sqrt(np.abs(variance * np.diag(np.linalg.inv(design.T @ design))))


def measure(case: Certified, folder: Path) -> tuple[float, float, float, float]:
    """Digits of the coefficients and of the standard deviations: linreg's, then lstsq's."""
    certified = certified_values(case)
    ours, theirs = by_linreg(case, folder), by_lstsq(case)
    return (
        digits(ours[0], certified[0]),
        digits(ours[1], certified[1]),
        digits(theirs[0], certified[0]),
        digits(theirs[1], certified[1]),
    )


def page() -> str:
    """Return the text of docs/accuracy.md."""
    lines = [
        "| set | coefficients | standard deviations | coefficients by lstsq | standard deviations by lstsq |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for case in SETS:
            found = " | ".join(f"{value:.1f}" for value in measure(case, Path(folder)))
            lines.append(f"| {case.name} | {found} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "accuracy.md").write_text(page())
