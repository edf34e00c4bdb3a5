"""Signs of life of the processes of a group, in its store: `Signs`. A process that was asked to stop lets the others
know in the same way."""

import time
from collections.abc import Callable

import torch.distributed as dist

SECONDS_BETWEEN_SIGNS = 1.0  # at least
STOP = "stop"  # the key, set by a process that was asked to stop


class Signs:
    """The signs that a process gives, and sees. Its methods raise the errors of torch.distributed.

    store: of the processes of the group; timeout: seconds without a sign after which a process counts as silent;
    asked: returns whether this process was asked to stop, None if that is not shared; hears_stop: whether a process
    was."""

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: float) -> None:
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout
        self.asked: Callable[[], bool] | None = None
        self.hears_stop = False
        self.seconds_between, self._due_at = min(SECONDS_BETWEEN_SIGNS, timeout / 4), 0.0

    def give(self, *, at_once: bool = False) -> None:
        """Give a sign, and learn whether a process was asked to stop, if enough time has passed since the last one."""
        now = time.monotonic()
        if now < self._due_at and not at_once:
            return
        self._due_at = now + self.seconds_between
        self.store.set(_key(self.rank), str(now))
        if self.asked is not None:
            if self.asked():
                self.store.set(STOP, "")
            self.hears_stop = self.store.check([STOP])

    def watch(self) -> Callable[[], int | None]:
        """Return the function that returns the rank of another process that has given no sign for as long as the
        timeout, or None."""
        last: dict[int, tuple[bytes, float]] = {}  # sign of each process, and when it was new

        def silent() -> int | None:
            now = time.monotonic()
            for rank in range(self.size):
                sign = self.store.get(_key(rank)) if self.store.check([_key(rank)]) else b""
                if rank not in last or last[rank][0] != sign:
                    last[rank] = (sign, now)
                if rank != self.rank and now - last[rank][1] > self.timeout:
                    return rank
            return None

        return silent


def _key(rank: int) -> str:
    return f"sign/{rank}"
