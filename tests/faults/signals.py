"""How long a run takes to end when a signal asks for it: `python -m tests.faults.signals [N [SEED]]`.

Each run is a process of its own, asked at a random moment of its training. It must exit with the code of the signal, say
how to go on, and leave a checkpoint that can be opened.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from linreg.checkpoint import load
from tests.conftest import write_spec

SPECS = (
    {"epochs": 10**6},
    {"epochs": 10**6, "data__source__n_samples": 100_000, "checkpoint": {"every": 1}},
    {"epochs": 10**6, "model": {"name": "mlp", "hidden": [256, 256]}, "data__source__n_samples": 20_000},
    {"epochs": 10**6, "model": {"name": "mlp", "hidden": [32]}, "engine": "textbook", "writer__histograms": 1},
)


def seconds_to_end(changes: dict, number: signal.Signals, wait: float) -> float:
    """Start a run in this folder, signal it some seconds after its first checkpoint, and time how it ends."""
    write_spec(**changes)
    command = [sys.executable, "-m", "linreg", "train", "small.yaml", "-q", "--runs", "runs", "--checkpoints", "kept"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = Path("kept/small_001/last.pth")
    while not last.exists():
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1])
        time.sleep(0.02)
    time.sleep(wait)
    begin = time.perf_counter()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    seconds = time.perf_counter() - begin
    assert process.returncode == 128 + number, err
    assert err == f"interrupted; resume with: linreg resume {last} --checkpoints kept\n", err
    assert out == f"{last}\n"
    load(last)
    return seconds


def main(n_runs: int = 100, seed: int = 0) -> None:
    """Print the figures as JSON."""
    chosen = random.Random(seed)
    found = []
    for run in range(n_runs):
        changes = SPECS[run % len(SPECS)]
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found.append(seconds_to_end(changes, chosen.choice([signal.SIGINT, signal.SIGTERM]), chosen.random() / 2))
        print(f"{run + 1} of {n_runs}: {found[-1]:.3f} s", file=sys.stderr)
    found.sort()
    told = {"runs": n_runs, "median": found[n_runs // 2], "p99": found[int(0.99 * n_runs)], "most": found[-1]}
    print(json.dumps({key: round(value, 3) for key, value in told.items()}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
