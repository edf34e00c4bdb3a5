"""The model of cost of docs/processes.md against measured steps, for one, two and four processes of this machine.

python -m benchmarks.exchange
"""

import json
import math
import os
import socket
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from benchmarks.rows import ROOT

SIZES = (2, 4)
N_SHARDS = 4
WIDTHS = (20, 1_000_000)  # numbers that are exchanged: for the latency, and for the bytes a second
N_EXCHANGES = 60
SPEC = """\
name: cost
epochs: {n_epochs}
data:
  source: {{name: friedman1, n_samples: {n_rows}, n_features: {n_features}}}
  batch_size: {batch_size}
  shards: {n_shards}
  split: {{train_ratio: 1.0}}
model: {{name: mlp, hidden: {hidden}}}
optimizer: {{name: adam, lr: 0.001}}
engine: textbook
baseline: false
writer: {{graph: false, hparams: false, plots: false}}
"""
N_FEATURES = 20


class Run(NamedTuple):
    """A run whose steps are measured. n_epochs: of the shorter one of its two runs."""

    n_rows: int
    batch_size: int
    hidden: list[int]
    n_epochs: int

    @property
    def name(self) -> str:
        """The sizes of the layers and of a batch."""
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch_size}"

    @property
    def sizes(self) -> list[int]:
        """The numbers of inputs, of the units of each hidden layer, and of outputs."""
        return [N_FEATURES, *self.hidden, 1]

    @property
    def n_parameters(self) -> int:
        """The number of weights and biases."""
        return sum((n_inputs + 1) * n_outputs for n_inputs, n_outputs in pairwise(self.sizes))


RUNS = (Run(4096, 64, [32], n_epochs=20), Run(32768, 8192, [512, 512], n_epochs=6))


def seconds_of_exchange(n_bytes: float, size: int, latency: float, rate: float, *, n_shards: int = N_SHARDS) -> float:
    """Return the seconds of an exchange by the model. latency: seconds; rate: bytes a second."""
    return 2 * latency * math.log2(size) + n_bytes * (n_shards + size - 1) / rate


def measured_exchanges(size: int) -> list[float]:
    """Return the seconds of an exchange of each width, between processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(size)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.exchange", "worker"],
            env={**_environment(), **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"processes that exchange: exit codes {[process.returncode for process in processes]}")
    return [float(word) for word in printed[0].split()]


def work() -> None:
    """Exchange, as one process of a group; the first one prints the medians."""
    import torch

    from linreg.experiment.group import open_exchange

    group = open_exchange(None)
    group.form()
    for width in WIDTHS:
        rows, seconds = torch.zeros(len(group.own(N_SHARDS)), width), []
        for _ in range(N_EXCHANGES):
            begin = perf_counter()
            group.total(rows, N_SHARDS)
            seconds.append(perf_counter() - begin)
        if group.rank == 0:
            print(statistics.median(seconds))


def spec_of(run: Run) -> str:
    """Return the spec of a run."""
    return SPEC.format(**run._asdict(), n_features=N_FEATURES, n_shards=N_SHARDS)


def measured_step(folder: Path, run: Run, size: int) -> float:
    """Return the seconds of a step of a run by some processes: of the epochs beyond the first third of them."""
    (folder / "spec.yaml").write_text(spec_of(run))
    processes = ["--processes", str(size)] if size > 1 else []
    seconds = []
    for epochs in (run.n_epochs, 3 * run.n_epochs):
        argv = [sys.executable, "-m", "linreg", "train", "spec.yaml", "--epochs", str(epochs), "--json", "--quiet"]
        ended = subprocess.run([*argv, *processes], cwd=folder, env=_environment(), capture_output=True, check=True)
        seconds.append(json.loads(ended.stdout)["seconds"])
    n_steps = 2 * run.n_epochs * run.n_rows // run.batch_size
    return (seconds[1] - seconds[0]) / n_steps


def measure() -> list[tuple[str, int, float, float]]:
    """Return for each run and number of processes the seconds of a step: by the model, and measured. The latency and
    the bytes a second are those of two processes."""
    small, large = measured_exchanges(2)
    latency, rate = small / 2, 4 * (WIDTHS[1] - WIDTHS[0]) * (N_SHARDS + 1) / (large - small)
    print(f"latency {1e6 * latency:.0f} µs, {rate / 1e9:.2f} GB/s", file=sys.stderr)
    rows = [
        (f"exchange alone, {width:,} parameters", size, seconds_of_exchange(4 * width, size, latency, rate), seconds)
        for size in SIZES[1:]
        for width, seconds in zip(WIDTHS, measured_exchanges(size), strict=True)
    ]
    n_cores = os.cpu_count() or 1
    with TemporaryDirectory() as name:
        for run in RUNS:
            step = measured_step(Path(name), run, 1)
            rows.append((run.name, 1, step, step))
            for size in SIZES:
                exchange = seconds_of_exchange(4 * run.n_parameters, size, latency, rate)
                measured = measured_step(Path(name), run, size)
                rows.append((run.name, size, step / min(size, n_cores) + exchange, measured))
    return rows


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
        sys.exit()
    print("| step of | processes | by the model | measured |\n|---|---|---|---|")
    for name, size, predicted, seconds in measure():
        print(f"| {name} | {size} | {1000 * predicted:.2f} ms | {1000 * seconds:.2f} ms |")
