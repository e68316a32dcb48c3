"""In which order the files of tests run."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Tests whose file may take long by its own time-out come first, all else in its order.

    Two files run at a time: a long one that began last would have nobody beside it.
    """
    found = list(items)
    may_s: dict[Path, float] = defaultdict(float)
    for item in found:
        mark = item.get_closest_marker("timeout")
        if mark is not None and mark.args:
            may_s[item.path] = max(may_s[item.path], float(mark.args[0]))
    return sorted(found, key=lambda item: -may_s[item.path])
