"""`--processes N`: starts a command in several processes of this machine, by torchrun's own launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory

from linreg.cli.signals import received
from linreg.cli.text import print_stderr
from linreg.errors import GroupError, UsageError
from linreg.system.place import place
from linreg.system.startup import QUIET, importing_torch

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
    words = without_option(arguments, "--processes")
    with _environment():
        if sys.platform == "linux" and sys.modules.keys().isdisjoint(("numpy", "torch")):  # they may have threads
            _import_for_all()
            if not _has_gpu():
                return _launch(_run_forked, words, n_processes)
        return _launch(sys.executable, ["-m", "linreg", *words], n_processes)


def _import_for_all() -> None:
    """Import what a process of a group needs, for those forked from this one.

    Otherwise each process imports it by itself: on two cores, a run of one epoch by two processes then takes 1.7 times
    as long."""
    with importing_torch():
        for name in ("experiment.following", "experiment.resuming", "runs.events", "training.shards.group"):
            import_module(f"linreg.{name}")


def _has_gpu() -> bool:
    """Return whether there is a GPU. To ask may make it unusable in a process that is forked later."""
    import torch

    return torch.cuda.is_available()


def _run_forked(*words: str) -> None:
    """Run a command in a process that the launcher has forked.

    torch keeps a process that returns until all have, also while it ends them: one that had a signal exits instead."""
    from linreg.cli.main import main  # which imports this module

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # not the launcher's
    code = main(words) or (128 + received[0] if received else 0)
    if code:
        sys.exit(code)


def _launch(entry: Callable[..., None] | str, words: Sequence[str], n_processes: int) -> int:
    """Run a function, or a program, in each process of a group; return the exit code."""
    with importing_torch():
        from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes report their errors
    try:
        with TemporaryDirectory(prefix="linreg_") as folder:
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=n_processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                max_restarts=0,
                monitor_interval=0.05,
                start_method="fork",
                logs_specs=DefaultLogsSpecs(log_dir=folder),
            )
            elastic_launch(config, entry)(*words)
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
    os.environ.setdefault(*QUIET)
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
