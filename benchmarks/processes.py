"""Two processes against one, with one thread each: exact fits, a wide network, a sweep, and the start of a group.

python -m benchmarks.processes [RUNS]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.rows import ROOT, Row, compare, in_turn, table, time_process

SPEC = """\
name: processes
SOLVER
data:
  source: {name: npy, path: table.npy, target: x21}
  memory: MEMORY
  memory_limit: 16384
  batch_size: 8192
  shards: 2
  split: {train_ratio: 1.0}
model: MODEL
baseline: false
writer: {graph: false, hparams: false, plots: false}
"""
SWEEP = """\
name: search
epochs: 100
data: {source: {name: friedman1, n_samples: 20000, noise: 1.0}, batch_size: 32}
model: {name: mlp, hidden: [32]}
optimizer: {name: adam, lr: 0.01}
baseline: false
writer: {graph: false, hparams: false, plots: false}
"""
GRADIENT = "epochs: EPOCHS\noptimizer: {name: adam, lr: 0.001}"


def measure(runs: int, n_exact: int = 20_000_000, n_wide: int = 65_536) -> list[Row]:
    """Measure whole commands. runs: the number of measurements for each median; n_exact, n_wide: rows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        return [
            _exact(folder, runs, n_exact),
            _wide(folder, runs, n_wide),
            _sweep(folder, runs, "auto"),
            _sweep(folder, runs, "compiled"),
            _start(folder, runs),
        ]


def _write(folder: Path, n_rows: int, **parts: str) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(n_rows, 20))
    np.save(folder / "table.npy", np.c_[x, x @ random.normal(size=20) + random.normal(size=n_rows)])
    text = SPEC
    for key, value in parts.items():
        text = text.replace(key, value)
    (folder / "spec.yaml").write_text(text)


def _seconds(folder: Path, *arguments: str) -> float:
    """Return the seconds of a command."""
    argv = [sys.executable, "-m", "linreg", *arguments, "--quiet"]
    return time_process(argv, cwd=folder, env={"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")})


def _two(folder: Path, runs: int, name: str, target: float, *arguments: str) -> Row:
    """Compare a command with two processes and with one."""
    found = in_turn(
        {
            "two": lambda: _seconds(folder, *arguments, "--processes", "2"),
            "one": lambda: _seconds(folder, *arguments),
        },
        runs,
    )
    return compare(name, "one process", found["two"], found["one"], target=target, better="higher")


def _exact(folder: Path, runs: int, n_rows: int) -> Row:
    _write(folder, n_rows, SOLVER="solver: exact", MEMORY="mapped", MODEL="{name: linear}")
    return _two(folder, runs, f"exact fit, {n_rows:,} x 20, mapped, two processes", 1.8, "train", "spec.yaml")


def _wide(folder: Path, runs: int, n_rows: int) -> Row:
    solver = GRADIENT.replace("EPOCHS", "16")
    _write(folder, n_rows, SOLVER=solver, MEMORY="resident", MODEL="{name: mlp, hidden: [512, 512]}")
    return _two(folder, runs, "MLP 20-512-512-1, batch 8192, two processes", 1.7, "train", "spec.yaml")


def _sweep(folder: Path, runs: int, engine: str) -> Row:
    """Measure a sweep: with `engine: auto` in stacks, and with `compiled` one model after another."""
    rates = "optimizer.lr={min: 1e-3, max: 0.03, log: true}"
    (folder / "sweep.yaml").write_text(SWEEP)
    name = f"sweep of 64 MLPs 10-32-1, 100 epochs of 20,000 x 10, engine: {engine}, two processes"
    return _two(folder, runs, name, 1.9, "sweep", "sweep.yaml", rates, f"engine={engine}", "--trials", "64")


def _start(folder: Path, runs: int) -> Row:
    """Measure what a group costs before its first step: a run of one epoch."""
    spec = [str(ROOT / "configs" / "smoke.yaml"), "data.shards=2", "epochs=1"]
    found = in_turn(
        {
            "two": lambda: _seconds(folder, "train", *spec, "--processes", "2"),
            "one": lambda: _seconds(folder, "train", *spec),
        },
        runs,
    )
    more = found["two"] - found["one"]
    note = f"one process takes {found['one']:.2f} s"
    return compare("start of a group of two processes", "1.5 s", more, 1.5, target=1.0, note=note)


if __name__ == "__main__":
    rows = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(table({"processes": rows}), end="")
