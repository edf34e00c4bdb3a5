"""Start-up: whole processes of linreg against `import torch` and against the textbook's program.

    python -m benchmarks.start [RUNS]

Each row compares two processes that are run in turn, A B A B, after one of each that does not count; the figures are
medians, and the ratio is the median of the ratios of neighbours, which a change of the machine's speed moves least.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXTBOOK = ROOT / "benchmarks" / "textbook.py"
SPEC = ROOT / "configs" / "simple_linear_regression.yaml"

IMPORT_TORCH = [sys.executable, "-c", "import torch"]
LINREG = [sys.executable, "-m", "linreg"]

WRONG_SPEC = """\
name: wrong
epochs: 5
data:
  source: {name: linear}
  batchsize: 8
model: {name: liner}
optimizer: {name: sgd, lr: -0.1}
"""


def measure(runs: int) -> list[dict[str, object]]:
    """Measure every promise about the start in a folder of its own; `runs` processes of each count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wrong.yaml").write_text(WRONG_SPEC)
        _seconds([*LINREG, "train", str(SPEC), "--quiet"], folder)  # for predict, and to compile what is imported
        train = [*LINREG, "train", str(SPEC), "--quiet"]
        textbook = [sys.executable, str(TEXTBOOK), "textbook"]
        cases: list[tuple[str, list[str], list[str], str, float, int]] = [
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
            ("linreg train, no plots", [*train, "writer.plots=false"], IMPORT_TORCH, "import torch", 1.6, 0),
        ]
        return [_row(*case, folder=folder, runs=runs) for case in cases]


def _row(
    name: str, ours: list[str], theirs: list[str], reference: str, target: float, code: int, *, folder: Path, runs: int
) -> dict[str, object]:
    pairs = [(_seconds(ours, folder, code), _seconds(theirs, folder)) for _ in range(runs + 1)][1:]
    return {
        "name": name,
        "ratio": statistics.median(mine / other for mine, other in pairs),
        "target": target,
        "better": "lower",
        "reference": reference,
        "seconds": statistics.median(mine for mine, _ in pairs),
        "reference_seconds": statistics.median(other for _, other in pairs),
    }


def _seconds(command: list[str], folder: Path, code: int = 0) -> float:
    """Run a process to its end, in the folder; it must exit with the code."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return seconds


def main() -> None:
    """Print the rows."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'':30} {'ratio':>6} {'at most':>8}  {'seconds':>8} {'of':>8}")
    for row in measure(runs):
        figures = f"{row['ratio']:6.3f} {row['target']:8.2f}  {row['seconds']:8.3f} {row['reference_seconds']:8.3f}"
        print(f"{row['name']:30} {figures} {row['reference']}")


if __name__ == "__main__":
    main()
