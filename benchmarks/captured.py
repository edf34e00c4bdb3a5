"""On a GPU: an epoch of steps that are captured and replayed, against the same taken one by one, and the textbook's.

    python -m benchmarks.captured [RUNS] [DEVICE]

2000 points of 10 features, batches of 32, mse, SGD. DEVICE: cuda, or cuda:1. It is no part of `make bench`, which
measures the CPU.
"""

import logging
import sys
from unittest.mock import patch

from benchmarks.combinations import epoch_of
from benchmarks.rows import Row, compare, in_turn, table

WARM_UP = 40  # epochs: steps are captured only after a while


def measure(runs: int, device: str = "cuda") -> list[Row]:
    """Measure the models that can be captured."""
    rows = []
    for model in ("linear", "mlp"):
        epochs = {engine: epoch_of(engine, model, "mse", "sgd", device) for engine in ("auto", "textbook")}
        with patch("linreg.training.engines.eager.capture_on", lambda device: None):
            epochs["one by one"] = epoch_of("auto", model, "mse", "sgd", device)
        taken = in_turn(epochs, runs, warm_up=WARM_UP)
        for reference in ("one by one", "textbook"):
            name = f"captured: {model}, mse, sgd on {device}"
            rows.append(compare(name, reference, taken["auto"], taken[reference], better="higher"))
    return rows


if __name__ == "__main__":
    logging.basicConfig(level="INFO")  # says if steps could not be captured
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    print(table({"captured": measure(runs, *sys.argv[2:])}), end="")
