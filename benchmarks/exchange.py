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
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.rows import ROOT

SIZES = (2, 4)
N_SHARDS = 4
WIDTHS = (20, 1_000_000)  # numbers that are exchanged: for the latency, and for the bytes a second
N_EXCHANGES = 60
SPEC = """\
name: cost
data:
  source: {{name: friedman1, n_samples: {n_rows}, n_features: 20}}
  batch_size: {batch_size}
  shards: 4
  split: {{train_ratio: 1.0}}
model: {{name: mlp, hidden: {hidden}}}
optimizer: {{name: adam, lr: 0.001}}
engine: textbook
baseline: false
writer: {{graph: false, hparams: false, plots: false}}
"""
RUNS = {  # the values of SPEC, the number of parameters, and of epochs
    "20-32-1, batch 64": ({"n_rows": 4096, "batch_size": 64, "hidden": [32]}, 705, 20),
    "20-512-512-1, batch 8192": ({"n_rows": 32768, "batch_size": 8192, "hidden": [512, 512]}, 273_921, 6),
}


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


def measured_step(folder: Path, values: dict[str, object], size: int, n_epochs: int) -> float:
    """Return the seconds of a step of a run: of the epochs beyond the first third of them."""
    (folder / "spec.yaml").write_text(SPEC.format(**values))
    processes = ["--processes", str(size)] if size > 1 else []
    seconds = []
    for epochs in (n_epochs, 3 * n_epochs):
        argv = [sys.executable, "-m", "linreg", "train", "spec.yaml", "--epochs", str(epochs), "--json", "--quiet"]
        ended = subprocess.run([*argv, *processes], cwd=folder, env=_environment(), capture_output=True, check=True)
        seconds.append(json.loads(ended.stdout)["seconds"])
    n_steps = 2 * n_epochs * int(values["n_rows"]) // int(values["batch_size"])  # type: ignore[call-overload]
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
        for run, (values, n_parameters, n_epochs) in RUNS.items():
            step = measured_step(Path(name), values, 1, n_epochs)
            rows.append((run, 1, step, step))
            for size in SIZES:
                predicted = step / min(size, n_cores) + seconds_of_exchange(4 * n_parameters, size, latency, rate)
                rows.append((run, size, predicted, measured_step(Path(name), values, size, n_epochs)))
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
