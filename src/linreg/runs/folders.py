"""Run folders: naming, locking, provenance, listing, removal.

runs/<name>_001/          made at once with its number, never used twice
checkpoints/<name>_001/   the checkpoints of that run
checkpoints/latest        the path of the newest checkpoint
"""

import fcntl
import json
import math
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from linreg.errors import StorageError, UsageError, shorten
from linreg.spec.document import MAX_BYTES, flatten, read_yaml
from linreg.system.files import make_folder, remove_leftovers, replace_file, sync_folder, translated_errors
from linreg.system.version import __version__

if TYPE_CHECKING:
    import torch

FINISHED = ("finished", "early_stopped")
MOST_BYTES = 2**24  # of run.json, or of a line of metrics.jsonl
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*_[0-9]{3,}")
_CHECKPOINT_NAME = re.compile(r"[A-Za-z0-9_]+\.pth")


@dataclass
class Run:
    """A run that this process holds: nobody else can write to it, or remove it, until it is let go."""

    folder: Path
    checkpoints: Path
    info: dict[str, Any] = field(default_factory=dict)
    published: tuple[int, ...] | None = None  # the version of `latest` that was seen to name this run

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folders."""
        return self.folder.name

    @property
    def last(self) -> Path:
        """The path of its newest checkpoint."""
        return self.checkpoints / "last.pth"

    def write_info(self, **changes: Any) -> None:
        """Write run.json anew, with changes."""
        self.info |= changes
        replace_file(self.folder / "run.json", json.dumps(self.info, indent=2) + "\n")

    def publish(self) -> None:
        """Make this run's last.pth the one that `predict` takes without being told."""
        folder = self.checkpoints.parent
        version = _version_of(folder / "latest")
        if version is not None and version == self.published:
            return
        if latest_checkpoint(folder) == self.last:
            self.published = version  # of before it was read: another process may have replaced it since
        else:
            _write_latest(folder, self.last)


@contextmanager
def create(name: str, runs: Path, checkpoints: Path) -> Iterator[Run]:
    """Make, and hold, the run `<name>_<next free number>`. Raises StorageError."""
    if runs.resolve() == checkpoints.resolve():
        raise UsageError(f"{runs}: cannot hold runs and checkpoints at once; give --checkpoints another folder")
    with translated_errors(runs):
        make_folder(runs)
    with translated_errors(checkpoints):
        make_folder(checkpoints)
        remove_leftovers(checkpoints, shared=True)
        _remove_leftovers_of(name, runs, checkpoints)
    number = 1 + max(_numbers(name, runs) | _numbers(name, checkpoints), default=0)
    while True:
        folder = runs / f"{name}_{number:03}"
        with translated_errors(folder):
            try:
                folder.mkdir()
            except FileExistsError:  # another process was faster
                number += 1
                continue
        break
    run = Run(folder, checkpoints / folder.name, {"name": folder.name, "id": uuid.uuid4().hex, "sessions": []})
    with _held(folder):
        try:
            with translated_errors(run.checkpoints):
                sync_folder(runs)
                make_folder(run.checkpoints)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield run


def _remove_leftovers_of(name: str, runs: Path, checkpoints: Path) -> None:
    """Remove what killed sessions have left in the runs of an experiment that nobody holds."""
    for number in _numbers(name, runs):
        folder = runs / f"{name}_{number:03}"
        with _looked_at(folder) as free:
            if free:
                remove_leftovers(folder, checkpoints / folder.name)


@contextmanager
def hold(name: str, runs: Path, checkpoints: Path) -> Iterator[Run]:
    """Hold a run that is there. Raises UsageError if it is not, StorageError if another process holds it."""
    folder = _existing(name, runs)
    if (checkpoints / name).is_symlink():
        raise UsageError(f"{checkpoints / name}: a link, and not the checkpoints of a run; remove it")
    with _held(folder):
        remove_leftovers(folder, checkpoints / name)
        remove_leftovers(checkpoints, shared=True)
        run = Run(folder, checkpoints / name, read_info(folder))
        with translated_errors(run.checkpoints):
            make_folder(run.checkpoints)
        yield run


def read_info(folder: Path) -> dict[str, Any]:
    """Read run.json; empty where there is none that can be read."""
    try:
        with _opened(folder / "run.json") as file:
            info = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def summaries(runs: Path, checkpoints: Path) -> list[dict[str, Any]]:
    """Say of every run, the oldest first, how it stands."""
    if runs.exists() and not runs.is_dir():
        raise UsageError(f"{runs}: a file, not a folder of runs; name a folder with --runs")
    folders = [folder for folder in runs.iterdir() if (folder / "run.json").is_file()] if runs.is_dir() else []
    found = [_summary(folder, checkpoints) for folder in folders]
    return sorted(found, key=lambda run: (str(run["started"] or ""), run["run"]))


def compare(a: str, b: str, runs: Path, checkpoints: Path) -> list[dict[str, Any]]:
    """Lay two runs side by side, as `a` and `b`: how they stand, then every setting in which their specs differ.
    Raises UsageError if one is not there."""
    folders = [_existing(name, runs) for name in (a, b)]
    stands = [_summary(folder, checkpoints) for folder in folders]
    specs = [_read_spec(folder) for folder in folders]
    stand = {"outcome": "outcome", "epochs": "epochs done", "loss": "loss", "val_loss": "val_loss"}
    rows = [{"setting": name, "a": stands[0][key], "b": stands[1][key]} for key, name in stand.items()]
    keys = dict.fromkeys([*specs[0], *specs[1]])
    return rows + [
        {"setting": key, "a": specs[0].get(key), "b": specs[1].get(key)}
        for key in keys
        if specs[0].get(key) != specs[1].get(key)
    ]


