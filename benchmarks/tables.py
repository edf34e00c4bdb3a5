"""Tables: from CSV to the first step, the memory that it takes, and predictions from file to file.

    python -m benchmarks.tables [RUNS [ROWS]]

Every time is of a process of its own, in turn with that of its reference. Of the way to the first step what is timed
begins with torch imported, and of pyarrow's reading with pyarrow imported; of predictions whole processes are timed.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, compare, figures, in_turn, table, time_process

N_ROWS = 5_000_000  # of ten features and a target: about 0.5 GB
N_FEATURES = 10

SPEC = """\
name: tables
solver: {solver}
epochs: 1
data:
  source: {{name: csv, path: {path}, target: y}}
  batch_size: 32
  transforms: {transforms}
model: {{name: linear}}
optimizer: {{name: sgd, lr: 0.01}}
writer: {{graph: false, plots: false}}
"""

READ = """
from time import perf_counter
from pyarrow import csv
start = perf_counter()
csv.read_csv("table.csv")
print(perf_counter() - start)
"""

TO_FIRST_STEP = """
from time import perf_counter
from benchmarks.rows import peak_memory
from linreg.system.startup import importing_torch
with importing_torch():  # as the command does
    import torch
start = perf_counter()
import linreg
from linreg.data.loaders import make_tensor_loaders
experiment = linreg.build(linreg.load_spec("{spec}.yaml"))
loader, _ = make_tensor_loaders(experiment.loaders, experiment.device)
experiment.train_step_fn(*next(loader.batches()))
print(perf_counter() - start)
print(peak_memory())
"""

TRANSFORMS = "[{name: log1p, columns: x1}, {name: interaction, columns: [x2, x3]}]"

PANDAS = """
import numpy as np, pandas as pd
from sklearn.linear_model import LinearRegression
model = LinearRegression()
model.coef_, model.intercept_ = np.linspace(0.1, 1, 10), 0.5
table = pd.read_csv("table.csv")
yhat = model.predict(table[[f"x{i + 1}" for i in range(10)]].to_numpy())
pd.DataFrame({"y_predicted": yhat}).to_csv("theirs.csv", index=False)
"""


def write_table(path: Path, n_rows: int) -> None:
    """Write rows of ten features in [0, 1) and a target, each with six decimals, in CSV."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    random = np.random.default_rng(0)
    names = [*(f"x{i + 1}" for i in range(N_FEATURES)), "y"]
    schema = pa.schema([(name, pa.float64()) for name in names])
    with csv.CSVWriter(path, schema) as writer:
        for first in range(0, n_rows, 500_000):
            x = random.random((min(500_000, n_rows - first), N_FEATURES))
            y = x @ np.linspace(0.1, 1, N_FEATURES) + random.normal(0, 0.1, len(x))
            columns = [column.round(6) for column in (*x.T, y)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def measure(runs: int, n_rows: int = N_ROWS) -> list[Row]:
    """Measure in a new folder. runs: the number of processes for each median."""
    import pandas  # noqa: F401  # fail before measuring if it is missing
    import sklearn  # noqa: F401  # likewise

    with TemporaryDirectory() as place:
        folder = Path(place)
        write_table(folder / "table.csv", n_rows)
        write_table(folder / "small.csv", 1000)
        for name, solver, path, transforms in (
            ("gradient", "gradient", "table.csv", "[]"),
            ("transforms", "gradient", "table.csv", TRANSFORMS),
            ("exact", "exact", "small.csv", "[]"),
        ):
            (folder / f"{name}.yaml").write_text(SPEC.format(solver=solver, path=path, transforms=transforms))
        linreg = [sys.executable, "-m", "linreg"]
        time_process([*linreg, "train", "exact.yaml", "--quiet"], cwd=folder)
        predict = [*linreg, "predict", "checkpoints/tables_001/last.pth", "--input", "table.csv"]

        peaks: dict[str, list[float]] = {"gradient": [], "transforms": []}

        def to_first_step(spec: str) -> float:
            seconds, peak = figures(TO_FIRST_STEP.replace("{spec}", spec), cwd=folder)
            peaks[spec].append(peak)
            return seconds

        found = in_turn(
            {
                "read": lambda: figures(READ, cwd=folder)[0],
                "to_first_step": lambda: to_first_step("gradient"),
                "transforms": lambda: to_first_step("transforms"),
                "pandas": lambda: time_process([sys.executable, "-c", PANDAS], cwd=folder),
                "predict": lambda: time_process([*predict, "--output", "ours.csv"], cwd=folder),
            },
            runs,
        )
    size = f"{n_rows:,} x {N_FEATURES}"
    matrix = 4 * n_rows * (N_FEATURES + 1)
    return [
        compare(
            f"from CSV to the first step, {size}",
            "pyarrow.csv.read_csv",
            found["to_first_step"],
            found["read"],
            target=1.5,
        ),
        compare(
            f"the same with a logarithm and an interaction, {size}",
            "pyarrow.csv.read_csv",
            found["transforms"],
            found["read"],
            target=2.0,
            note=f"peak memory {max(peaks['transforms']) / 1e6:.0f} MB",
        ),
        compare(
            f"peak memory without transforms, {size}",
            "the matrix in float32",
            max(peaks["gradient"]) / 1e6,
            matrix / 1e6,
            target=2.5,
            note="with all that is imported",
            unit="MB",
        ),
        compare(
            f"predict from CSV to CSV, {size}",
            "pandas with scikit-learn",
            found["predict"],
            found["pandas"],
            target=2.0,
            better="higher",
        ),
    ]


def main(argv: list[str]) -> None:
    """Measure and print."""
    print(table({"tables": measure(*map(int, argv or ["5"]))}), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
