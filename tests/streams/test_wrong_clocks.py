"""Wrong clocks: a driver's clock decides when to append a Tick, and nothing else."""

from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Outcome, Tick, Timeouts
from odradek.schemas.topics import BATCHES, EPISODES
from odradek.streams.partition import StagePartition
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from tests.support.schemas.event_builders import (
    Log,
    episode,
    expected,
    opened,
    reward,
    sealed,
    turn,
)

TIMES = Timeouts(call_s=5, attempt_s=20, seal_s=5, reward_s=10, group_s=60)
TURN_EVENTS = [
    event
    for name in ("a", "b", "c")
    for event in (opened(name, timeouts=TIMES), turn(name), reward(name), sealed(name))
]
GROUP_EVENTS = [
    event
    for task in ("t1", "t2")
    for event in (expected(task), episode(0, task=task), episode(1, task=task))
]
skews = st.floats(-600, 600)


def driven(stage, told, skew, *, polls=1.0):
    """What a driver writes whose clock is wrong by `skew`: it polls, and appends Ticks."""
    log, partition, out = Log(stage.source), StagePartition(stage, 0), []
    now = next_poll = 0.0
    for event, later in told:
        now += later
        while next_poll < now:
            if partition.fold.overdue(next_poll + skew):
                out += partition.feed([log.add(Tick(writer=stage.name), next_poll)])
            next_poll += polls
        out += partition.feed([log.add(event, now)])
    return out, log


def history(events):
    """Events at times that do not run back."""
    return st.lists(
        st.tuples(st.sampled_from(events), st.sampled_from([0.0, 0.5, 3.0, 9.0])), max_size=30
    )


@settings(max_examples=150, deadline=None)
@given(history(TURN_EVENTS), skews)
def test_no_episode_expires_before_the_brokers_time_says_so(told, skew):
    """Ten minutes off either way: what closes by a deadline closes after it."""
    out, _ = driven(ASSEMBLE, told, skew)
    made = [codec.decode(one.value, Episode) for one in out if one.topic == EPISODES.name]
    for one in made:
        if one.outcome is Outcome.HOST_LOST:
            assert one.closed_at - one.opened_at >= TIMES.attempt_s + TIMES.seal_s


@settings(max_examples=150, deadline=None)
@given(history(TURN_EVENTS), st.floats(0, 600))
def test_a_clock_that_is_ahead_changes_no_byte(told, skew):
    """Its Ticks come early and are passed over; what they close, a right clock closes as well."""
    right, _ = driven(ASSEMBLE, told, 0.0)
    ahead, _ = driven(ASSEMBLE, told, skew)
    assert [one.value for one in right] == [one.value for one in ahead]


@settings(max_examples=150, deadline=None)
@given(history(GROUP_EVENTS), skews)
def test_no_group_closes_before_the_brokers_time_says_so(told, skew):
    """A sample is `missing` only once the group's deadline has passed in the log."""
    out, log = driven(GROUP, told, skew)
    began = {}
    for record in log.records:
        event = codec.decode(record.value, GROUP.kind)
        if type(event).__name__ == "GroupOpened":
            began.setdefault(event.task_id, record.timestamp)
    latest = log.records[-1].timestamp if log.records else 0.0
    for one in out:
        if one.topic == BATCHES.name:
            batch = codec.decode(one.value, Batch)
            if any(left.reason == "missing" for left in batch.exclusions):
                assert latest >= began[batch.task_id] + 60


@settings(max_examples=100, deadline=None)
@given(history(TURN_EVENTS), skews, skews)
def test_whoever_folds_a_log_folds_it_the_same(told, skew, other):
    """The Ticks of two drivers with different clocks: a fold over either's log repeats it."""
    for wrong in (skew, other):
        out, log = driven(ASSEMBLE, told, wrong)
        assert out == StagePartition(ASSEMBLE, 0).feed(log.records)
