"""Fixtures of all tests: an empty folder, a small spec, the command line in this process."""

import inspect
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from linreg.checkpoint import Checkpoint
from linreg.cli.main import main
from linreg.data.fingerprint import Fingerprint
from linreg.data.sources import Points
from linreg.plugins import PREFIX
from linreg.spec.schema import REGISTRIES
from linreg.training import loops
from tests.faults.forks import ROOT, Forks

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
IS_THOROUGH = "LINREG_THOROUGH" in os.environ


def times(quick: int, thorough: int) -> int:
    """How often to try something at random: in `make test`, which ends in minutes, and in `make test-thorough`."""
    return thorough if IS_THOROUGH else quick


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run every test in an empty folder, outside of CI, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after each test the components and plugins that it brought."""
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:
        del sys.modules[name]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def linreg(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run one command in this process: `linreg("train", "x.yaml")`."""

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Start processes without the import of torch."""
    started = Forks(tmp_path_factory.mktemp("forks"))
    yield started
    started.close()


def small_spec(**changes: Any) -> dict[str, Any]:
    """A spec that trains in a moment; changes have `__` for dots: `optimizer__lr=0.01`."""
    spec: dict[str, Any] = {
        "name": "small",
        "epochs": 6,
        "data": {"source": {"name": "linear", "n_samples": 50}, "batch_size": 16},
        "model": {"name": "linear"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "writer": {"graph": False, "hparams": False, "plots": False},
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = spec
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return spec


def write_spec(path: str | Path = "small.yaml", **changes: Any) -> Path:
    path = Path(path)
    path.write_text(yaml.safe_dump(small_spec(**changes), sort_keys=False))
    return path


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the last bit, all the way down."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        alike = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (a, b)))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (a != a and b != b))  # noqa: PLR0124  # NaN


def fingerprint(points: Points) -> str:
    """Identify the data of all points."""
    found = Fingerprint(points)
    for block in points.blocks():
        found.add(block)
    return found.text()


def peak() -> int:
    """Return the peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_with_peak(code: str, *arguments: str) -> str:
    """Run code that may call `peak` in a new process, and return its output."""
    whole = f"import resource, sys\nfrom pathlib import Path\n{inspect.getsource(peak)}\n{code}"
    run = subprocess.run([sys.executable, "-c", whole, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


TRAINED = (
    "epoch", "loss", "val_loss", "lr", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict",
    "loader_state", "rng_state", "numpy_rng_state", "python_rng_state", "best", "position", "outcome",
)  # fmt: skip


def differences(a: Checkpoint, b: Checkpoint) -> list[str]:
    """The parts in which the states of two checkpoints differ."""
    return [part for part in TRAINED if not same(getattr(a, part), getattr(b, part))]


def series(folder: str | Path) -> dict[tuple[str, ...], list[tuple[int, float]]]:
    """Every series of a run, read back from TensorBoard: (step, value) by folder and tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # few tests read it

    found: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for place in [Path(folder), *sorted(path for path in Path(folder).iterdir() if path.is_dir())]:
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "histograms": 0}).Reload()
        name = place.name if place != Path(folder) else ""
        for tag in events.Tags()["scalars"]:
            found[name, tag] = [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["histograms"]:
            found[name, "histogram", tag] = [(e.step, e.histogram_value.sum) for e in events.Histograms(tag)]
    return found


@pytest.fixture
def pause_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every engine pause before each step."""
    monkeypatch.setattr(loops, "SECONDS_A_CHUNK", 0.0)
