"""Work is done ahead in threads, in order, and never further ahead than there are threads."""

import time
from contextlib import closing

import pytest

from linreg.system.threads import map_in_threads


def slow_for_even(item):
    time.sleep(0.002 * (item % 2 == 0))
    return item * item


@pytest.mark.parametrize("n_threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(n_threads):
    assert list(map_in_threads(slow_for_even, range(20), n_threads)) == [item * item for item in range(20)]


def test_an_error_comes_after_the_results_before_it():
    results = []
    with pytest.raises(ZeroDivisionError):
        for result in map_in_threads(lambda item: 1 / (3 - item), range(10), 2):
            results.append(result)
    assert results == [1 / 3, 1 / 2, 1]


def test_items_are_not_taken_far_ahead_of_results():
    asked = []

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    with closing(map_in_threads(slow_for_even, items(), 2)) as results:
        assert next(results) == 0
        assert next(results) == 1
    assert asked == [0, 1, 2, 3]
