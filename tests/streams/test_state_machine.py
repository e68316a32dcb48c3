"""The assembler against a dict: whatever is delivered, repeated, reordered, late or crashed.

CI runs a small profile. The whole of it, 10,000 runs of 50 steps:

    ODRADEK_STATE_MACHINE=10000 scripts/test tests/streams/test_state_machine.py --timeout 0
"""

import os
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from odradek.schemas import codec
from odradek.schemas.events import Episode, Outcome, Tick, Timeouts
from odradek.schemas.topics import DLQ, EPISODES, REVISIONS
from odradek.streams.partition import StagePartition
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.schemas.event_builders import Log, aborted, opened, reward, sealed, tell, turn

RUNS = int(os.environ.get("ODRADEK_STATE_MACHINE", "60"))
TIMES = Timeouts(call_s=5, attempt_s=20, seal_s=5, reward_s=10, group_s=60)
NAMES = [f"e{number}" for number in range(3)]


class Model:
    """What a plain dict knows of an open episode."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.turns: set[tuple[str, int]] = set()
        self.reward: float | None = None
        self.sealed: int | None = None
        self.ended = 0.0


class Machine(RuleBasedStateMachine):
    """Two writers a story; a partition that may be lost at any step and rebuilt from its marks."""

    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.now = 0.0
        self.partition = StagePartition(ASSEMBLE, 0)
        self.marks = (0, 0)
        self.open: dict[str, Model] = {}
        self.wanted: list[tuple[str, str, int, float | None]] = []
        """(episode, outcome, turns, reward) as the model ends them."""
        self.letters = 0
        self.late = 0
        self.revisions = 0
        self.written: list[tuple[str, str, int, float | None]] = []
        self.dead = 0
        self.uncommitted = False

    # -- the log

    def _append(self, event: object) -> None:
        record = self.log.add(event, self.now)
        out = self.partition.feed([record])
        for one in out:
            if one.topic == EPISODES.name:
                made = codec.decode(one.value, Episode)
                self.written.append(
                    (made.episode_id, made.outcome.value, made.n_turns, made.reward)
                )
            elif one.topic == DLQ.name:
                self.dead += 1
            elif one.topic == REVISIONS.name:
                self.revisions += 1
        # Results and marks are committed together: a crash comes before both or after both.
        self.marks = (self.partition.low_water, self.partition.position)

    def _end(self, name: str, outcome: Outcome, value: float | None) -> None:
        story = self.open.pop(name)
        self.wanted.append((name, outcome.value, len(story.turns), value))

    # -- what may happen

    @rule(name=st.sampled_from(NAMES))
    def opens(self, name: str) -> None:
        """EpisodeOpened, or EpisodeOpened once more, or opened anew after its end."""
        self._append(opened(name, timeouts=TIMES, last_attempt=True))
        self.open.setdefault(name, Model(self.now))

    @rule(
        name=st.sampled_from(NAMES),
        writer=st.sampled_from(["w1", "w2"]),
        seq=st.integers(0, 3),
        times=st.integers(1, 2),
    )
    def speaks(self, name: str, writer: str, seq: int, times: int) -> None:
        """A turn in any order, perhaps twice, perhaps late."""
        for _ in range(times):
            self._append(turn(name, seq, writer=writer))
            story = self.open.get(name)
            if story is None or story.sealed is not None:
                self.letters += 1
            else:
                story.turns.add((writer, seq))

    @rule(name=st.sampled_from(NAMES), value=st.sampled_from([0.0, 1.0]))
    def judges(self, name: str, value: float) -> None:
        """A reward; the first counts, an equal one is a repeat."""
        self._append(reward(name, value))
        story = self.open.get(name)
        if story is None:
            self.late += 1
        elif story.reward is not None and story.reward != value:
            self.letters += 1
        elif story.reward is None:
            story.reward = value
            if story.sealed is not None:
                self._end(name, Outcome.COMPLETED, value)

    @rule(name=st.sampled_from(NAMES), whole=st.booleans(), failed=st.booleans())
    def seals(self, name: str, whole: bool, failed: bool) -> None:
        """EpisodeSealed, saying how many turns there are: sometimes one more than came."""
        story = self.open.get(name)
        mine = {seq for writer, seq in story.turns if writer == "w1"} if story else set()
        other = {seq for writer, seq in story.turns if writer == "w2"} if story else set()
        n = len(mine) if whole else len(mine) + 1
        outcome = Outcome.FAILED if failed else Outcome.COMPLETED
        self._append(sealed(name, n=n, outcome=outcome))
        if story is None or story.sealed is not None:
            self.letters += 1
            return
        gap = mine != set(range(n)) or other != set(range(len(other)))
        if gap:
            self._end(name, Outcome.INCOMPLETE, None)
        elif failed:
            self._end(name, Outcome.FAILED, 0.0)
        elif story.reward is not None:
            self._end(name, Outcome.COMPLETED, story.reward)
        else:
            story.sealed, story.ended = n, self.now

    @rule(name=st.sampled_from(NAMES))
    def aborts(self, name: str) -> None:
        """The host gives up."""
        self._append(aborted(name))
        story = self.open.get(name)
        if story is None or story.sealed is not None:
            self.letters += 1
        else:
            self._end(name, Outcome.HOST_LOST, None)

    @rule(
        later=st.sampled_from([0.0, 1.0, 9.0, 15.0, 24.0]),
        skew=st.sampled_from([-600.0, 0.0, 600.0]),
    )
    def expires(self, later: float, skew: float) -> None:
        """A Tick, by a driver whose clock is wrong: only the broker's time counts."""
        self.now += later
        self.partition.fold.overdue(self.now + skew)
        self._append(Tick(writer="assemble"))
        for name in list(self.open):
            story = self.open[name]
            if story.sealed is not None and story.ended + TIMES.reward_s <= self.now:
                self._end(name, Outcome.UNREWARDED, None)
            elif story.sealed is None and story.at + TIMES.attempt_s + TIMES.seal_s <= self.now:
                self._end(name, Outcome.HOST_LOST, None)

    @rule()
    def crashes(self) -> None:
        """A new owner reads from the low-water mark, and is silent below the done mark."""
        low, done = self.marks
        self.partition = StagePartition(ASSEMBLE, 0, low, done)
        again = self.partition.feed(record for record in self.log.records if record.offset >= low)
        assert [] == again

    @rule(junk=st.sampled_from([b"{", b"null", b'{"type":"nonsense"}']))
    def poisons(self, junk: bytes) -> None:
        """What is no event."""
        self._append_raw(junk)

    def _append_raw(self, junk: bytes) -> None:
        record = self.log.add(junk, self.now, key="e0")
        self.dead += len(self.partition.feed([record]))
        self.letters += 1
        self.marks = (self.partition.low_water, self.partition.position)

    # -- what must hold

    @invariant()
    def the_dict_agrees(self) -> None:
        """As many open, the same episodes, as many letters."""
        assert len(self.open) == self.partition.fold.open()
        assert sorted(self.wanted, key=str) == sorted(self.written, key=str)
        assert self.letters == self.dead
        assert self.late == self.revisions

    @invariant()
    def nothing_pins_the_mark(self) -> None:
        """With nothing open the low-water mark is the position."""
        if not self.open:
            assert self.partition.position == self.partition.low_water
        assert self.partition.low_water <= self.partition.position


Machine.TestCase.settings = settings(
    max_examples=RUNS,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


class TestAssemblerAgainstADict(Machine.TestCase):
    """The fold and a plain dict never disagree."""


def every_order() -> Iterator[tuple[int, ...]]:
    yield from permutations(range(5))


@pytest.mark.parametrize("repeated", [None, 0, 2, 4])
def test_every_order_of_five_turns_gives_one_result(repeated):
    """Duplicates among them, before the seal: the same bytes each time."""
    turns = [
        turn(seq=n, base=f"e1/w1/{n - 1}" if n else "", prefix=3 * n, sampled=(n, n))
        for n in range(5)
    ]
    results = set()
    for order in every_order():
        said = [turns[n] for n in order]
        if repeated is not None:
            said.insert(order.index(repeated), turns[repeated])
            said.append(turns[repeated])
        out, letters = tell(ASSEMBLE, [opened(), *said, reward(), sealed(n=5)])
        results.add(tuple(codec.encode(one) for one in out))
        assert [] == letters
    assert 1 == len(results)
