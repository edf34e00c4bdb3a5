"""Tables that were converted once: where they are kept, who may touch them, which have to go.

    $XDG_CACHE_HOME/linreg/tables/      or ~/.cache/linreg/tables/
      <key>/points.bin                  rows of float64, as `mapped` has them
      <key>/meta.json                   what is in them
      .<name>.tmp/, .<name>.lock        of a conversion that is under way, or was killed

An entry appears whole, by a rename, and is never changed. Who reads one holds a shared lock on its points.bin for as
long as the file, or a map of it, is open; only what nobody holds is removed.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from linreg.errors import StorageError, UsageError
from linreg.system.files import LEFTOVER, sync_folder, translated_errors
from linreg.system.version import __version__

FORMAT = 3  # of points.bin and meta.json
POINTS, META = "points.bin", "meta.json"
_META: dict[str, type] = {
    "written": int,
    "source": str,
    "fingerprint": str,
    "n_rows": int,
    "n_columns": int,
    "weighted": bool,
    "feature_names": list,
    "target_names": list,
    "categories": dict,
    "minimum": list,
    "maximum": list,
}
LIMIT = "LINREG_CACHE_GIB"  # the environment variable that bounds the cache
DEFAULT_GIB = 64.0

_ELSEWHERE = "set XDG_CACHE_HOME to a folder that can be written, or data.memory to resident"
_SPACE = "free some space (linreg cache clear), or set XDG_CACHE_HOME to a folder on another disk"
REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST), _ELSEWHERE),
}


@dataclass(frozen=True)
class Entry:
    """A converted table. used: when it was last opened, in UTC; in_use: whether a process reads it now; damaged:
    whether it is not what its meta.json says."""

    key: str
    source: str
    n_rows: int | None
    n_columns: int | None
    bytes: int
    used: str
    in_use: bool
    damaged: bool


def cache_folder() -> Path:
    """Give the folder of the cache, which may not be there."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = given if given.is_absolute() else Path.home() / ".cache"  # the standard ignores a relative one
    return home / "linreg" / "tables"


def most_bytes() -> int:
    """Say how many bytes the cache may have. Raises UsageError."""
    text = os.environ.get(LIMIT, "")
    try:
        gib = float(text) if text else DEFAULT_GIB
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise UsageError(f"{LIMIT}: must be a number greater than 0, of GiB, met {text!r}; write for instance 100")
    return int(gib * 2**30)


def key_of(*parts: Any) -> str:
    """Make the key of what plain values describe. It has this format and this version in it: another version may read
    the same table otherwise."""
    described = json.dumps([FORMAT, __version__, *parts], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def open_entry(folder: Path, key: str) -> tuple[IO[bytes], dict[str, Any]] | None:
    """Open the points of an entry, held against removal, and what is in them; None where there is no such entry, or
    one that is damaged."""
    try:
        file = (folder / key / POINTS).open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{folder / key}: {error.strerror}; {_ELSEWHERE}") from error
    fcntl.flock(file, fcntl.LOCK_SH)
    meta = _read_meta(folder / key)
    stat = os.fstat(file.fileno())
    if meta is None or not stat.st_nlink or not _is_whole(stat, meta):
        file.close()
        return None
    with contextlib.suppress(OSError):  # a cache that can only be read does not learn what was used
        os.utime(folder / key / META)
    return file, meta


@contextlib.contextmanager
def new_entry(folder: Path, name: str) -> Iterator[Path]:
    """Hold the only right to make the entry of a name, and give an empty folder to make it in. `publish` makes an entry
    of it; what is left of it at the end is removed. Waits for another process that holds the right.

    Raises StorageError where the folder cannot be written to.
    """
    with translated_errors(folder, REMEDIES):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder, but=name)
        while (lock := _locked(_lock_of(folder, name), create=True)) is None:
            time.sleep(0.05)  # on after a first signal, too: it asks for a stop, which is made once there is the data
        temporary = _temporary(folder, name)
        try:
            _remove_tree(temporary)  # of one who was killed
            temporary.mkdir()
        except BaseException:
            _release(lock, _lock_of(folder, name))
            raise
    try:
        yield temporary
    finally:
        _remove_tree(temporary)
        _release(lock, _lock_of(folder, name))


