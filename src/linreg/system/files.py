"""Writing files so that a reader, or a crash, never meets half of one."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from linreg.errors import StorageError

LEFTOVER = ".tmp"


def replace_file(path: Path, content: bytes | bytearray | memoryview | str) -> None:
    """Write a whole file or nothing: to a temporary file in the same folder, synced, renamed, the folder synced.
    A disk that is full, or a folder that is not writable, is a StorageError and leaves the old file as it was."""
    data = memoryview(content.encode() if isinstance(content, str) else content)
    with translated_errors(path, n_bytes=len(data)), _temporary_of(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            while data:
                data = data[os.write(descriptor, data) :]  # of a disk that is nearly full it writes a part
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name, synced, once all is written, and not at all if that fails."""
    with translated_errors(path), _temporary_of(path) as temporary, temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _temporary_of(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file, which gets the name `path` at the end, or is removed if anything fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{LEFTOVER}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105  # beside os.write and os.fsync, where the faults of a disk are tried
    except BaseException:
        with contextlib.suppress(OSError):  # the error itself is what to tell
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there, and those that it is in; each is synced, so as to outlast a crash."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def remove_leftovers(*folders: Path, shared: bool = False) -> None:
    """Remove what a process that was killed while it wrote has left in the folders. shared: others may write there now,
    so that what is of a process that is alive stays."""
    for folder in folders:
        for file in folder.glob(f".*{LEFTOVER}"):
            if not (shared and _is_alive(file.name.split(".")[-2])):
                file.unlink(missing_ok=True)


def _is_alive(number: str) -> bool:
    """Whether another process than this one has a number."""
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
    """Make what was done to the names in the folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "choose another place with --runs and --checkpoints"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free some space, then go on with linreg resume",
    errno.EDQUOT: "free some of your quota, then go on with linreg resume",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), then go on with linreg resume",
    errno.EACCES: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EEXIST: "a file is in the way; remove it, or choose another place",
}  # for what a run writes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def translated_errors(
    path: Path, remedies: Mapping[int, str] = REMEDIES, *, n_bytes: int | None = None
) -> Iterator[None]:
    """Turn the operating system's errors about `path` into a StorageError that says what would do. n_bytes: what the
    file needs, where that is known."""
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "check the disk")
        space = f" ({_space(path, n_bytes)})" if error.errno in _FULL else ""
        raise StorageError(f"{path}: {error.strerror or error}{space}; {remedy}") from error


def _space(path: Path, n_bytes: int | None) -> str:
    """Say what is needed and what there is."""
    folder = next((place for place in path.absolute().parents if place.is_dir()), Path("/"))
    try:
        stat = os.statvfs(folder)
        free = str(stat.f_bavail * stat.f_frsize)
    except OSError:
        free = "an unknown number of"
    return f"{'' if n_bytes is None else f'{n_bytes} bytes needed, '}{free} bytes free"
