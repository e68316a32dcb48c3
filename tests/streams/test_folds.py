"""What holds for folds whatever happens: order, repeats, crashes, conservation."""

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import codec
from odradek.schemas.events import (
    Batch,
    Conversation,
    Episode,
    EpisodeOpened,
    GroupOpened,
    Outcome,
    Tick,
)
from odradek.schemas.topics import BATCHES, DLQ, EPISODES
from odradek.streams.partition import StagePartition
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from tests.support.schemas.event_builders import (
    Log,
    aborted,
    episode,
    expected,
    opened,
    reward,
    sealed,
    tell,
    turn,
)

TURNS_OF = {
    "w1": [turn(seq=n, base=f"e1/w1/{n - 1}" if n else "", prefix=3 * n) for n in range(4)],
    "w2": [
        turn(seq=n, writer="w2", prompt=(5,) * (n + 1), sampled=(6,), timing=turn().timing)
        for n in range(3)
    ],
}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_two_writers_in_any_order_with_repeats_give_one_episode(data):
    """Arrival before the seal is at least once and unordered; the episode is one and the same."""
    every = [*TURNS_OF["w1"], *TURNS_OF["w2"]]
    order = data.draw(st.permutations(every))
    repeats = data.draw(st.lists(st.sampled_from(every), max_size=4))
    plain, _ = tell(ASSEMBLE, [opened(), *every, reward(), sealed(n=4)])
    mixed, letters = tell(ASSEMBLE, [opened(), *order, *repeats, reward(), sealed(n=4)])
    assert [codec.encode(plain[-1])] == [codec.encode(mixed[-1])]
    assert [] == letters


NAMES = ["a", "b", "c"]
turn_events = st.sampled_from(NAMES).flatmap(
    lambda name: st.sampled_from(
        [
            opened(name),
            opened(name, last_attempt=False),
            turn(name, seq=0),
            turn(name, seq=1, prompt=(1, 2, 3)),
            reward(name),
            reward(name, value=0.0),
            sealed(name, n=1),
            sealed(name, n=2, outcome=Outcome.FAILED),
            aborted(name, retry=True),
        ]
    )
)
group_events = st.sampled_from(["t1", "t2"]).flatmap(
    lambda task: st.sampled_from(
        [
            expected(task, size=3),
            *(episode(n, task=task) for n in range(3)),
            episode(0, f"{task}-again", task=task),
            episode(1, f"{task}-lost", task=task, outcome=Outcome.HOST_LOST, reward=None),
            episode(2, f"{task}-r", task=task, outcome=Outcome.HOST_LOST, reward=None, retry=True),
        ]
    )
)


def history(events):
    """Events with times that do not run back, Ticks among them."""
    steps = st.tuples(
        st.one_of(events, events, events, st.just(Tick())), st.sampled_from([0, 1, 9])
    )
    return st.lists(steps, max_size=40)


def logged(stage, told):
    log = Log(stage.source)
    now = 0.0
    for event, later in told:
        now += later
        log.add(event, now)
    return log.records


def crashing(stage, records, cuts):
    """What is written by owners that die after these many records each."""
    out, low, done, at = [], 0, 0, 0
    for cut in sorted({*cuts, len(records)}):
        partition = StagePartition(stage, 0, low, done)
        out += partition.feed(record for record in records[:cut] if record.offset >= low)
        at = max(at, cut)
        low, done = partition.low_water, max(done, partition.position)
    return out


@settings(max_examples=300, deadline=None)
@given(history(turn_events), st.lists(st.integers(0, 40), max_size=4))
def test_crashes_change_nothing_that_the_assembler_writes(told, cuts):
    """A new owner, from the low-water mark and silent below the done mark, goes on unseen."""
    records = logged(ASSEMBLE, told)
    whole = StagePartition(ASSEMBLE, 0).feed(records)
    assert whole == crashing(ASSEMBLE, records, [cut for cut in cuts if cut <= len(records)])


@settings(max_examples=300, deadline=None)
@given(history(group_events), st.lists(st.integers(0, 40), max_size=4))
def test_crashes_change_nothing_that_the_grouper_writes(told, cuts):
    """The same for groups."""
    records = logged(GROUP, told)
    whole = StagePartition(GROUP, 0).feed(records)
    assert whole == crashing(GROUP, records, [cut for cut in cuts if cut <= len(records)])


def test_a_repeated_opening_raises_no_ghost_after_a_crash():
    """A new owner never begins between an opening and its repeat while another story is open."""
    told = [
        (opened("c"), 0),
        (opened("a"), 9),
        (opened("c"), 0),
        (Tick(), 9),
        (turn("c"), 0),
        (Tick(), 100),
    ]
    records = logged(ASSEMBLE, told)
    whole = StagePartition(ASSEMBLE, 0).feed(records)
    for cut in range(len(records) + 1):
        assert whole == crashing(ASSEMBLE, records, [cut])


