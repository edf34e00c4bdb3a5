"""The states that a crash of the machine may leave of recorded operations, by a simple model of a POSIX file system.

What was written to a file and not synced since may be there, in part, as zeros, or not at all. What was done to a folder
(a file made, renamed, removed) and not synced since may be there or not, each by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from tests.faults.operations import Operation

MOST_TOGETHER = 6  # changes of folders: of so many, all subsets are tried
State = dict[Path, bytes]


@dataclass
class File:
    """What a process would read of a file, and whether a crash leaves it that way."""

    data: bytes = b""
    synced: bool = True

    def after_crash(self, kind: int) -> bytes:
        """What a crash may leave of it: the whole, a part, zeros, nothing."""
        whole = self.data
        return whole if self.synced else (whole, whole[: len(whole) // 2], bytes(len(whole)), b"")[kind]


@dataclass
class Disk:
    """The files under their names: as processes see them, and as they are known to be after a crash, with the changes
    since, which may be or not."""

    seen: dict[Path, File] = field(default_factory=dict)
    durable: dict[Path, File] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)  # made while it was watched
    changes: list[tuple[Operation, File]] = field(default_factory=list)

    def do(self, operation: Operation) -> None:
        """Take over one operation."""
        path, kind = operation.path, operation.kind
        if kind == "write" and path in self.seen:
            file = self.seen[path]
            file.data, file.synced = file.data + operation.data, False
        elif kind == "fsync" and path in self.seen and path not in self.folders:
            self.seen[path].synced = True
        elif kind == "fsync":
            _apply(self.durable, [change for change in self.changes if change[0].path.parent == path])
            self.changes = [change for change in self.changes if change[0].path.parent != path]
        elif kind in ("create", "mkdir", "replace", "unlink"):
            self.folders |= {path} if kind == "mkdir" else set()
            change = (operation, File() if kind in ("create", "mkdir") else self.seen.get(path, File()))
            _apply(self.seen, [change])
            self.changes.append(change)

    def crashes(self) -> Iterator[State]:
        """Every state that a crash may leave now: the files that can be reached, and what is in them."""
        for kept in _subsets(self.changes):
            names = dict(self.durable)
            _apply(names, kept)
            lost = {folder for folder in self.folders if folder not in names}
            paths = [path for path in names if path not in self.folders and not lost & set(path.parents)]
            unsynced = [path for path in paths if not names[path].synced]
            for kinds in _kinds(unsynced):
                yield {path: names[path].after_crash(kinds.get(path, 0)) for path in paths}


def _apply(names: dict[Path, File], changes: Sequence[tuple[Operation, File]]) -> None:
    for operation, file in changes:
        if operation.kind in ("replace", "unlink"):
            names.pop(operation.path, None)
        if operation.kind != "unlink":
            names[operation.target or operation.path] = file


def _kinds(paths: Sequence[Path]) -> Iterator[dict[Path, int]]:
    """What may become of unsynced files: nothing bad, the same to all, or something to one alone."""
    yield {}
    for kind in (1, 2, 3) if paths else ():
        yield dict.fromkeys(paths, kind)
        if len(paths) > 1:
            yield from ({path: kind} for path in paths)


def _subsets(changes: Sequence[tuple[Operation, File]]) -> Iterator[Sequence[tuple[Operation, File]]]:
    """All subsets of a few changes; of many, the first ones, and each alone and left out."""
    if len(changes) <= MOST_TOGETHER:
        for size in range(len(changes) + 1):
            yield from combinations(changes, size)
        return
    for i in range(len(changes)):
        yield changes[:i]
        yield changes[i : i + 1]
        yield [*changes[:i], *changes[i + 1 :]]
    yield changes
