"""A machine with a GPU: tests, a resumed run, and the speed of captured steps; meant to take some eight minutes.

    python -m benchmarks.gpu [DEVICE]

DEVICE: cuda, or cuda:1; cpu tries the script itself, which takes much longer. It runs the tests that need CUDA; trains,
and trains again with an interruption, and compares all bits; and times epochs of steps that are captured and replayed
against the same steps taken one by one, and against the textbook's. It is no part of `make bench`, which measures the
CPU. Exit code 1: a test failed, or a bit differs.
"""

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

import linreg
from benchmarks.rows import ROOT, Row, compare, in_turn, table, timed
from linreg.spec.schema import spec_from_dict

WARM_UP, RUNS = 40, 15  # epochs: steps are captured only after a while
SECONDS = 240  # for the tests

# Features, hidden widths, batch size, and rows.
CASES: dict[str, tuple[int, list[int], int, int]] = {
    "linear, 10 features, batch 32": (10, [], 32, 2_000),
    "MLP 10-32-1, batch 32": (10, [32], 32, 2_000),
    "MLP 20-512-512-1, batch 4096": (20, [512, 512], 4_096, 81_920),
}


def spec_of(case: str, engine: str, device: str, **changes: Any) -> dict[str, Any]:
    """Return the spec of a case: mse, and SGD, whose steps can be captured."""
    n_features, hidden, batch_size, n_rows = CASES[case]
    source = {"name": "linear", "n_samples": n_rows, "weight": [1.0] * n_features}
    return {
        "name": "gpu",
        "epochs": 4,
        "engine": engine,
        "device": device,
        "baseline": False,
        "data": {"source": source, "batch_size": batch_size, "split": {"train_ratio": 1.0}},
        "model": {"name": "mlp", "hidden": hidden} if hidden else {"name": "linear"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "writer": {"plots": False},
        **changes,
    }


def measure(device: str) -> list[Row]:
    """Time epochs of the cases."""

    def epoch_of(case: str, engine: str) -> Callable[[], float]:
        return timed(linreg.build(spec_from_dict(spec_of(case, engine, device), "benchmark")).engine.train_epoch)

    rows = []
    for case in CASES:
        epochs = {engine: epoch_of(case, engine) for engine in ("auto", "textbook")}
        with patch("linreg.training.engines.eager.capture_on", lambda device: None):
            epochs["one by one"] = epoch_of(case, "auto")
        taken = in_turn(epochs, RUNS, warm_up=WARM_UP)
        for reference in ("one by one", "textbook"):
            rows.append(compare(f"captured: {case}", reference, taken["auto"], taken[reference], better="higher"))
    return rows


def differing(device: str) -> list[str]:
    """Train each case in one go and with an interruption; return the cases whose parameters or losses differ."""
    found = []
    for case in CASES:
        ends = []
        with TemporaryDirectory() as folder, chdir(folder):
            for name, epochs in (("whole", 4), ("parts", 2)):
                linreg.train(spec_from_dict(spec_of(case, "auto", device, name=name, epochs=epochs), "benchmark"))
            linreg.resume(Path("checkpoints/parts_001/last.pth"), ["epochs=4"])
            for name in ("whole", "parts"):
                ends.append(torch.load(f"checkpoints/{name}_001/last.pth", weights_only=True))
        whole, parts = ends
        states = (end["model_state_dict"] for end in ends)
        is_same = all(torch.equal(one, other) for one, other in zip(*(s.values() for s in states), strict=True))
        if not is_same or whole["loss"] != parts["loss"]:
            found.append(case)
    return found


def main(device: str = "cuda") -> int:
    """Do everything, and return the exit code."""
    logging.basicConfig(level="INFO")  # says if steps could not be captured
    print(torch.cuda.get_device_name(device) if device.startswith("cuda") else device)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/training/test_captured.py"]
    tests = subprocess.run(command, cwd=ROOT, timeout=SECONDS, check=False).returncode
    different = differing(device)
    print(f"resumed runs: {f'other bits for {different}' if different else 'the same bits'}")
    print(table({"gpu": measure(device)}), end="")
    return 1 if tests or different else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
