"""Whole runs: `linreg train` with all outputs against the textbook's program with the same outputs, per further epoch.

    python -m benchmarks.whole [RUNS]

The textbook's data, and the MLP of configs/mlp_sine.yaml. A process is timed at two lengths, and the difference divided
by that of the lengths: what starts and ends a run cancels out. One thread; the lengths and the programs in turn.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rows import ROOT, Row, compare, in_turn, table, time_process

TEXTBOOK = ROOT / "benchmarks" / "textbook.py"
LENGTHS = (200, 4_000, 40_000)  # epochs
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
Program = Callable[[int], float]


def measure(runs: int) -> list[Row]:
    """Measure in a new folder. runs: the number of processes for each median."""
    with TemporaryDirectory() as name:
        folder = Path(name)

        def process(*command: str) -> float:
            return time_process([sys.executable, *command], cwd=folder, env=ONE_THREAD)

        def linreg(config: str, engine: str) -> Program:
            spec = str(ROOT / "configs" / f"{config}.yaml")
            return lambda n: process("-m", "linreg", "train", spec, "--quiet", f"epochs={n}", f"engine={engine}")

        def textbook(n: int) -> float:
            return process(str(TEXTBOOK), f"textbook_{n}", str(n))

        rows = []
        names = ("auto", "compiled", "textbook")
        programs = (
            linreg("simple_linear_regression", "auto"),
            linreg("simple_linear_regression", "compiled"),
            textbook,
        )
        for short, long in pairwise(LENGTHS):
            found = _per_epoch(dict(zip(names, programs, strict=True)), short, long, runs)
            rows += _rows(f"the textbook's data, {short:,} to {long:,} epochs", found, "the textbook's program")
        found = _per_epoch({n: linreg("mlp_sine", n) for n in names}, 100, 1_000, runs)
        return rows + _rows("configs/mlp_sine.yaml, 100 to 1,000 epochs", found, "engine: textbook")


def _per_epoch(programs: Mapping[str, Program], short: int, long: int, runs: int) -> dict[str, float]:
    """Return the seconds that each program takes for a further epoch."""
    calls = {(name, n): partial(program, n) for n in (short, long) for name, program in programs.items()}
    found = in_turn(calls, runs)
    return {name: (found[name, long] - found[name, short]) / (long - short) for name in programs}


def _rows(what: str, found: Mapping[str, float], reference: str) -> list[Row]:
    return [
        compare(
            f"linreg train, engine: {engine}, a further epoch: {what}",
            reference,
            found[engine],
            found["textbook"],
            target=6.0 if engine == "auto" and reference != "engine: textbook" else None,
            better="higher",
        )
        for engine in ("auto", "compiled")
    ]


if __name__ == "__main__":
    print(table({"whole": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)}), end="")
