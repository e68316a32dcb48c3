"""Which batches are meant: each filter held against what it says in words."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odradek.schemas.events import Batch, Episode, Pointer, Sequence, VersionSpan
from odradek.streams.errors import ReplayRefused
from odradek.streams.history import CountSpan, RewardSpan, Selection
from odradek.streams.history.pace import Pace

names = st.sampled_from(["a", "b", "c"])
some = st.lists(names, max_size=2, unique=True).map(tuple)
counts = st.integers(0, 6)
rewards = st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def count_spans(draw):
    first = draw(st.none() | counts)
    return CountSpan(first, draw(st.none() | st.integers((first or 0) + 1, 8)))


@st.composite
def reward_spans(draw):
    low, high = sorted((draw(rewards), draw(rewards)))
    return RewardSpan(low, high, draw(st.sampled_from(["", "right"])))


selections = st.builds(
    Selection,
    offsets=st.none() | count_spans(),
    steps=st.none() | count_spans(),
    since=st.just(-math.inf) | st.floats(0, 6),
    until=st.just(math.inf) | st.floats(0, 6),
    tasks=some,
    items=some,
    agents=some,
    versions=st.none() | count_spans(),
    reward=st.none() | reward_spans(),
)


@st.composite
def groups(draw):
    """A batch, and its episodes."""
    pairs = []
    for sample in range(draw(st.integers(0, 3))):
        reward = draw(rewards)
        versions = draw(st.lists(counts, max_size=2).map(sorted))
        spans = tuple(VersionSpan(version, n, n + 1) for n, version in enumerate(versions))
        pointer = Pointer(
            episode_id=f"e{sample}", sample=sample, topic="t", partition=0, offset=sample,
            digest="", reward=reward,
        )  # fmt: skip
        episode = Episode(
            episode_id=f"e{sample}", task_id="a", agent="a", sample=sample, group_size=3,
            components=draw(st.dictionaries(st.just("right"), rewards)),
            sequences=(Sequence(versions=spans),),
        )  # fmt: skip
        pairs.append((pointer, episode))
    batch = Batch(
        task_id=draw(names), item=draw(names), agent=draw(names), group_size=3,
        episodes=tuple(pointer for pointer, _ in pairs),
    )  # fmt: skip
    return batch, pairs


def in_span(span, number):
    first = 0 if span.first is None else span.first
    return number in range(first, 1000 if span.last is None else span.last)


def in_words(selection, batch, pairs, offset, timestamp, used):
    """The same, filter by filter, as the help of the options says it."""
    of_batch = [
        selection.offsets is None or in_span(selection.offsets, offset),
        selection.steps is None or offset in used,
        selection.since <= timestamp < selection.until,
        not selection.tasks or batch.task_id in selection.tasks,
        not selection.items or batch.item in selection.items,
        not selection.agents or batch.agent in selection.agents,
    ]
    reward, versions = selection.reward, selection.versions
    if reward is None and versions is None:
        return all(of_batch)
    return all(of_batch) and any(
        (
            reward is None
            or reward.low
            <= (
                episode.components.get(reward.component, math.nan)
                if reward.component
                else pointer.reward
            )
            <= reward.high
        )
        and (
            versions is None
            or any(in_span(versions, span.version) for span in episode.sequences[0].versions)
        )
        for pointer, episode in pairs
    )


@given(selection=selections, group=groups(), offset=counts, timestamp=st.floats(0, 6),
       used=st.frozensets(counts))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_batch_is_taken_where_each_filter_says_so(selection, group, offset, timestamp, used):
    """Filters of batches hold, and one episode passes all filters of episodes."""
    batch, pairs = group
    taken = selection.takes_batch(batch, offset=offset, timestamp=timestamp, used=used)
    if taken and selection.reads_episodes:
        taken = any(selection.takes_episode(*pair) for pair in pairs)
    assert in_words(selection, batch, pairs, offset, timestamp, used) == taken


@given(span=count_spans())
def test_a_span_is_read_as_it_is_written(span):
    """As people type it."""
    assert span == CountSpan.parse(str(span))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0.5:", RewardSpan(0.5)),
        (":0.5", RewardSpan(high=0.5)),
        ("1", RewardSpan(1, 1)),
        ("right=0:0", RewardSpan(0, 0, "right")),
        ("a=b=-1:1", RewardSpan(-1, 1, "a=b")),
    ],
)
def test_a_span_of_rewards_includes_both_ends(text, span):
    """And a number alone is both."""
    assert span == RewardSpan.parse(text)
    assert all(span.takes(end) for end in (span.low, span.high) if math.isfinite(end))
    assert not span.takes(None)


@pytest.mark.parametrize("text", ["", "1:0", "x", "right=", "=0:1", "nan:1", "0:nan"])
def test_what_is_no_span_of_rewards_is_refused(text):
    """In one line that shows one."""
    with pytest.raises(ReplayRefused, match="LOW:HIGH"):
        RewardSpan.parse(text)


def test_a_step_alone_is_a_span_of_one():
    """Offsets alone are refused: an offset is easily taken for a count."""
    assert CountSpan(812, 813) == CountSpan.parse("812", "steps", alone=True)
    with pytest.raises(ReplayRefused, match="12, 0:40"):
        CountSpan.parse("x", "steps", alone=True)


@pytest.mark.parametrize(
    ("text", "due"), [("4", [0.0, 0.25, 0.5]), ("0.5", [0.0, 2.0, 4.0]), ("recorded", [0, 3, 7])]
)
def test_a_pace_says_when_each_batch_is_due(text, due):
    """By their number, or as far apart as they were."""
    pace = Pace.parse(text)
    assert due == [pace.due(n, written, 100.0) for n, written in enumerate((100.0, 103.0, 107.0))]
    assert not pace.is_full


def test_full_speed_waits_for_nothing():
    """Whenever a batch was written."""
    assert [0, 0] == [Pace().due(n, 100.0 * n, 0.0) for n in range(2)]


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "fast"])
def test_what_is_no_pace_is_refused(text):
    """In one line that shows one."""
    with pytest.raises(ReplayRefused, match="recorded"):
        Pace.parse(text)
