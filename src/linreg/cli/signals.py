"""Stops a command on SIGINT, SIGTERM and SIGHUP, and when its agent has ended, after it has saved its work."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from linreg.system.place import place

received: list[signal.Signals] = []  # by this process, while a command ran
AGENT = "TORCHELASTIC_RUN_ID"  # an environment variable of processes that an agent of torchrun has started
SECONDS_A_LOOK = 0.5  # at whether the agent is there


class Stopped(BaseException):  # not an error: no `except Exception` may catch it
    """A signal ends the process before there is anything to save."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code


class StopFlag:
    """Set by the first signal. Calling it returns whether it is set.

    The first call marks it as watched: the caller has work to save, and checks the flag again and again. agent: the
    parent whose end counts as SIGTERM, None without one."""

    def __init__(self, agent: int | None = None) -> None:
        self.signal: int | None = None
        self.agent = agent
        self.is_watched = False

    def __call__(self) -> bool:
        """Return whether a signal asked for a stop."""
        self.is_watched = True
        if self.agent is not None and os.getppid() != self.agent:
            self.signal = self.signal or signal.SIGTERM
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code that a shell expects after this signal."""
        return 128 + (self.signal or signal.SIGTERM)  # without one: another process of the group had it


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Set a flag on SIGINT, SIGTERM and SIGHUP instead of ending the process.

    A second signal ends the process at once, but not in a group: torchrun repeats a signal that its processes have
    received already, and ends those that take too long. An agent that is killed sends none, so its end counts as
    SIGTERM: else its processes would hold the run for as long as they train. The first signal ends the process at once
    while nobody watches the flag: reading a table may take long, and there is nothing to save."""
    is_of_group = place().size > 1
    flag = StopFlag(os.getppid() if is_of_group and AGENT in os.environ else None)

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if flag.signal is not None:
            if is_of_group:
                return
            os._exit(128 + number)  # an exception could leave TensorBoard's writer waiting for ever
        flag.signal = number
        if not flag.is_watched:
            raise Stopped(flag.exit_code)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: list[Callable[..., object] | int | None] = [signal.signal(number, stop) for number in numbers]
    is_over = threading.Event()
    if flag.agent is not None:
        threading.Thread(target=_stop_without_agent, args=(flag.agent, is_over), daemon=True).start()
    try:
        yield flag
    finally:
        is_over.set()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _stop_without_agent(agent: int, is_over: threading.Event) -> None:
    """Send SIGTERM to this process when its parent, of this process number, has ended before the command is over."""
    while not is_over.wait(SECONDS_A_LOOK):
        if os.getppid() != agent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
