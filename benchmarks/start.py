"""Start-up: whole processes of linreg against `import torch` and against the textbook's program, and with each
work-around of `linreg.system.startup` against without it.

    python -m benchmarks.start [RUNS]

Each row compares two processes that are run in turn, after one of each that does not count.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.rows import ROOT, Row, compare, in_turn, table, time_process

TEXTBOOK = ROOT / "benchmarks" / "textbook.py"
SPEC = ROOT / "configs" / "simple_linear_regression.yaml"

IMPORT_TORCH = [sys.executable, "-c", "import torch"]
LINREG = [sys.executable, "-m", "linreg"]

# What each work-around is for, with it and without.
IMPORT_UNCOLLECTED = "from linreg.system.startup import without_collector\nwith without_collector(): import torch"
STEP = "from torch import nn, optim; optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1).step()"
STEP_SPARED = f"from linreg.system.startup import skip_compiler_import; skip_compiler_import(); {STEP}"

WRONG_SPEC = """\
name: wrong
epochs: 5
data:
  source: {name: linear}
  batchsize: 8
model: {name: liner}
optimizer: {name: sgd, lr: -0.1}
"""


def measure(runs: int) -> list[Row]:
    """Measure the start in a new folder. runs: the number of processes for each median."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wrong.yaml").write_text(WRONG_SPEC)
        plotless = ["train", str(SPEC), "--quiet", "writer.plots=false"]
        train = [*LINREG, "train", str(SPEC), "--quiet"]
        textbook = [sys.executable, str(TEXTBOOK), "textbook"]
        time_process(train, cwd=folder)  # for predict, and to compile the imported modules
        cases: list[tuple[str, list[str], list[str], str, float | None, int]] = [
            ("linreg --help", [*LINREG, "--help"], IMPORT_TORCH, "import torch", 0.25, 0),
            ("linreg --version", [*LINREG, "--version"], IMPORT_TORCH, "import torch", 0.25, 0),
            ("linreg train, a wrong spec", [*LINREG, "train", "wrong.yaml"], IMPORT_TORCH, "import torch", 0.25, 2),
            ("linreg check, a wrong spec", [*LINREG, "check", "wrong.yaml"], IMPORT_TORCH, "import torch", 0.25, 2),
            (
                "linreg predict --inputs 0.2",
                [*LINREG, "predict", "--inputs", "0.2"],
                IMPORT_TORCH,
                "import torch",
                1.3,
                0,
            ),
            ("linreg train, writing all", train, textbook, "the textbook's program", 0.55, 0),
            ("linreg train, no plots", [*LINREG, *plotless], IMPORT_TORCH, "import torch", 1.6, 0),
            ("import torch without the collector", _program(IMPORT_UNCOLLECTED), IMPORT_TORCH, "import torch", None, 0),
            ("a step of SGD without the compiler", _program(STEP_SPARED), _program(STEP), "the same without", None, 0),
        ]
        return [_row(*case, folder=folder, runs=runs) for case in cases]


def _program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def _row(
    name: str,
    ours: list[str],
    theirs: list[str],
    reference: str,
    target: float | None,
    code: int,
    *,
    folder: Path,
    runs: int,
) -> Row:
    processes = {
        "ours": partial(time_process, ours, cwd=folder, code=code),
        "theirs": partial(time_process, theirs, cwd=folder),
    }
    found = in_turn(processes, runs)
    return compare(name, reference, found["ours"], found["theirs"], target=target)


if __name__ == "__main__":
    print(table({"start": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)}), end="")
