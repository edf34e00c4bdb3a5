"""Every registered combination of model, loss and optimizer: an epoch of `engine: auto` against the textbook engine's.

    python -m benchmarks.combinations [RUNS]

One thread, 2000 points of 10 features, batches of 32, the two in turn. A row for each model and loss has its slowest
optimizer.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import linreg
from benchmarks.rows import Row, compare, in_turn, table, timed
from linreg.spec.schema import spec_from_dict

NEEDED: dict[str, dict[str, Any]] = {  # the params that have no default
    "mlp": {"hidden": [32]},
    "polynomial": {"degree": 2},
    "sgd": {"lr": 0.01},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01},
    "rmsprop": {"lr": 0.001},
    "adagrad": {"lr": 0.01},
}


def epoch_of(engine: str, model: str, loss: str, optimizer: str, device: str = "cpu") -> Callable[[], float]:
    """Make the function that trains for an epoch and returns its seconds."""
    chosen = {
        kind: {"name": name, **NEEDED.get(name, {})}
        for kind, name in (("model", model), ("loss", loss), ("optimizer", optimizer))
    }
    source = {"name": "linear", "n_samples": 2000, "weight": [1.0] * 10}
    data = {"source": source, "batch_size": 32, "split": {"train_ratio": 1.0}}
    spec = {
        "name": "benchmark",
        "epochs": 1,
        "engine": engine,
        "device": device,
        "baseline": False,
        "data": data,
        **chosen,
    }
    return timed(linreg.build(spec_from_dict(spec, "benchmark")).engine.train_epoch)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def measure(runs: int) -> list[Row]:
    """Measure every combination of registered components."""
    rows = []
    for model, loss in itertools.product(linreg.MODELS.names, linreg.LOSSES.names):
        found = []
        for optimizer in linreg.OPTIMIZERS.names:
            epochs = {engine: epoch_of(engine, model, loss, optimizer) for engine in ("auto", "textbook")}
            taken = in_turn(epochs, runs)
            name = f"auto: {model}, {loss}, {optimizer}"
            found.append(
                compare(name, "textbook engine", taken["auto"], taken["textbook"], target=1.0, better="higher")
            )
        rows.append(min(found, key=lambda row: row.ratio or 0.0))
    return rows


if __name__ == "__main__":
    print(table({"combinations": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)}), end="")
