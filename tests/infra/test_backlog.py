"""Which records of a partition are finished, whatever order they finish in and whoever dies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from odradek.infra.bus import offsets as backlog
from odradek.infra.bus.offsets import OffsetTracker
from odradek.infra.errors import TakenTwice


def taken(*offsets: int, position: int = 0, metadata: str = "") -> OffsetTracker:
    found = OffsetTracker(position, metadata)
    for offset in offsets:
        found.take(offset)
    return found


def test_the_mark_is_the_oldest_unfinished_record():
    """However many behind it are finished; with nothing unfinished, the next to be read."""
    found = taken(5, 6, 9, position=5)
    assert (5, 10, 3) == (found.low_water, found.next, found.unfinished)
    found.finish(6)
    found.finish(9)
    assert (5, 1) == (found.low_water, found.unfinished)
    found.finish(5)
    assert (10, 0, "") == (found.low_water, found.unfinished, found.metadata)


def test_an_offset_is_taken_once():
    """What comes again was fetched before a seek: to take it twice would be to lose count."""
    found = taken(5, position=5)
    with pytest.raises(TakenTwice):
        found.take(5)


def test_a_successor_is_given_what_is_unfinished_and_no_more():
    """A slow record does not make those behind it come again."""
    found = taken(*range(100))
    for offset in set(range(100)) - {3, 7, 50}:
        found.finish(offset)
    assert (3, "1;97;0,4,47") == (found.low_water, found.metadata)
    after = OffsetTracker(found.low_water, found.metadata)
    assert [3, 7, 50, 100, 101] == [offset for offset in range(3, 102) if after.take(offset)]


def test_a_successor_that_dies_early_hands_on_what_it_was_told():
    """It has read only a part of what its predecessor told of."""
    found = taken(*range(10))
    for offset in set(range(10)) - {3, 8}:
        found.finish(offset)
    second = taken(3, 4, position=found.low_water, metadata=found.metadata)
    assert (3, "1;7;0,5") == (second.low_water, second.metadata)
    second.finish(3)
    third = OffsetTracker(second.low_water, second.metadata)
    assert [8, 10] == [offset for offset in range(second.low_water, 11) if third.take(offset)]


def test_metadata_stay_within_what_kafka_takes():
    """The list ends early then; what is behind its end is given again."""
    found = taken(*range(100_000))
    for offset in range(1, 100_000, 2):
        found.finish(offset)
    assert len(found.metadata) <= backlog.LARGEST
    after = OffsetTracker(found.low_water, found.metadata)
    again = [offset for offset in range(100_000) if after.take(offset)]
    assert set(range(0, 100_000, 2)) <= set(again)
    assert again[:500] == list(range(0, 1000, 2))


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "done=7",
        "2;5;0",
        "1;x;0",
        "1;5;a",
        "1;5",
        "1;5;3,1",
        "1;5;1,1",
        "1;" + "9" * 5000 + ";0",
    ],
)
def test_metadata_of_others_are_no_news(metadata):
    """An offset that was set by hand, another version, or damage: everything is given."""
    found = OffsetTracker(5, metadata)
    assert all(found.take(offset) for offset in range(5, 12))


@given(st.text(max_size=30), st.integers(0, 100))
@settings(deadline=None)
def test_no_metadata_break_a_backlog(metadata, position):
    """Whatever stands there, reading begins."""
    found = OffsetTracker(position, metadata)
    found.take(position)
    assert found.low_water in {position, position + 1}


class Lives(RuleBasedStateMachine):
    """Owners of a partition die at any point; what was committed is all that a successor has."""

    @initialize(gaps=st.lists(st.integers(1, 3), min_size=1, max_size=40))
    def begin(self, gaps: list[int]) -> None:
        self.log = [sum(gaps[: n + 1]) for n in range(len(gaps))]
        self.committed: tuple[int, str] = (0, "")
        self.done: set[int] = set()
        self.safe: set[int] = set()
        """Done when the last commit was made, and told in it."""
        self.again = 0
        self._live()

    def _live(self) -> None:
        self.backlog = OffsetTracker(*self.committed)
        self.under_way: list[int] = []
        self.heard = set(self.safe)
        """Done as far as this life can know."""

    @rule()
    def read(self) -> None:
        offset = next((one for one in self.log if one >= self.backlog.next), None)
        if offset is None:
            return
        if self.backlog.take(offset):
            assert offset not in self.safe, "judged again although the commit knew"
            self.under_way.append(offset)
        else:
            assert offset in self.done

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.done.add(offset)
        self.heard.add(offset)
        self.backlog.finish(offset)

    @rule()
    def commit(self) -> None:
        self.committed = (self.backlog.low_water, self.backlog.metadata)
        self.safe = set(self.heard)

    @rule()
    def die(self) -> None:
        self._live()

    @invariant()
    def nothing_is_passed_over(self) -> None:
        if hasattr(self, "log"):
            below = {offset for offset in self.log if offset < self.backlog.low_water}
            assert below <= self.done
            assert self.backlog.low_water >= self.committed[0]

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.die()
            for offset in self.log:
                if offset >= self.backlog.next and self.backlog.take(offset):
                    self.backlog.finish(offset)
                    self.done.add(offset)
            assert set(self.log) == self.done


TestLives = Lives.TestCase
TestLives.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