def publish(temporary: Path, key: str, meta: dict[str, Any]) -> None:
    """Make an entry of a folder that has its points: it appears whole, or not at all. One that is there already, and
    is not damaged, stays."""
    folder = temporary.parent
    written = (temporary / POINTS).stat().st_mtime_ns
    meta = {"format": FORMAT, "linreg": __version__, "written": written, **meta}
    with translated_errors(folder / key, REMEDIES):
        with (temporary / META).open("w") as file:
            json.dump(meta, file, indent=2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(temporary)
        there = open_entry(folder, key)
        if there is not None:
            there[0].close()
            return
        if (folder / key).exists():
            _remove_tree(folder / key)
        temporary.rename(folder / key)
        sync_folder(folder)


def make_room(folder: Path, size: int) -> None:
    """Remove the entries that were not used for longest, until `size` bytes more fit into the bound. Raises
    StorageError if they cannot."""
    most = most_bytes()
    found = sorted(entries(folder), key=lambda entry: entry.used)
    total = sum(entry.bytes for entry in found)
    with translated_errors(folder, REMEDIES):
        for entry in found:
            if total + size <= most:
                break
            if _remove(folder, entry.key):
                total -= entry.bytes
    if total + size > most:
        rest = f" beside {total / 2**30:.3g} GiB in use" if total else ""
        raise StorageError(
            f"{folder}: the table takes more than {size / 2**30:.3g} GiB{rest}, and the cache may hold "
            f"{most / 2**30:.3g}; set {LIMIT} to more"
        )


def entries(folder: Path) -> list[Entry]:
    """Say what is in the cache, the newest used first. Raises StorageError."""
    found = []
    with translated_errors(folder, REMEDIES):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(".") or not path.is_dir():
                continue
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(_entry(path))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear(folder: Path) -> tuple[list[Entry], list[Entry]]:
    """Remove every entry that nobody uses, and what killed conversions left. Gives those removed, and those in use."""
    with translated_errors(folder, REMEDIES):
        _remove_leftovers(folder)
        removed: list[Entry] = []
        kept: list[Entry] = []
        for entry in entries(folder):
            (removed if _remove(folder, entry.key) else kept).append(entry)
    return removed, kept


def _entry(path: Path) -> Entry:
    meta = _read_meta(path)
    points = path / POINTS
    stat = points.stat() if points.is_file() else None
    used = (path / META).stat().st_mtime if (path / META).exists() else path.stat().st_mtime
    lock = _locked(points) if points.is_file() else None
    if lock is not None:
        os.close(lock)
    return Entry(
        key=path.name,
        source=meta["source"] if meta else "",
        n_rows=meta["n_rows"] if meta else None,
        n_columns=meta["n_columns"] if meta else None,
        bytes=stat.st_size if stat else 0,
        used=datetime.fromtimestamp(used, UTC).isoformat(),
        in_use=points.is_file() and lock is None,
        damaged=meta is None or stat is None or not _is_whole(stat, meta),
    )


def _read_meta(path: Path) -> dict[str, Any] | None:
    """Read what is said of an entry; None where it is not what `publish` wrote."""
    try:
        meta = json.loads((path / META).read_bytes())
    except (OSError, ValueError):
        return None
    known = isinstance(meta, dict) and meta.get("format") == FORMAT
    return meta if known and all(isinstance(meta.get(key), kind) for key, kind in _META.items()) else None


def _is_whole(stat: os.stat_result, meta: dict[str, Any]) -> bool:
    """Whether a file of points has the size that it must have, and was not written to since it was made."""
    size = meta["n_rows"] * meta["n_columns"] * 8
    return bool(stat.st_size == size and stat.st_mtime_ns == meta["written"])


def _remove(folder: Path, key: str) -> bool:
    """Remove an entry, unless somebody uses it."""
    points, name = folder / key / POINTS, uuid.uuid4().hex
    lock = None
    try:
        for _ in range(5):  # one who only looks is gone in a moment
            if not points.is_file() or (lock := _locked(points)) is not None:
                break
            time.sleep(0.04)
        if lock is None and points.is_file():
            return False
        (folder / key).rename(_temporary(folder, name))  # so that no half of it is met
        _remove_tree(_temporary(folder, name))
    except FileNotFoundError:  # by another process, a moment ago
        return True
    finally:
        if lock is not None:
            os.close(lock)
    return True


def _remove_leftovers(folder: Path, *, but: str = "") -> None:
    """Remove what conversions that were killed have left."""
    left = [*folder.glob(f".*{LEFTOVER}"), *folder.glob(".*.lock")]
    for name in {path.name[1:].rpartition(".")[0] for path in left} - {but}:
        lock = _locked(_lock_of(folder, name), create=True)
        if lock is not None:
            _remove_tree(_temporary(folder, name))
            _release(lock, _lock_of(folder, name))


def _temporary(folder: Path, name: str) -> Path:
    return folder / f".{name}{LEFTOVER}"


def _lock_of(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _locked(path: Path, *, create: bool = False) -> int | None:
    """Lock a file for oneself alone and give its descriptor; None if somebody else has it."""
    while True:
        descriptor = _opened(path, create=create)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # its holder has removed it: the lock of a file that has no name keeps nobody out


def _opened(path: Path, *, create: bool) -> int:
    """Open a file to lock it: to be written, as NFS wants it, if that is allowed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDWR, 0o666)
    except OSError as error:
        if create or error.errno not in {errno.EACCES, errno.EROFS}:
            raise
    return os.open(path, os.O_RDONLY)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _release(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(descriptor)
