"""Sessions of linreg, each in a process of its own that is forked when torch is imported already: a tenth of a second
instead of two. The process that forks them must have no second thread: see `prepare`."""

import gc
import math
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from linreg.cli.main import main
from linreg.experiment.session import train
from linreg.experiment.sweeps import rounds, training
from linreg.runs.plots import plot_losses, to_png
from linreg.spec.schema import spec_from_dict
from linreg.training import loops
from linreg.training.stacks import stack
from tests.conftest import Answer, small_spec
from tests.faults.operations import Perform, intercepted

LONGEST = 60.0  # seconds that a session may take
IMPORTED = ["linreg.training.engines.eager", "linreg.training.engines.lean", "linreg.data.tables.reading"]
IMPORTED += ["linreg.experiment.following", "linreg.training.shards.group"]
IMPORTED += ["linreg.experiment.sweeps.sweeping", "scipy.special", "torch.quasirandom", "optuna.samplers"]
IMPORTED += ["torch.utils.tensorboard", "tensorboard.backend.event_processing.event_accumulator"]


def prepare() -> None:
    """Import what the sessions will need, and start no thread that a fork would lose."""
    torch.set_num_threads(1)
    for name in IMPORTED:
        import_module(name)
    to_png(plot_losses([1.0], [1.0]))
    for optimizer in ({"name": "sgd", "lr": 0.1}, {"name": "adam", "lr": 0.1}):  # brings the compiled code
        spec = spec_from_dict(small_spec(engine="compiled", optimizer=optimizer), "warm-up")
        with tempfile.TemporaryDirectory() as folder:
            train(spec, runs=Path(folder, "runs"), checkpoints=Path(folder, "checkpoints"))
    gc.freeze()  # what a collection would touch, each child would copy


@dataclass
class Child:
    """A forked process, and the end of the pipe that its answer comes through."""

    pid: int
    pipe: int
    signal: int | None = None  # that ended the process

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self, seconds: float) -> bool:
        """Wait so long for the answer, or the end."""
        return bool(select.select([self.pipe], [], [], max(0.0, seconds))[0])

    def result(self) -> Any:
        """Wait for the end; give what the function returned, None if the process was killed."""
        if not self.ended(LONGEST):
            self.kill()
            raise TimeoutError(f"a session took more than {LONGEST} seconds")
        with os.fdopen(self.pipe, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
            return None
        value = pickle.loads(answer)
        if isinstance(value, str):  # a traceback
            raise RuntimeError(value)
        return value


def fork(function: Callable[[], Any], folder: Path) -> Child:
    """Begin to run a function in a folder, in a forked process."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid:
        os.close(sending)
        return Child(pid, receiving)
    try:
        os.close(receiving)
        os.chdir(folder)
        answer = function()
    except BaseException:
        answer = traceback.format_exc()
    with os.fdopen(sending, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def command(
    *arguments: object,
    perform: Perform | None = None,
    seconds_a_chunk: float | None = None,
    seconds_a_save: float | None = None,
) -> Answer:
    """Run one command in this forked process. seconds_a_save: between two saves of the states of a sweep."""
    files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]  # noqa: SIM115  # until the process ends
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    if seconds_a_chunk is not None:
        loops.SECONDS_A_CHUNK = stack.SECONDS_A_CHUNK = training.SECONDS_A_CHUNK = seconds_a_chunk
    if seconds_a_save is not None:
        rounds.SECONDS_BETWEEN_SAVES, rounds.SHARE_OF_SAVING = seconds_a_save, math.inf
    with nullcontext() if perform is None else intercepted(perform):
        code = main([str(argument) for argument in arguments])
    sys.stdout.flush()
    texts = [os.pread(file.fileno(), 10**6, 0).decode() for file in files]
    return Answer(code, *texts)


def run(*arguments: object, folder: Path, **options: Any) -> Answer:
    """Run one command in a process of its own, to its end."""
    return fork(lambda: command(*arguments, **options), folder).result()


def measured(function: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; give what it returned and the seconds that it took."""
    begin = time.monotonic()
    return function(), time.monotonic() - begin
