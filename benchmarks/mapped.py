"""Tables larger than memory: rows per second of training from a map, and the memory that it takes, beside training in
memory with the same engine.

    python -m benchmarks.mapped [RUNS [ROWS]]

Every measurement is of a process of its own, on one thread, in turn with that of its reference; the table was
converted before, and lies in the page cache. A small run goes before the one that is measured, so that what the first
steps of a process import and set up counts in neither.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import Row, compare, figures, in_turn, table

N_ROWS = 4_000_000  # of twenty features and a target: 640 MiB
N_FEATURES = 20
LIMIT = 64  # MiB

SPEC = """\
name: mapped
epochs: 1
baseline: false
data:
  source: {{name: parquet, path: {path}, target: x21}}
  batch_size: 32
  standardize: {standardize}
model: {{name: linear}}
optimizer: {{name: sgd, lr: 0.001}}
writer: {{graph: false, hparams: false, plots: false}}
"""

# Prints the rows per second of the training part, and by how much the memory of the process rose, in MiB.
TRAIN = """
import sys
import linreg
from benchmarks.rows import forget_peak, peak_memory
spec, n_rows, *settings = sys.argv[1:]
linreg.train(linreg.load_spec("small.yaml", settings))
forget_peak()
before = peak_memory()
seconds = linreg.train(linreg.load_spec(spec, settings)).seconds
print(0.8 * int(n_rows) / seconds)
print((peak_memory() - before) / 2**20)
"""


def write_tables(folder: Path, n_rows: int) -> None:
    """Write the table, a small one of its kind, and the specs that train on them."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    schema = pa.schema([(f"x{i + 1}", pa.float64()) for i in range(N_FEATURES + 1)])
    for name, n in (("large", n_rows), ("small", 1000)):
        with parquet.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for first in range(0, n, 100_000):
                x = random.random((min(100_000, n - first), N_FEATURES))
                y = x @ np.linspace(0.1, 1, N_FEATURES) + random.normal(0, 0.1, len(x))
                writer.write_table(pa.table([*x.T, y], schema=schema))
    for name, path, standardize in (
        ("small", "small.parquet", "true"),
        ("plain", "large.parquet", "false"),
        ("standardised", "large.parquet", "true"),
    ):
        (folder / f"{name}.yaml").write_text(SPEC.format(path=path, standardize=standardize))


def measure(runs: int = 5, n_rows: int = N_ROWS) -> list[Row]:
    """Measure rows per second and memory, `runs` times each."""
    rows = []
    mapped = "data.memory=mapped"
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, n_rows)
        size = n_rows * (N_FEATURES + 1) * 8 / 2**20
        within, beyond = f"data.memory_limit={int(size) + 64}", f"data.memory_limit={LIMIT}"
        peaks: dict[str, list[float]] = {}

        def rate(key: str, spec: str, *settings: str) -> Callable[[], float]:
            """Make a function that trains an epoch in a new process, and returns its rows per second."""
            env = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}

            def run() -> float:
                found, peak = figures(TRAIN, f"{spec}.yaml", str(n_rows), *settings, cwd=folder, env=env)
                peaks.setdefault(key, []).append(peak)
                return found

            return run

        for spec in ("plain", "standardised"):
            found = in_turn(
                {
                    "memory": rate(f"{spec}, memory", spec),
                    "within": rate(f"{spec}, within", spec, mapped, within),
                    "beyond": rate(f"{spec}, beyond", spec, mapped, beyond),
                },
                runs,
            )
            for case, what in (("within", "all resident"), ("beyond", f"limit {LIMIT} MiB")):
                rows.append(
                    compare(
                        f"an epoch of {n_rows:,} x {N_FEATURES} {spec}, mapped, {what}",
                        "in memory",
                        0.8 * n_rows / found[case],
                        0.8 * n_rows / found["memory"],
                        target=0.5,
                        better="higher",
                    )
                )
        rows.append(
            compare(
                f"memory of training on {size:.0f} MiB, mapped, limit {LIMIT} MiB",
                "in memory",
                max(peaks["plain, beyond"]),
                max(peaks["plain, memory"]),
                unit="MiB",
                note="the order of the rows of an epoch is in memory, about 8 bytes a row",
            )
        )
    return rows


def main() -> None:
    """Print the table of this part."""
    print(table({"mapped": measure(*map(int, sys.argv[1:]))}))


if __name__ == "__main__":
    main()
