"""The cache of converted tables: its folder, entries and locks. `data.memory: mapped` and `linreg cache` use it.

    $XDG_CACHE_HOME/linreg/tables/      or ~/.cache/linreg/tables/
      <key>/points.bin                  rows of float64
      <key>/meta.json                   their source, columns and categories
      .<name>.tmp/, .<name>.lock        a conversion in progress, or one that was killed

A rename creates an entry as a whole, and nothing changes it afterwards. A reader holds a shared lock on points.bin
while the file or a map of it is open. Only an entry without a lock is removed.
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

FORMAT = 6  # of points.bin and meta.json
POINTS, META = "points.bin", "meta.json"
_META: dict[str, type] = {
    "written": int,
    "source": str,
    "fingerprint": str,
    "sums": list,
    "n_rows": int,
    "sizes": list,
    "n_columns": int,
    "weighted": bool,
    "feature_names": list,
    "target_names": list,
    "categories": dict,
    "minimum": list,
    "maximum": list,
}
LIMIT = "LINREG_CACHE_GIB"  # the environment variable that limits the cache
DEFAULT_GIB = 64.0

_ELSEWHERE = "set XDG_CACHE_HOME to a writable folder, or data.memory to resident"
_SPACE = "free some space (linreg cache clear), or set XDG_CACHE_HOME to a folder on another disk"
REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST), _ELSEWHERE),
}


@dataclass(frozen=True)
class Entry:
    """A converted table. used: the time when it was last opened, in UTC; in_use: whether a process reads it now;
    damaged: whether it does not match its meta.json."""

    key: str
    source: str
    n_rows: int | None
    n_columns: int | None
    bytes: int
    used: str
    in_use: bool
    damaged: bool


def cache_folder() -> Path:
    """Return the folder of the cache, which may not exist."""
    path = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = path if path.is_absolute() else Path.home() / ".cache"  # the XDG standard ignores a relative path
    return base / "linreg" / "tables"


def most_bytes() -> int:
    """Return the limit of the cache in bytes. Raises UsageError."""
    text = os.environ.get(LIMIT, "")
    try:
        gib = float(text) if text else DEFAULT_GIB
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise UsageError(f"{LIMIT}: must be a number of GiB > 0, got {text!r}; set it to 100, for example")
    return int(gib * 2**30)


def key_of(*parts: Any) -> str:
    """Hash plain values into the key of an entry. The key depends on the format and on linreg's version, as another
    version may read the same table differently."""
    text = json.dumps([FORMAT, __version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_entry(folder: Path, key: str) -> tuple[IO[bytes], dict[str, Any]] | None:
    """Open the points of an entry, with a shared lock, and its meta. Returns None for an absent or damaged entry.
    Raises StorageError."""
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
    with contextlib.suppress(OSError):  # a read-only cache does not record the time of use
        os.utime(folder / key / META)
    return file, meta


@contextlib.contextmanager
def new_entry(folder: Path, name: str) -> Iterator[Path]:
    """Lock the name of a conversion and yield an empty temporary folder for it, which `publish` makes an entry.

    Waits for another process that holds the lock. Removes the temporary folder at the end. Raises StorageError if the
    cache is not writable.
    """
    with translated_errors(folder, REMEDIES):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder, but=name)
        while (lock := _locked(_lock_of(folder, name), create=True)) is None:
            time.sleep(0.05)  # also after a first signal: training stops once it has the data
        temporary = _temporary(folder, name)
        try:
            _remove_tree(temporary)  # of a killed process
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
    """Make a temporary folder with points an entry, as a whole or not at all. An entry that exists stays, unless it is
    damaged."""
    folder = temporary.parent
    written = (temporary / POINTS).stat().st_mtime_ns
    meta = {"format": FORMAT, "linreg": __version__, "written": written, **meta}
    with translated_errors(folder / key, REMEDIES):
        with (temporary / META).open("w") as file:
            json.dump(meta, file, indent=2, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(temporary)
        existing = open_entry(folder, key)
        if existing is not None:
            existing[0].close()
            return
        if (folder / key).exists():
            _remove_tree(folder / key)
        temporary.rename(folder / key)
        sync_folder(folder)


def make_room(folder: Path, size: int) -> None:
    """Remove the least recently used entries until `size` more bytes fit within the limit. Raises StorageError if they
    do not fit."""
    most = most_bytes()
    oldest_first = sorted(entries(folder), key=lambda entry: entry.used)
    total = sum(entry.bytes for entry in oldest_first)
    with translated_errors(folder, REMEDIES):
        for entry in oldest_first:
            if total + size <= most:
                break
            if _remove(folder, entry.key):
                total -= entry.bytes
    if total + size > most:
        rest = f", {total / 2**30:.3g} GiB are in use" if total else ""
        raise StorageError(
            f"{folder}: the table needs more than {size / 2**30:.3g} GiB{rest}, and the limit of the cache is "
            f"{most / 2**30:.3g} GiB; increase {LIMIT}"
        )


def entries(folder: Path) -> list[Entry]:
    """List the entries, the most recently used first. Raises StorageError."""
    listed = []
    with translated_errors(folder, REMEDIES):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(".") or not path.is_dir():
                continue
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                listed.append(_entry(path))
    return sorted(listed, key=lambda entry: entry.used, reverse=True)


def clear(folder: Path) -> tuple[list[Entry], list[Entry]]:
    """Remove all entries that are not in use, and the files of killed conversions. Returns the removed entries and
    those in use. Raises StorageError."""
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
    """Read the meta.json of an entry. Returns None if `publish` of this format did not write it."""
    try:
        meta = json.loads((path / META).read_bytes())
    except (OSError, ValueError):
        return None
    is_ours = isinstance(meta, dict) and meta.get("format") == FORMAT
    return meta if is_ours and all(isinstance(meta.get(key), kind) for key, kind in _META.items()) else None


def _is_whole(stat: os.stat_result, meta: dict[str, Any]) -> bool:
    """Return whether points.bin has the size and modification time of the meta."""
    size = meta["n_rows"] * meta["n_columns"] * 8
    return bool(stat.st_size == size and stat.st_mtime_ns == meta["written"])


def _remove(folder: Path, key: str) -> bool:
    """Remove an entry unless it is in use. Returns whether it is gone."""
    points, name = folder / key / POINTS, uuid.uuid4().hex
    lock = None
    try:
        for _ in range(5):  # `entries` of another process locks it for a moment
            if not points.is_file() or (lock := _locked(points)) is not None:
                break
            time.sleep(0.04)
        if lock is None and points.is_file():
            return False
        (folder / key).rename(_temporary(folder, name))  # so that no process opens a part of it
        _remove_tree(_temporary(folder, name))
    except FileNotFoundError:  # another process removed it
        return True
    finally:
        if lock is not None:
            os.close(lock)
    return True


def _remove_leftovers(folder: Path, *, but: str = "") -> None:
    """Remove the files of killed conversions. but: the name of a conversion whose files stay."""
    files = [*folder.glob(f".*{LEFTOVER}"), *folder.glob(".*.lock")]
    for name in {path.name[1:].rpartition(".")[0] for path in files} - {but}:
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
    """Lock a file exclusively. Returns its descriptor, or None if another process holds a lock."""
    while True:
        descriptor = _opened(path, create=create)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # the last holder removed the file, so its lock is void


def _opened(path: Path, *, create: bool) -> int:
    """Open a file to lock it: for writing, which NFS requires, unless it is read-only."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDWR, 0o666)
    except OSError as error:
        if create or error.errno not in {errno.EACCES, errno.EROFS}:
            raise
    return os.open(path, os.O_RDONLY)


def _is_still(path: Path, descriptor: int) -> bool:
    """Return whether the path still names the open file."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _release(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(descriptor)
