"""The place of this process in the group that torchrun has started: `place`. No torch is imported here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from linreg.errors import UsageError


@dataclass(frozen=True)
class Place:
    """rank: the number of this process in the group; size: the number of processes; local_rank: the number on this
    machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0


_is_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Work as a process without a group, in the block."""
    global _is_alone  # noqa: PLW0603  # like the environment, it is of the process
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def place() -> Place:
    """Return the place of this process, from the environment that torchrun sets. Raises UsageError."""
    if _is_alone:
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    texts = [os.environ.get(name, default) for name, default in zip(names, ("0", "1", "0"), strict=True)]
    if not all(text.isdecimal() for text in texts) or int(texts[0]) >= int(texts[1]):
        listed = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
        raise UsageError(f"the environment has {listed}; start the processes by torchrun, or unset these")
    return Place(*map(int, texts))
