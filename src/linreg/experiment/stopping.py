"""A stop that was asked for: `StopRequested`, also by another process of the group."""

from collections.abc import Iterator
from contextlib import contextmanager

from linreg.errors import GroupError
from linreg.training.shards import Exchange


class StopRequested(Exception):  # noqa: N818  # not an error: it leaves the loops
    """The caller wants a stop."""


@contextmanager
def stopping_together(exchange: Exchange) -> Iterator[None]:
    """Raise StopRequested if other processes have ended because one was asked to stop."""
    try:
        yield
    except GroupError:
        if exchange.is_stopping():
            raise StopRequested from None
        raise
