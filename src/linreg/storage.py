"""Writing files so that a reader, or a crash, never meets half of one."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from linreg.errors import StorageError

LEFTOVER = ".tmp"


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary file in the same folder, synced, renamed, the folder synced.
    A disk that is full, or a folder that is not writable, is a StorageError and leaves the old file as it was."""
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name, synced, once all is written, and not at all if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{LEFTOVER}")
    with translated_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def remove_leftovers(*folders: Path) -> None:
    """Remove what a process that was killed while it wrote has left in the folders."""
    for folder in folders:
        for file in folder.glob(f".*{LEFTOVER}"):
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "choose another place with --runs and --checkpoints"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free some space, then go on with linreg resume",
    errno.EDQUOT: "free some of your quota, then go on with linreg resume",
    errno.EACCES: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EEXIST: "a file is in the way; remove it, or choose another place",
}  # for what a run writes


@contextlib.contextmanager
def translated_errors(path: Path, remedies: Mapping[int, str] = REMEDIES) -> Iterator[None]:
    """Turn the operating system's errors about `path` into a StorageError that says what would do."""
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "check the disk")
        raise StorageError(f"{path}: {error.strerror or error}; {remedy}") from error
