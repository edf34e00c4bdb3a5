"""Writes files completely or not at all, also in a crash."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from linreg.errors import StorageError

LEFTOVER = ".tmp"


def replace_file(path: Path, content: bytes | bytearray | memoryview | str) -> None:
    """Write a file completely or not at all: to a temporary file in the same folder, then sync and rename it.

    Raises StorageError, and keeps the old file, if the disk is full or the folder is not writable."""
    data = memoryview(content.encode() if isinstance(content, str) else content)
    with translated_errors(path, n_bytes=len(data)), _temporary_of(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            while data:
                data = data[os.write(descriptor, data) :]  # a nearly full disk takes a part
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name, after a sync, when it is complete, and is removed after an error."""
    with translated_errors(path), _temporary_of(path) as temporary, temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _temporary_of(path: Path) -> Iterator[Path]:
    """Yield a temporary file that is renamed to `path` at the end, or removed after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{LEFTOVER}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105  # tests replace os functions to simulate faults
    except BaseException:
        with contextlib.suppress(OSError):  # report the first error
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they are missing, and sync each, so that they outlast a crash."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def remove_leftovers(*folders: Path, shared: bool = False) -> None:
    """Remove the temporary files of killed processes. shared: other processes may write there now; keep their files."""
    for folder in folders:
        for file in folder.glob(f".*{LEFTOVER}"):
            if not (shared and _is_alive(file.name.split(".")[-2])):
                file.unlink(missing_ok=True)


def _is_alive(number: str) -> bool:
    """Return whether a process other than this one has this id."""
    if not number.isdecimal() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "choose another place with --runs and --checkpoints"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free some space, then use linreg resume",
    errno.EDQUOT: "free some of your quota, then use linreg resume",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), then use linreg resume",
    errno.EACCES: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EEXIST: "a file is in the way; remove it, or choose another place",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def translated_errors(
    path: Path, remedies: Mapping[int, str] = REMEDIES, *, n_bytes: int | None = None
) -> Iterator[None]:
    """Raise a StorageError with a remedy for each OSError about `path`. n_bytes: the size of the file, if it is
    known."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT and not path.parent.exists():
            raise StorageError(f"{path}: the folder {path.parent} is missing; create it") from error
        remedy = remedies.get(error.errno or 0, "check the disk")
        space = f" ({_space(path, n_bytes)})" if error.errno in _FULL else ""
        raise StorageError(f"{path}: {error.strerror or error}{space}; {remedy}") from error


def _space(path: Path, n_bytes: int | None) -> str:
    """Describe the needed and the free space."""
    folder = next((place for place in path.absolute().parents if place.is_dir()), Path("/"))
    try:
        stat = os.statvfs(folder)
        free = str(stat.f_bavail * stat.f_frsize)
    except OSError:
        free = "an unknown number of"
    return f"{'' if n_bytes is None else f'{n_bytes} bytes needed, '}{free} bytes free"
