"""The table of the tests of exact fits, as t.csv."""

import pytest

from tests.exact.test_exact import write_table


@pytest.fixture
def table():
    write_table()
