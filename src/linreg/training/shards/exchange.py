"""The exchange between the processes of a group: each computes some shards, and all get the sum over all shards."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Exchange:
    """The exchange of a process that is alone.

    rank, size: the number of this process, and how many there are. stopped: whether any process of the group was asked
    to stop, which all know after the same step."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.stopped = False

    def own(self, n_shards: int) -> range:
        """Return the shards of this process. Consecutive processes have consecutive shards."""
        return shards_of(n_shards, self.rank, self.size)

    def form(self, listen: Callable[[], object] = lambda: None) -> None:
        """Form the group. Return when all processes have called `listen`."""

    def lead(self, make_start: Callable[[], Any]) -> None:
        """Form the group, and send all others what they go on with."""

    def follow(self) -> Any:
        """Join the group, and return what the first process sends."""

    def wait_for_first(self) -> None:
        """Wait for the end of `closing` in the first process."""

    def give_sign(self) -> None:
        """Let the others know that this process works. To be called about every second by one that works longer."""

    def at_work(self) -> AbstractContextManager[None]:
        """Return a context that lets the others know that this process works: for long work without steps."""
        return nullcontext()

    def closing(self) -> AbstractContextManager[None]:
        """Return a context for the work of the first process alone, at the end; the others wait for it."""
        return nullcontext()

    def agreed(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return the function that says whether to stop, as all processes see it after the same step. stop: of this
        process alone."""
        return stop

    def relay_stop(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return the function that says whether any process was asked to stop, about a second later. stop: of this
        process alone."""
        return stop

    def is_stopping(self) -> bool:
        """Return whether a process was asked to stop, now (see `relay_stop`)."""
        return False

    def collect(self, value: Any) -> list[Any]:
        """Send a value of every process to rank 0; return them there in the order of the ranks."""
        return [value]

    def all_of(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of the ranks, in each."""
        return [value]

    def total(self, rows: torch.Tensor, n_shards: int) -> torch.Tensor:
        """Return the sum (width,) of the rows of all shards, added in the order of the shards. rows (n_own, width): of
        the shards of this process."""
        return add_in_order(rows)


def shards_of(n_shards: int, rank: int, size: int) -> range:
    """Return the shards of a process."""
    return range(n_shards * rank // size, n_shards * (rank + 1) // size)


def add_in_order(rows: torch.Tensor) -> torch.Tensor:
    """Return the sum (width,) of rows (n, width), n > 0, one after the other."""
    total = rows[0].clone()
    for row in rows[1:]:
        total.add_(row)
    return total
