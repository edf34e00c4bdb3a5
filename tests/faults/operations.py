"""What a process does to files, one operation at a time, so that each can be recorded, killed at, or made to fail."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Operation:
    """create (of a file), write, fsync, replace, unlink, mkdir. path: of what; target: the new name; data: what is
    written."""

    kind: str
    path: Path
    target: Path | None = None
    data: bytes = b""

    @property
    def saves(self) -> bool:
        """Whether it is a part of saving a checkpoint."""
        return "checkpoints" in self.path.parts and self.kind != "mkdir"


Perform = Callable[[Operation, Callable[..., Any]], Any]  # is given an operation and what does it; a write takes data


class _File(io.FileIO):
    """A file whose writes are os.write's, as all others are."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


@contextmanager
def intercepted(perform: Perform) -> Iterator[None]:
    """Let `perform` do what this process, in any thread, does to files by os.*, Path.* and io.open."""
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "unlink", "mkdir")}
    real_io_open = io.open
    names: dict[int, Path] = {}  # of the open files

    def opened(path: Any, *, creates: bool, call: Callable[[], Any]) -> Any:
        new = creates and not os.path.lexists(path)
        file = perform(Operation("create", Path(os.fsdecode(path))), call) if new else call()
        names[file if isinstance(file, int) else file.fileno()] = Path(os.fsdecode(path))
        return file

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        def call() -> int:
            return real["open"](path, flags, mode, dir_fd=dir_fd)

        return call() if dir_fd is not None else opened(path, creates=bool(flags & os.O_CREAT), call=call)

    def io_open(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if isinstance(file, int) or "opener" in named or not set(mode) & set("wax"):
            return real_io_open(file, mode, buffering, *rest, **named)
        plain = mode.replace("b", "").replace("t", "")
        writer = io.BufferedWriter(opened(file, creates=True, call=lambda: _File(file, plain)))
        return writer if "b" in mode else io.TextIOWrapper(writer, *rest, **named)

    def write(descriptor: int, data: Any) -> int:
        if descriptor not in names:  # not a file: a pipe, say
            return real["write"](descriptor, data)
        operation = Operation("write", names[descriptor], data=bytes(data))
        return perform(operation, lambda part=operation.data: real["write"](descriptor, part))

    def fsync(descriptor: int) -> None:
        perform(Operation("fsync", names[descriptor]), lambda: real["fsync"](descriptor))

    def replace(source: Any, target: Any) -> None:
        perform(Operation("replace", Path(source), Path(target)), lambda: real["replace"](source, target))

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None or not os.path.lexists(path):
            real["unlink"](path, dir_fd=dir_fd)
        else:
            perform(Operation("unlink", Path(path)), lambda: real["unlink"](path))

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None or os.path.lexists(path):
            real["mkdir"](path, mode, dir_fd=dir_fd)
        else:
            perform(Operation("mkdir", Path(path)), lambda: real["mkdir"](path, mode))

    ours = {"open": os_open, "write": write, "fsync": fsync, "replace": replace, "unlink": unlink, "mkdir": mkdir}
    try:
        vars(os).update(ours)
        io.open = io_open  # type: ignore[assignment]
        yield
    finally:
        vars(os).update(real)
        io.open = real_io_open
