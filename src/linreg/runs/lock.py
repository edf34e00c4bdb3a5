"""The lock of a run's folder. The system releases it if the process dies. `folders` and `listing` use it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linreg.errors import StorageError
from linreg.system.files import translated_errors


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a run. Raises StorageError if another process holds the lock."""
    with lock_if_free(folder) as is_locked:
        if not is_locked:
            raise StorageError(f"{folder}: in use by another process; wait for it, or stop it")
        yield


@contextmanager
def lock_if_free(folder: Path) -> Iterator[bool]:
    """Lock the folder of a run unless another process holds the lock. Yield whether it is locked. Raises StorageError
    if the folder is gone."""
    with translated_errors(folder):
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        is_locked = _try_lock(descriptor, fcntl.LOCK_EX, tries=5)  # `is_free` holds it for a moment
        if is_locked and not _leads_to(folder / ".lock", descriptor):
            raise StorageError(f"{folder}: another process removed it; linreg runs lists the existing ones")
        yield is_locked
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int, *, tries: int) -> bool:
    for tries_left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if tries_left:
                time.sleep(0.04)
        else:
            return True
    return False


def _leads_to(path: Path, descriptor: int) -> bool:
    """Return whether a path leads to an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def is_free(folder: Path) -> Iterator[bool]:
    """Yield whether no process has locked a run, and keep it free until the end. Writes nothing."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield True
        return
    try:
        yield _try_lock(descriptor, fcntl.LOCK_SH, tries=1)
    finally:
        os.close(descriptor)
