"""A map over items in threads: `map_in_threads`."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8  # each holds a block or two in memory


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Generator[Result, None, None]:
    """Apply a function to items in at most MOST_THREADS threads, and yield the results in the order of the items.

    Items are taken only as fast as results. Raises the errors of the function. Without threads, on two cores, 1,000,000
    rows x 20 columns: reading CSV takes 51 % more time, and predicting for a CSV 13 % (medians of 5 runs).
    """
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
        finally:  # also if the caller stops early
            for future in waiting:
                future.cancel()
