"""The suite's own rules: which tests `--fast` runs, and how long each part may take."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.suite.fast_lane import ROWS, WHOLE_FILE, fast_lane
from tests.support.suite.part_times import LAST_RUN, ROOT, budgets, part_of

TEN_MINUTES_OF_FOUR_PROCESSES_S = 2400


class Item:
    """A test as far as `fast_lane` looks at it."""

    def __init__(self, nodeid, *, marks=(), fixtures=()):
        self.nodeid, self.marks, self.fixturenames = nodeid, marks, fixtures

    def get_closest_marker(self, name):
        return name if name in self.marks else None


def test_the_fast_lane_has_some_rows_of_each_table_from_its_first_to_its_end():
    """Evenly, so that a table's end is not forgotten; a short table is run whole."""
    long = [Item(f"t.py::wide[{n}]") for n in range(40)]
    short = [Item(f"t.py::narrow[{n}]") for n in range(ROWS)]
    run, rest = fast_lane([*long, *short, Item("t.py::plain")])
    assert [0, 10, 20, 30] == [long.index(item) for item in run if item in long]
    assert [*short, "t.py::plain"] == [
        item if item in short else item.nodeid for item in run[ROWS:]
    ]
    assert 40 - ROWS == len(rest)


@pytest.mark.parametrize(
    "needy",
    [
        *({"marks": (mark,)} for mark in ("broker", "torch", "slow", "demo", "processes")),
        {"fixtures": ("tmp_path", "broker")},
    ],
    ids=str,
)
def test_the_fast_lane_needs_no_broker_no_torch_and_no_processes(needy):
    """A mark or the broker's fixture keeps a test out."""
    test = Item("t.py::test", **needy)
    assert ([], [test]) == fast_lane([test])


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("pytestmark = pytest.mark.torch", True),
        ("pytestmark = [pytest.mark.demo, pytest.mark.timeout(900)]", True),
        ('pytest.importorskip("torch")', True),
        ("import torch", True),
        ("    import torch", False),
        ("@pytest.mark.torch", False),
        ("pytestmark = pytest.mark.timeout(9)", False),
    ],
)
def test_a_file_that_needs_them_as_a_whole_is_not_imported(line, whole):
    """Importing torch alone takes seconds."""
    assert whole is bool(WHOLE_FILE.search(f"import os\n{line}\n"))


def test_each_folder_of_tests_has_one_share_of_the_time():
    """And the shares are ten minutes of two cores at most."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    named = [path for paths, _ in budgets().values() for path in paths]
    assert len(named) == len(set(named))
    assert set(named) >= folders
    assert "trainer" == part_of("tests/trainer/test_rows.py")
    assert TEN_MINUTES_OF_FOUR_PROCESSES_S >= sum(seconds for _, seconds in budgets().values())


def test_no_part_took_longer_than_its_share_in_the_run_that_was_kept():
    """`scripts/test --write` keeps one, of a machine that had nothing else to do."""
    took = json.loads(LAST_RUN.read_text())
    shares = {part: seconds for part, (_, seconds) in budgets().items()}
    assert shares.keys() == took.keys()
    assert {} == {part: s for part, s in took.items() if s > shares[part]}


def test_the_fast_lane_tries_a_tenth_of_the_examples_of_a_property_test_and_at_least_ten():
    """And never more than the test itself asks for."""

    def lane(examples):
        @settings(max_examples=examples)
        @given(st.none())
        def claim(_):
            pass

        item = Item("t.py::claim")
        item.obj = claim
        fast_lane([item])
        return claim._hypothesis_internal_use_settings.max_examples

    assert [(400, 40), (60, 10), (5, 5)] == [
        (examples, lane(examples)) for examples in (400, 60, 5)
    ]
