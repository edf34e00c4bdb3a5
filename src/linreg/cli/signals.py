"""Stops a command on SIGINT, SIGTERM and SIGHUP, after it has saved its work."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):  # not an error: no `except Exception` may catch it
    """A signal ends the process before there is anything to save."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


class StopFlag:
    """Set by the first signal. Calling it returns whether it is set.

    The first call marks it as watched: the caller has work to save, and checks the flag again and again."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.is_watched = False

    def __call__(self) -> bool:
        """Return whether a signal asked for a stop."""
        self.is_watched = True
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code that a shell expects after this signal."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Set a flag on SIGINT, SIGTERM and SIGHUP instead of ending the process.

    A second signal ends the process at once. So does the first while nobody watches the flag: reading a table may take
    long, and there is nothing to save."""
    flag = StopFlag()

    def stop(number: int, frame: FrameType | None) -> None:
        if flag.signal is not None:
            os._exit(128 + number)  # an exception could leave TensorBoard's writer waiting for ever
        flag.signal = number
        if not flag.is_watched:
            raise Stopped(flag.exit_code)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: list[Callable[..., object] | int | None] = [signal.signal(number, stop) for number in numbers]
    try:
        yield flag
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
