"""Whole runs: `linreg train` with all outputs against the textbook's program with the same outputs, per further epoch.

    python -m benchmarks.whole [RUNS]

A process is timed at two lengths, and the difference divided by that of the lengths: what starts and ends a run cancels
out. One thread; the lengths and the programs in turn.
"""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import ROOT, Row, compare, in_turn, table, time_process

SPEC = ROOT / "configs" / "simple_linear_regression.yaml"
TEXTBOOK = ROOT / "benchmarks" / "textbook.py"
LENGTHS = (200, 4_000, 12_000)  # epochs
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def measure(runs: int) -> list[Row]:
    """Measure in a new folder. runs: the number of processes for each median."""
    with TemporaryDirectory() as name:
        folder = Path(name)

        def train(epochs: int) -> float:
            command = [sys.executable, "-m", "linreg", "train", str(SPEC), "--quiet", f"epochs={epochs}"]
            return time_process(command, cwd=folder, env=ONE_THREAD)

        def textbook(epochs: int) -> float:
            command = [sys.executable, str(TEXTBOOK), f"textbook_{epochs}", str(epochs)]
            return time_process(command, cwd=folder, env=ONE_THREAD)

        found = in_turn(
            {
                f"{program.__name__} {epochs}": partial(program, epochs)
                for epochs in LENGTHS
                for program in (train, textbook)
            },
            runs,
        )
    return [
        compare(
            f"an epoch of linreg train, all outputs, from {short:,} to {long:,}",
            "the textbook's program with the same",
            (found[f"train {long}"] - found[f"train {short}"]) / (long - short),
            (found[f"textbook {long}"] - found[f"textbook {short}"]) / (long - short),
            target=6.0,
            better="higher",
        )
        for short, long in pairwise(LENGTHS)
    ]


if __name__ == "__main__":
    print(table({"whole": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)}), end="")
