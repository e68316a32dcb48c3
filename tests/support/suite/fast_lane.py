"""Which tests `--fast` runs: no broker, no torch, no processes, and some rows of each long table.

Property tests try a tenth of their examples, at least ten.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import settings

ROWS = 4
"""Cases of one test function that are run; those of longer tables are taken evenly."""
FEWEST = 10
"""Examples of a property test at least."""
NEEDED = ("broker", "torch", "slow", "demo", "processes")
"""Marks of tests that are left out. A test that asks for the fixture `broker` counts as marked."""
WHOLE_FILE = re.compile(
    rf"^pytestmark = .*mark\.(?:{'|'.join(NEEDED)})\b|^import torch\b|importorskip\(.torch", re.MULTILINE
)  # fmt: skip


def left_out(path: Path) -> bool:
    """Whether nothing of a file, or of a folder with this `conftest.py`, is to be imported."""
    if path.is_dir():
        path /= "conftest.py"
    return path.suffix == ".py" and path.is_file() and bool(WHOLE_FILE.search(path.read_text()))


def fast_lane(items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """What is run and what is left out, both in their order."""
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tables[item.nodeid.partition("[")[0]].append(item)
    run: list[pytest.Item] = []
    rest: list[pytest.Item] = []
    for table in tables.values():
        quick = [item for item in table if not needs_more(item)]
        taken = {evenly * len(quick) // ROWS for evenly in range(ROWS)}
        for place, item in enumerate(quick):
            (run if place in taken else rest).append(item)
        rest += [item for item in table if needs_more(item)]
    for item in run:
        with_fewer_examples(item)
    return run, rest


def with_fewer_examples(item: pytest.Item) -> None:
    """Let a property test try a tenth of its examples."""
    # The attribute from which Hypothesis's own plugin reads them: `@settings` goes before a profile.
    function = getattr(item, "obj", None)
    if whole := getattr(function, "_hypothesis_internal_use_settings", None):
        few = max(FEWEST, whole.max_examples // 10)
        function._hypothesis_internal_use_settings = settings(
            whole, max_examples=min(few, whole.max_examples)
        )


def needs_more(item: pytest.Item) -> bool:
    """Whether a test needs a broker, torch, processes of its own or ten seconds."""
    return "broker" in getattr(item, "fixturenames", ()) or any(
        item.get_closest_marker(mark) for mark in NEEDED
    )