def test_a_mark_that_is_held_lower_keeps_in_mind_what_lies_above_it():
    """Two stories whose openings were repeated, the second holding the mark below the first's."""
    told = [
        (opened("b"), 0),
        (opened("a"), 0),
        (opened("b"), 10),
        (opened("c"), 0),
        (opened("a"), 0),
        (Tick(), 9),
        (turn("b"), 0),
        (Tick(), 100),
    ]
    records = logged(ASSEMBLE, told)
    whole = StagePartition(ASSEMBLE, 0).feed(records)
    for cut in range(len(records) + 1):
        assert whole == crashing(ASSEMBLE, records, [cut])


def test_a_repeated_task_raises_no_ghost_after_a_crash():
    """The same for a task that is announced twice."""
    told = [
        (expected("t1", size=1), 0),
        (expected("t2"), 9),
        (expected("t1", size=1), 0),
        (episode(0), 9),
        (episode(0, "late"), 0),
        (Tick(), 100),
    ]
    records = logged(GROUP, told)
    whole = StagePartition(GROUP, 0).feed(records)
    for cut in range(len(records) + 1):
        assert whole == crashing(GROUP, records, [cut])


@settings(max_examples=200, deadline=None)
@given(history(turn_events))
def test_every_episode_that_opens_ends_once(told):
    """After a last Tick far away: as many episodes as openings, nothing left open."""
    records = logged(ASSEMBLE, [*told, (Tick(), 1000)])
    partition = StagePartition(ASSEMBLE, 0)
    out = partition.feed(records)
    episodes = [codec.decode(one.value, Episode) for one in out if one.topic == EPISODES.name]
    open_now: set[str] = set()
    # A model with a set: an episode is open from its first EpisodeOpened until its Episode is written.
    openings = 0
    closes: Counter[int] = Counter()
    fold = ASSEMBLE.fold()
    for record in records:
        event = codec.decode(record.value, ASSEMBLE.kind)
        if isinstance(event, EpisodeOpened) and event.episode_id not in open_now:
            open_now.add(event.episode_id)
            openings += 1
        for output in fold.feed(record, event):
            made = getattr(output, "event", None)
            if isinstance(made, Episode):
                open_now.remove(made.episode_id)
                closes[record.offset] += 1
            assert not isinstance(made, Conversation) or made.episode_id == event.episode_id
    assert openings == len(episodes) == closes.total()
    assert (0, partition.position) == (partition.fold.open(), partition.low_water)


@settings(max_examples=200, deadline=None)
@given(history(group_events))
def test_every_group_closes_once_and_names_each_sample_once(told):
    """Samples asked for = episodes in batches + exclusions, whatever came."""
    records = logged(GROUP, [*told, (Tick(), 1000)])
    out = StagePartition(GROUP, 0).feed(records)
    batches = [codec.decode(one.value, Batch) for one in out if one.topic == BATCHES.name]
    for batch in batches:
        named = [one.sample for one in batch.episodes] + [one.sample for one in batch.exclusions]
        assert [0, 1, 2] == sorted(named)
        assert bool(batch.episodes) != bool(batch.empty_reason)
    letters = [one for one in out if one.topic == DLQ.name]
    asked = sum(isinstance(event, GroupOpened) for event, _ in told)
    again = sum(b"duplicate_task" in dict(one.headers).values() for one in letters)
    assert asked == len(batches) + again


@given(st.binary(max_size=60))
def test_no_bytes_stop_a_lane(junk):
    """Whatever stands on the topic, the record after it is folded."""
    log = Log()
    log.add(opened())
    log.add(junk, key="e1")
    log.add(aborted())
    out = StagePartition(ASSEMBLE, 0).feed(log.records)
    assert [EPISODES.name] == [one.topic for one in out if one.topic != DLQ.name]


def test_a_fold_over_the_same_log_writes_the_same_bytes():
    """Headers, too: times are the log's, ids derive from what they name."""
    log = Log()
    for event in (opened(), turn(), reward(), sealed()):
        log.add(event, 5.0)
    first, second = (StagePartition(ASSEMBLE, 0).feed(log.records) for _ in range(2))
    assert first == second
    assert {"1970-01-01T00:00:05Z"} == {codec.header(one.headers, "ce_time") for one in first}
    assert ["odradek.conversation.v1", "odradek.episode.v1"] == [
        codec.header(one.headers, "ce_type") for one in first
    ]


def test_an_episode_too_large_for_a_record_says_so():
    """It ends as incomplete without its tokens, so that its group goes on."""
    big = list(range(1_000_000))
    told = [opened(), *(turn(seq=n, prompt=big, sampled=(n,)) for n in range(4))]
    out, _ = tell(ASSEMBLE, [*told, reward(), sealed(n=4)])
    made = out[-1]
    assert (Outcome.INCOMPLETE, (), None) == (made.outcome, made.sequences, made.reward)
    assert "too_large" in made.error
    assert len(msgspec.json.encode(made)) < EPISODES.max_bytes
