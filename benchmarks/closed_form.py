"""The closed form beside scikit-learn's LinearRegression, and the memory that it takes beside the data.

    python -m benchmarks.closed_form [RUNS]

Both get the same arrays, and as many threads as their libraries take by themselves; linreg's part uses one.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.rows import Row, compare, figures, in_turn, table, time_process, timed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHAPES = ((1_000_000, 20), (2_000_000, 5), (200_000, 100), (100_000, 20))  # the first is the one that is promised

SPEC = """\
name: closed_form
dtype: float64
solver: exact
model: {name: linear}
data:
  source: {name: npy, path: table.npy, target: x21}
  split: {train_ratio: 1.0}
"""

THEIRS = """
import numpy as np
from sklearn.linear_model import LinearRegression
table = np.load("table.npy")
print(LinearRegression().fit(table[:, :-1], table[:, -1]).coef_)
"""

PEAK = """
import numpy as np
from benchmarks.closed_form import solve
from benchmarks.rows import forget_peak, peak_memory

x = np.random.default_rng(0).normal(size=(1_000_000, 20))
y = x[:, :1] + 1
solve(x[:100], y[:100])  # what the libraries need once
forget_peak()
before = peak_memory()
solve(x, y)
print((peak_memory() - before) / 1e6)
"""


def problem(n_rows: int, n_features: int) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Draw x (n_rows, n_features), and y (n_rows, 1) that is linear in it but for noise."""
    import numpy as np

    random = np.random.default_rng(0)
    x = random.normal(size=(n_rows, n_features))
    return x, x @ random.normal(size=(n_features, 1)) + random.normal(size=(n_rows, 1))


def solve(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> Any:
    """Solve as `solver: exact` does, from what its source hands over: the fit with coefficients and standard errors."""
    from torch import nn

    from linreg.data.derived import ColumnInfo
    from linreg.exact.closed_form import Equations, LinearPart

    columns = [ColumnInfo(f"x{i + 1}") for i in range(x.shape[1])]
    part = LinearPart(nn.Sequential(), nn.Linear(x.shape[1], y.shape[1]), "0")
    equations = Equations(part, columns, None, y.shape[1])
    equations.add(x, y, None)
    return equations.solve(*equations.triangles(), is_result=True).fit


def _refuse_difference(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> None:
    import numpy as np
    from sklearn.linear_model import LinearRegression

    theirs = LinearRegression().fit(x, y[:, 0])
    np.testing.assert_allclose(solve(x, y)["coefficients"][:, 0], [theirs.intercept_, *theirs.coef_], rtol=1e-9)


def measure(runs: int) -> list[Row]:
    """Measure arrays at hand, then whole processes from a file, `runs` times each, then memory."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    rows = []
    for n_rows, n_features in SHAPES:
        x, y = problem(n_rows, n_features)
        _refuse_difference(x, y)
        functions: dict[str, Callable[[], float]] = {
            "ours": timed(lambda x=x, y=y: solve(x, y)),
            "theirs": timed(lambda x=x, y=y[:, 0]: LinearRegression().fit(x, y)),
        }
        found = in_turn(functions, runs)
        name = f"closed form, {n_rows:,} x {n_features}, float64"
        target = 1.0 if (n_rows, n_features) == SHAPES[0] else None
        rows.append(compare(name, "scikit-learn LinearRegression", found["ours"], found["theirs"], target=target))

    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(SPEC)
        np.save(folder / "table.npy", np.hstack(problem(*SHAPES[0])))
        found = in_turn(
            {
                "ours": lambda: time_process(
                    [sys.executable, "-m", "linreg", "train", "spec.yaml", "--quiet"], cwd=folder
                ),
                "theirs": lambda: time_process([sys.executable, "-c", THEIRS], cwd=folder),
            },
            runs,
        )
    n_rows, n_features = SHAPES[0]
    size = f"{n_rows:,} x {n_features}"
    note = "linreg also imports torch, reads strictly, identifies the data, and writes a run and a checkpoint"
    whole = (found["ours"], found["theirs"])
    rows.append(compare(f"from .npy to coefficients, {size}", "a process of numpy and scikit-learn", *whole, note=note))
    (beside,) = figures(PEAK)
    note = "peak beside the data; the reference is x itself"
    rows.append(
        compare(
            f"memory of the closed form, {size}", "the data", beside, 8e-6 * n_rows * n_features, note=note, unit="MB"
        )
    )
    return rows


def main(argv: list[str]) -> None:
    """Measure and print."""
    print(table({"closed_form": measure(*map(int, argv or ["5"]))}), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
