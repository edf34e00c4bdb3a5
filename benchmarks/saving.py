"""What saving every epoch costs a run: the epochs after which it is saved, against those between them.

    python -m benchmarks.saving [EPOCHS]

One thread, an MLP 10-32-1 with Adam on 14,000 points in batches of 16: on two cores of a cloud machine an epoch took
about 50 ms. A save is written while the next epoch trains; what that slows is counted, for it is timed from report to
report. It is no part of `make bench`, which compares with other tools.
"""

import gc
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import linreg
from benchmarks.combinations import one_thread
from benchmarks.rows import Row, compare, table
from linreg.spec.schema import spec_from_dict

WARM_UP = 10  # epochs
MODEL, OPTIMIZER = {"name": "mlp", "hidden": [32]}, {"name": "adam", "lr": 0.001}


def measure(epochs: int, n_samples: int = 14_000) -> list[Row]:
    """Train once, saving after every second epoch."""
    source = {"name": "linear", "n_samples": n_samples, "weight": [1.0] * 10}
    spec = {
        "name": "saving",
        "epochs": WARM_UP + epochs,
        "data": {"source": source, "batch_size": 16},
        "model": MODEL,
        "optimizer": OPTIMIZER,
        "writer": {"graph": False, "plots": False},
        "checkpoint": {"every": 2},
    }
    ends: list[float] = []
    gc.collect()
    gc.freeze()  # as the command does
    with one_thread(), TemporaryDirectory() as name:
        linreg.train(
            spec_from_dict(spec, "benchmark"),
            runs=Path(name, "runs"),
            checkpoints=Path(name, "checkpoints"),
            report=lambda record, experiment: ends.append(perf_counter()),
        )
    # from the report of an epoch to the next one's: that of epoch 1, counted from 0, is followed by the first save
    taken = [after - before for before, after in pairwise(ends)]
    saved, unsaved = median(taken[WARM_UP + 1 :: 2]), median(taken[WARM_UP::2])
    return [compare("an epoch with a save", "one without", saved, unsaved, target=1.035)]


if __name__ == "__main__":
    print(table({"saving": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 400)}), end="")
