"""The order in which CI runs files of tests."""

from pathlib import Path

import pytest

from tests.support.suite.file_order import longest_first


class Item:
    """A test, as far as its order goes."""

    def __init__(self, file: str, *timeout: float) -> None:
        self.path = Path(file)
        self._mark = pytest.mark.timeout(*timeout).mark if timeout else None

    def get_closest_marker(self, name: str) -> object:
        return self._mark if name == "timeout" else None


def test_a_file_that_may_take_long_begins_first():
    """Files stay whole and in their order, but for those with a time-out of their own."""
    files = ["a", "a", "b", "c", "d", "d", "e"]
    items = [Item(file) for file in files]
    items[3] = Item("c", 240)
    items[5] = Item("d", 900)
    assert ["d", "d", "c", "a", "a", "b", "e"] == [str(one.path) for one in longest_first(items)]
