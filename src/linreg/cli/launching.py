"""`--processes N`: starts a command in several processes of this machine, by torchrun's own launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from linreg.cli.text import print_stderr
from linreg.errors import GroupError, UsageError
from linreg.system.place import place
from linreg.system.startup import without_collector

RESTARTED = "TORCHELASTIC_RESTART_COUNT"  # the environment variable with the number of restarts of a group
# exit codes of processes that lost the failing one, or that the launcher has stopped after it
FOLLOWING = (GroupError.exit_code, 128 + signal.SIGTERM, -signal.SIGTERM)


def is_restarted() -> bool:
    """Return whether torchrun has restarted this process, so that a run is to be resumed."""
    return os.environ.get(RESTARTED, "0") != "0"


def launch(arguments: Sequence[str], n_processes: int) -> int:
    """Run `linreg ARGUMENTS` in a group of processes with one thread each; return the exit code. Raises UsageError in a
    group."""
    if place().size > 1:
        raise UsageError("--processes: torchrun has started several already; remove one")
    with without_collector():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes report their errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.05,
    )
    try:
        with _environment():
            elastic_launch(config, sys.executable)("-m", "linreg", *without_option(arguments, "--processes"))
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # it could not report that
                name = signal.Signals(-failure.exitcode).name
                print_stderr(f"error: rank {rank}: ended by {name}; resume the run")
        codes = [failure.exitcode for failure in error.failures.values() if failure.exitcode]
        codes.sort(key=lambda code: code in FOLLOWING)
        return next((code if code > 0 else 128 - code for code in codes), 1)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


@contextmanager
def _environment() -> Iterator[None]:
    """Let the processes use one thread, unless the environment has another number; then restore the environment."""
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def without_option(arguments: Sequence[str], option: str) -> list[str]:
    """Return arguments without an option and its value, written as one word or two."""
    kept, words = [], iter(arguments)
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
