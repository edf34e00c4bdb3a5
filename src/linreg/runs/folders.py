"""The folders of runs: creates, holds and removes them.

runs/<name>_001/          created at once with its number, which is never used again
checkpoints/<name>_001/   the checkpoints of that run
checkpoints/latest        the path of the newest checkpoint
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linreg.errors import StorageError, UsageError
from linreg.runs.lock import is_free, lock
from linreg.runs.records import MOST_BYTES, open_regular, read_info
from linreg.system.files import make_folder, remove_leftovers, replace_file, sync_folder, translated_errors

FINISHED = ("finished", "early_stopped")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*_[0-9]{3,}")
_CHECKPOINT_NAME = re.compile(r"[A-Za-z0-9_]+\.pth")


@dataclass
class Run:
    """A run that this process has locked: no other process can write to it or remove it."""

    folder: Path
    checkpoints: Path
    info: dict[str, Any] = field(default_factory=dict)
    published: tuple[int, ...] | None = None  # the version of `latest` that named this run

    @property
    def name(self) -> str:
        """The name of the run and of its folders."""
        return self.folder.name

    @property
    def last(self) -> Path:
        """The path of the newest checkpoint."""
        return self.checkpoints / "last.pth"

    @property
    def session(self) -> dict[str, Any]:
        """The record of the current session."""
        session: dict[str, Any] = self.info["sessions"][-1]
        return session

    def write_info(self, **changes: Any) -> None:
        """Change some keys of run.json."""
        self.info |= changes
        replace_file(self.folder / "run.json", json.dumps(self.info, indent=2) + "\n")

    def start_session(self, session: dict[str, Any], *, data_fingerprint: str, spec: str) -> None:
        """Add a session to run.json, and write the spec, as YAML, to spec.yaml."""
        sessions = [*self.info.get("sessions", []), session]
        self.write_info(name=self.name, outcome="running", sessions=sessions, data_fingerprint=data_fingerprint)
        replace_file(self.folder / "spec.yaml", spec)

    def publish(self, *, best: bool = False) -> None:
        """Make this run's last.pth, or its best.pth, the default checkpoint of `predict`."""
        folder, path = self.checkpoints.parent, self.checkpoints / "best.pth" if best else self.last
        version = _version_of(folder / "latest")
        if version is not None and version == self.published:
            return
        if latest_checkpoint(folder) == path:
            self.published = version  # the version before the read: another process may have replaced the file since
        else:
            _write_latest(folder, path)


@contextmanager
def create(name: str, runs: Path, checkpoints: Path) -> Iterator[Run]:
    """Create and lock the run `<name>_<next free number>`. Raises UsageError, StorageError."""
    if runs.resolve() == checkpoints.resolve():
        raise UsageError(f"{runs}: cannot hold both runs and checkpoints; give --checkpoints another folder")
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
    with lock(folder):
        try:
            with translated_errors(run.checkpoints):
                sync_folder(runs)
                make_folder(run.checkpoints)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield run


def _remove_leftovers_of(name: str, runs: Path, checkpoints: Path) -> None:
    """Remove temporary files of killed sessions from the unlocked runs of an experiment."""
    for number in _numbers(name, runs):
        folder = runs / f"{name}_{number:03}"
        with is_free(folder) as free:
            if free:
                remove_leftovers(folder, checkpoints / folder.name)


@contextmanager
def hold(name: str, runs: Path, checkpoints: Path) -> Iterator[Run]:
    """Lock an existing run. Raises UsageError for an unknown run, StorageError if another process has locked it."""
    folder = existing(name, runs)
    if (checkpoints / name).is_symlink():
        raise UsageError(f"{checkpoints / name}: a link, not a folder; remove it")
    with lock(folder):
        remove_leftovers(folder, checkpoints / name)
        remove_leftovers(checkpoints, shared=True)
        run = Run(folder, checkpoints / name, read_info(folder))
        with translated_errors(run.checkpoints):
            make_folder(run.checkpoints)
        yield run


def remove(name: str, runs: Path, checkpoints: Path) -> None:
    """Remove the folder and the checkpoints of a run. Raises UsageError for an unknown run, StorageError if it is in
    use."""
    folder = existing(name, runs)
    with lock(folder), translated_errors(folder):
        if (checkpoints / name).is_symlink():  # its target is not the run's
            (checkpoints / name).unlink()
        elif (checkpoints / name).is_dir():
            shutil.rmtree(checkpoints / name)
        shutil.rmtree(folder)
    if (latest := latest_checkpoint(checkpoints)) is not None and latest.parent.name == name:
        others = sorted(checkpoints.glob("*/last.pth"), key=lambda path: path.stat().st_mtime)
        if others:
            _write_latest(checkpoints, others[-1])
        else:
            (checkpoints / "latest").unlink()


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """Return the checkpoint that `checkpoints/latest` names, also after the folder was moved.

    Return None if the file is missing, or does not name a checkpoint of a run."""
    try:
        with open_regular(checkpoints / "latest") as file:
            text = os.fsdecode(file.read(MOST_BYTES)).strip()
    except OSError:
        return None
    run, name = ("", "", *Path(text).parts)[-2:]
    return checkpoints / run / name if _RUN_NAME.fullmatch(run) and _CHECKPOINT_NAME.fullmatch(name) else None


def _version_of(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced; None for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _write_latest(checkpoints: Path, path: Path) -> None:
    replace_file(checkpoints / "latest", os.fsencode(path) + b"\n")


def last_run(name: str, runs: Path) -> str | None:
    """Return the name of the newest run of an experiment; None without one."""
    numbers = _numbers(name, runs)
    return f"{name}_{max(numbers):03}" if numbers else None


def existing(name: str, runs: Path) -> Path:
    """Return the folder of a run. Raises UsageError for an unknown run."""
    folder = runs / name
    if not _RUN_NAME.fullmatch(name) or not (folder / "run.json").is_file():
        raise UsageError(f"{folder}: no such run; linreg runs lists the existing ones")
    if folder.is_symlink():
        raise UsageError(f"{folder}: a link, not a folder; remove it, or point --runs to its target")
    return folder


def _numbers(name: str, folder: Path) -> set[int]:
    pattern = re.compile(re.escape(name) + r"_([0-9]{3,})")
    matches = (pattern.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
    return {int(match[1]) for match in matches if match}