def _read_spec(folder: Path) -> dict[str, Any]:
    path = folder / "spec.yaml"
    if not path.is_file():
        return {}
    with _opened(path) as file:
        value = read_yaml(file.read(MAX_BYTES + 1), str(path)).value
    flat = flatten(value) if isinstance(value, dict) else {}
    return {
        key: [_plain(one) for one in item] if isinstance(item, list) else _plain(item) for key, item in flat.items()
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the records of metrics.jsonl; a last line that was cut off is passed over."""
    records = []
    try:
        with _opened(folder / "metrics.jsonl") as file:
            while isinstance(record := json.loads(file.readline(MOST_BYTES)), dict):
                records.append(record)
    except (OSError, ValueError, RecursionError):  # the end, too, is no record
        pass
    return records


def _opened(path: Path) -> IO[bytes]:
    """Open a file of a run. Raises OSError, and so for a pipe or a device, which might never end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115  # returned
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path}: not a file")
    return file


def remove(name: str, runs: Path, checkpoints: Path) -> None:
    """Remove a run: its folder and its checkpoints. Raises UsageError if it is not there, StorageError if it is
    in use."""
    folder = _existing(name, runs)
    with _held(folder), translated_errors(folder):
        if (checkpoints / name).is_symlink():  # what it leads to is not the run's
            (checkpoints / name).unlink()
        elif (checkpoints / name).is_dir():
            shutil.rmtree(checkpoints / name)
        shutil.rmtree(folder)
    if (latest := latest_checkpoint(checkpoints)) is not None and latest.parent.name == name:
        left = sorted(checkpoints.glob("*/last.pth"), key=lambda path: path.stat().st_mtime)
        if left:
            _write_latest(checkpoints, left[-1])
        else:
            (checkpoints / "latest").unlink()


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that `checkpoints/latest` names, wherever the folder has been moved to; None without one, or where
    it names what no run has written."""
    try:
        with _opened(checkpoints / "latest") as file:
            text = os.fsdecode(file.read(MOST_BYTES)).strip()
    except OSError:
        return None
    run, name = ("", "", *Path(text).parts)[-2:]
    return checkpoints / run / name if _RUN_NAME.fullmatch(run) and _CHECKPOINT_NAME.fullmatch(name) else None


def _version_of(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _write_latest(checkpoints: Path, path: Path) -> None:
    replace_file(checkpoints / "latest", os.fsencode(path) + b"\n")


def last_run(name: str, runs: Path) -> str | None:
    """The name of the newest run of an experiment; None without one."""
    numbers = _numbers(name, runs)
    return f"{name}_{max(numbers):03}" if numbers else None


def environment(device: "torch.device") -> dict[str, Any]:
    """Say what the exactness of a resumed run hangs on."""
    import numpy as np
    import torch  # here: those who list runs need not wait for it

    return {
        "linreg": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def git_commit() -> str | None:
    """The commit of the working directory, with `+` where files differ from it; None outside a repository."""
    if not any((parent / ".git").exists() for parent in [Path.cwd(), *Path.cwd().parents]):
        return None
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        found = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line() -> list[str]:
    """The command that this process was started with."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _existing(name: str, runs: Path) -> Path:
    folder = runs / name
    if not _RUN_NAME.fullmatch(name) or not (folder / "run.json").is_file():
        raise UsageError(f"{folder}: no such run; linreg runs lists those there are")
    if folder.is_symlink():
        raise UsageError(f"{folder}: a link, and not the folder of a run; remove it, or name --runs where it leads to")
    return folder


def _numbers(name: str, folder: Path) -> set[int]:
    pattern = re.compile(re.escape(name) + r"_([0-9]{3,})")
    found = (pattern.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
    return {int(match[1]) for match in found if match}


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system lets it go if the process dies."""
    with translated_errors(folder):
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX, tries=5):  # one who only looks is gone in a moment
            raise StorageError(f"{folder}: in use by another process; wait for it, or stop it")
        if not _is_at(folder / ".lock", descriptor):
            raise StorageError(f"{folder}: removed by another process meanwhile; linreg runs lists those there are")
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int, *, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(0.04)
        else:
            return True
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _looked_at(folder: Path) -> Iterator[bool]:
    """Say whether nobody holds the run, and keep it so meanwhile; nothing is written."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield True
        return
    try:
        yield _locked(descriptor, fcntl.LOCK_SH, tries=1)
    finally:
        os.close(descriptor)


def _summary(folder: Path, checkpoints: Path) -> dict[str, Any]:
    info = read_info(folder)
    sessions = info.get("sessions")
    first = sessions[0] if isinstance(sessions, list) and sessions and isinstance(sessions[0], dict) else {}
    records = read_metrics(folder)
    outcome = info.get("outcome", "interrupted")
    if outcome == "running":
        with _looked_at(folder) as free:
            outcome = "interrupted" if free else "running"  # killed: it could not say so itself
    last = checkpoints / folder.name / "last.pth"
    return {
        "run": folder.name,
        "outcome": _plain(outcome),
        "epochs": len(records),
        "loss": _plain(records[-1].get("loss")) if records else None,
        "val_loss": _plain(records[-1].get("val_loss")) if records else None,
        "started": _plain(first.get("started")),
        "checkpoint": str(last) if last.is_file() else None,
    }


def _plain(value: Any) -> Any:
    """Give a finite number, or a text of a line, as it is; other things that a file may hold as text."""
    if value is None or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    return shorten(str(value))
