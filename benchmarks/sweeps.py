"""Sweeps: a stack of models against single runs in one process, and `linreg sweep` against a process for each trial.

    python -m benchmarks.sweeps [RUNS]

One thread. A ratio of an epoch counts single runs: 64 models at a ratio of 10 take the time of 10 single runs.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.combinations import one_thread
from benchmarks.rows import ROOT, Row, compare, in_turn, table, time_process
from linreg.experiment.building import build
from linreg.experiment.data import prepare
from linreg.spec.schema import ExperimentSpec, spec_from_dict
from linreg.training.stacks import Stack

N_SINGLE = 8  # models that are trained one by one, for the time of one
MLP: dict[str, Any] = {"model": {"name": "mlp", "hidden": [32]}, "optimizer": {"name": "adam"}}
LINEAR: dict[str, Any] = {"model": {"name": "linear"}, "optimizer": {"name": "sgd"}}


def measure(runs: int, n_samples: int = 20_000) -> list[Row]:
    """Measure stacks and processes. runs: the number of measurements for each median."""
    with one_thread():
        rows = [
            _epoch(f"64 MLPs 10-32-1, batch 32, Adam, {order}", MLP, 64, n_samples, order, 10.0, runs)
            for order in ("one order of the rows", "64 orders of the rows")
        ]
        rows += [
            _epoch(f"256 linear models, 10 features, batch 32, SGD, {order}", LINEAR, 256, n_samples, order, 20.0, runs)
            for order in ("one order of the rows", "256 orders of the rows")
        ]
    return rows + [_processes(config, runs) for config in ("mlp_sine", "simple_linear_regression")]


def _spec(parts: dict[str, Any], n_samples: int, lr: float, seed: int) -> ExperimentSpec:
    data = {"source": {"name": "friedman1", "n_samples": n_samples, "noise": 1.0}, "batch_size": 32}
    optimizer = {**parts["optimizer"], "lr": lr}
    spec = {"name": "stack", "epochs": 1, "seed": seed, "data": data, "model": parts["model"], "optimizer": optimizer}
    return spec_from_dict(spec, "benchmark")


def _epoch(what: str, parts: dict[str, Any], n: int, n_samples: int, order: str, most: float, runs: int) -> Row:
    """Compare an epoch of a stack of n models, validation included, with that of one model."""
    rates = np.logspace(-5, -3, n).tolist()
    specs = [_spec(parts, n_samples, lr, 42 if order.startswith("one") else i) for i, lr in enumerate(rates)]
    data = prepare(specs[0])
    singles, stacked = (
        [build(spec, data=data, with_baseline=False) for spec in some] for some in (specs[:N_SINGLE], specs)
    )
    stack = Stack([experiment.training for experiment in stacked])

    def one_by_one() -> None:
        for experiment in singles:
            experiment.engine.train_epoch()
            if experiment.engine.val_epoch is not None:
                experiment.engine.val_epoch()

    def together() -> None:
        stack.train_epoch()
        stack.val_epoch()

    together()
    one_by_one()
    seconds = in_turn({"stack": _timed(together), "single": _timed(one_by_one)}, runs)
    return compare(what, "single runs in one process", seconds["stack"], seconds["single"] / N_SINGLE, target=most)


def _timed(function: Any) -> Any:
    def timed() -> float:
        begin = perf_counter()
        function()
        return perf_counter() - begin

    return timed


def _processes(config: str, runs: int) -> Row:
    """Compare `linreg sweep` of 64 trials with 64 times `linreg train`."""
    spec = str(ROOT / "configs" / f"{config}.yaml")
    rates = "optimizer.lr={min: 1e-3, max: 0.03, log: true}"
    with TemporaryDirectory() as name:

        def process(*command: str) -> float:
            argv = [sys.executable, "-m", "linreg", *command, "--quiet"]
            return time_process(argv, cwd=Path(name), env={"OMP_NUM_THREADS": "1"})

        seconds = in_turn(
            {
                "sweep": lambda: process("sweep", spec, rates, "--trials", "64"),
                "train": lambda: process("train", spec),
            },
            runs,
        )
    what = f"linreg sweep, 64 trials of configs/{config}.yaml, with the winner's run"
    return compare(what, "64 x linreg train", seconds["sweep"], 64 * seconds["train"], target=20.0, better="higher")


if __name__ == "__main__":
    print(table({"sweeps": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)}), end="")
