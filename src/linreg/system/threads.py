"""Work done ahead of who asks for it, in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8  # each holds a slice or two, and memory is promised to be bounded


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Generator[Result, None, None]:
    """Apply a function to each item in threads, at most MOST_THREADS, and give the results in the order of the items.
    Whoever takes the results holds back the items. Raises what the function raises."""
    n_threads = max(1, min(n_threads, MOST_THREADS))
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when nobody wants the rest
            for future in waiting:
                future.cancel()
