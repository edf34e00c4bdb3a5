"""The folders of runs: creates, holds and removes them.

runs/<name>_001/          created at once with its number, which is never used again once a file is in it
checkpoints/<name>_001/   the checkpoints of that run
checkpoints/latest        the path of the newest checkpoint
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linreg.errors import StorageError, UsageError
from linreg.runs.lock import is_free, lock, lock_if_free
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
    published: tuple[Path, tuple[int, ...] | None] | None = None  # what `latest` named, in which version of the file

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
        if version is not None and (path, version) == self.published:
            return
        if latest_checkpoint(folder) == path:
            # the version before the read: another process may have replaced the file since
            self.published = path, version
        else:
            _write_latest(folder, path)


@contextmanager
def create(name: str, runs: Path, checkpoints: Path, winner_of: Mapping[str, Any] | None = None) -> Iterator[Run]:
    """Create and lock the run `<name>_<next free number>`. winner_of: the sweep and trial of which it is the
    winner, for run.json; a run that was begun for them is locked instead. Raises UsageError, StorageError."""
    begun = None if winner_of is None else find(name, runs, winner_of)
    if begun is not None:
        with hold(begun, runs, checkpoints) as run:
            yield run
        return
    if runs.resolve() == checkpoints.resolve():
        raise UsageError(f"{runs}: cannot hold both runs and checkpoints; give --checkpoints another folder")
    with translated_errors(runs):
        make_folder(runs)
    with translated_errors(checkpoints):
        make_folder(checkpoints)
        remove_leftovers(checkpoints, shared=True)
        _remove_leftovers_of(name, runs, checkpoints)
    with _lock_new_folder(name, runs, checkpoints) as folder:
        run = Run(folder, checkpoints / folder.name, {"name": folder.name, "id": uuid.uuid4().hex, "sessions": []})
        if winner_of is not None:
            run.info["winner_of"] = dict(winner_of)
        try:
            with translated_errors(run.checkpoints):
                sync_folder(runs)
                make_folder(run.checkpoints)
        except StorageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield run


@contextmanager
def _lock_new_folder(name: str, runs: Path, checkpoints: Path) -> Iterator[Path]:
    """Create and lock the folder of the next run, or lock the last one if it is empty: its process was killed at the
    start. Raises StorageError."""
    number = max(_numbers(name, runs) | _numbers(name, checkpoints), default=0)
    if not _is_empty(runs / f"{name}_{number:03}", checkpoints):
        number += 1
    while True:
        folder = runs / f"{name}_{number:03}"
        with translated_errors(folder), suppress(FileExistsError):
            folder.mkdir()
        if _is_empty(folder, checkpoints):
            with lock_if_free(folder) as is_locked:
                if is_locked and _is_empty(folder, checkpoints):
                    yield folder
                    return
        number += 1  # another process was faster


def _is_empty(folder: Path, checkpoints: Path) -> bool:
    """Return whether the folder of a run has no file but its lock, and no checkpoint."""
    saves = checkpoints / folder.name
    if folder.is_symlink() or not folder.is_dir() or saves.is_symlink():
        return False
    with translated_errors(folder):
        return {path.name for path in folder.iterdir()} <= {".lock"} and not any(saves.glob("*"))


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


def find(name: str, runs: Path, winner_of: Mapping[str, Any]) -> str | None:
    """Return the run of an experiment that is the winner of this sweep and trial; None without one."""
    names = [f"{name}_{number:03}" for number in sorted(_numbers(name, runs))]
    return next((one for one in names if read_info(runs / one).get("winner_of") == winner_of), None)


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
