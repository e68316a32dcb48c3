"""Children of an episode: part of its record, waited for, worth what the task's rule says."""

import gc
import itertools
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.schemas import codec
from odradek.schemas.events import (
    Batch,
    ChildEpisode,
    Conversation,
    Episode,
    EpisodeAborted,
    EpisodeSealed,
    Outcome,
    Reward,
    Tick,
)
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TURNS
from odradek.streams.partition import StagePartition
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.episode import OpenEpisode
from odradek.streams.stages.grouper import GROUP
from odradek.streams.verify import Conservation
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


def child(name="c1", parent="e1", message="m1", **more):
    """The opening of an episode that another one's agent asked for."""
    return opened(name, agent="answerer", parent=parent, message_id=message, **more)


def asked(name="c1", *, end=None, judged=None, **more):
    """All events of a child that is sealed and, where it is judged, rewarded."""
    judging = [] if judged is None else [reward(name, judged)]
    return [child(name, **more), turn(name), *judging, end or sealed(name)]


def records(events):
    out, letters = tell(ASSEMBLE, events)
    return [event for event in out if isinstance(event, Episode)], letters


def the_record(*events):
    (made,), letters = records(events)
    assert [] == letters
    return made


@pytest.mark.parametrize(
    ("rule", "judged", "worth"),
    [
        ({}, None, 0.5),
        ({"own_weight": 1.0, "parent_weight": 0.0}, 2.0, 2.0),
        ({"own_weight": 0.5, "parent_weight": 0.25}, 2.0, 1.125),
    ],
    ids=["its parent's", "its own", "a weighted sum"],
)
def test_a_child_is_part_of_its_parents_record_and_worth_what_the_rule_says(rule, judged, worth):
    """One Episode of one sample holds the sequences of both, and says whose they are."""
    made = the_record(
        opened(), turn(), *asked(judged=judged, **rule), reward(value=0.5),
        sealed(children=("c1",)),
    )  # fmt: skip
    assert (Outcome.COMPLETED, 0.5, 1) == (made.outcome, made.reward, made.n_turns)
    assert [("e1/w1/0", ""), ("c1/w1/0", "c1")] == [
        (s.turn_ids[0], s.child) for s in made.sequences
    ]
    (one,) = made.children
    assert ("c1", "e1", "answerer", worth) == (one.episode_id, one.parent, one.agent, one.reward)


def test_both_conversations_are_there_and_linked():
    """A child's conversation names the episode that asked for it."""
    out, _ = tell(ASSEMBLE, [opened(), *asked(), turn(), reward(), sealed()])
    spoken = {event.episode_id: event.parent for event in out if isinstance(event, Conversation)}
    assert {"c1": "e1", "e1": ""} == spoken


def test_a_parent_waits_for_its_child_and_for_its_childs_reward():
    """Its record is written when the last of both has ended and is rewarded."""
    events = [opened(), child(own_weight=1.0), turn(), reward(), sealed(), sealed("c1", n=0)]
    assert ([], []) == records(events)
    made = the_record(*events, reward("c1", 0.25))
    assert 1.25 == made.children[0].reward


@pytest.mark.parametrize("parents_end", [Outcome.COMPLETED, Outcome.FAILED])
@pytest.mark.parametrize(
    "lost", [aborted("c1"), sealed("c1", n=3), sealed("c1", outcome=Outcome.UPSTREAM_FAILED)]
)
def test_a_lost_child_makes_its_parent_incomplete(lost, parents_end):
    """Whoever lost it, and whatever its parent made of that; the reason names it."""
    made = the_record(
        opened(), child(), turn("c1"), lost, turn(), reward(), sealed(outcome=parents_end)
    )
    assert (Outcome.INCOMPLETE, None) == (made.outcome, made.reward)
    assert "its child c1 (answerer) is" in made.error


def test_a_child_that_nobody_ends_is_lost_at_its_own_deadline():
    """Its parent waits no longer than that."""
    told = [opened(), child(), turn(), reward(), sealed(n=1)]
    assert ([], []) == records([*told, (Tick(), 11.0)])
    made = the_record(*told, (Tick(), 12.0))
    assert Outcome.INCOMPLETE == made.outcome


def test_a_child_whose_reward_never_comes_leaves_its_parent_unrewarded():
    """As a reward of its own that never comes would."""
    told = [opened(), *asked(own_weight=1.0), turn(), reward(), sealed()]
    made = the_record(*told, (Tick(), 6.0))
    assert Outcome.UNREWARDED == made.outcome
    assert "its child c1 (answerer) is unrewarded: no reward came for game" in made.error


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_a_child_that_fails_counts_with_its_failure_reward(outcome):
    """Failing is the agent's own doing, and it is trained on it."""
    made = the_record(
        opened(),
        *asked(own_weight=1.0, failure_reward=-2.0, end=sealed("c1", outcome=outcome)),
        turn(), reward(value=1.0), sealed(),
    )  # fmt: skip
    assert (Outcome.COMPLETED, -1.0) == (made.outcome, made.children[0].reward)
    assert 2 == len(made.sequences)


def test_a_child_that_its_parent_called_off_is_left_out():
    """The parent counts without it, and its turns say why they are not trained on."""
    made = the_record(
        opened(), *asked(end=sealed("c1", outcome=Outcome.CANCELLED)), turn(), reward(), sealed()
    )
    assert (Outcome.COMPLETED, None) == (made.outcome, made.children[0].reward)
    assert {"c1/w1/0": "child_cancelled"} == made.untrained_turns


def test_the_next_attempt_of_a_child_stands_for_the_one_before():
    """The first one's turns are kept, and not trained on."""
    first = [child(last_attempt=False), turn("c1"), aborted("c1", retry=True)]
    second = asked("c2", attempt=2)
    made = the_record(opened(), *first, *second, turn(), reward(), sealed(children=("c2",)))
    assert [("c1", True, None), ("c2", False, 1.0)] == [
        (one.episode_id, one.retry, one.reward) for one in made.children
    ]
    assert {"c1/w1/0": "retried"} == made.untrained_turns
    assert Outcome.COMPLETED == made.outcome


def test_an_attempt_that_was_promised_and_never_began_is_a_lost_child():
    """Its parent has ended and waits for it as long as an attempt may take."""
    told = [opened(), child(), aborted("c1", retry=True), turn(), reward(), sealed()]
    assert ([], []) == records([*told, (Tick(), 11.9)])
    made = the_record(*told, (Tick(), 12.0))
    assert "its next attempt never began" in made.error
    late = the_record(*told, *asked("c2", attempt=2))
    assert Outcome.COMPLETED == late.outcome


@pytest.mark.parametrize("end", [aborted(), aborted(retry=True), sealed(outcome=Outcome.CANCELLED)])
def test_a_parent_that_counts_for_nothing_waits_for_nobody(end):
    """What its children do later is put aside; what they did is in its record, untrained."""
    told = [opened(), child(), turn("c1"), end]
    made = the_record(*told)
    assert {"c1/w1/0": "child_incomplete"} == made.untrained_turns
    _, letters = records([*told, turn("c1", 1), sealed("c1", n=2)])
    assert ["closed_or_unknown"] * 2 == letters


def test_a_child_that_begins_behind_its_parents_end_is_an_orphan():
    """It is nobody's: a dead letter, as is all that follows of it."""
    for before in ([], [opened(), aborted()], [opened(), child("c0"), sealed(n=0)]):
        _, letters = records([*before, *asked()])
        assert ["orphan", "closed_or_unknown", "closed_or_unknown"] == letters


def test_a_child_whose_reply_was_used_and_that_is_not_in_the_log_is_a_gap():
    """The seal names the children that answered."""
    made = the_record(opened(), turn(), reward(), sealed(children=("c1",)))
    assert (Outcome.INCOMPLETE, "its child c1 is not in the log") == (made.outcome, made.error)


def test_a_grandchild_has_its_share_of_both():
    """Worth follows the chain: a half of a half of the sample's, and of what is the child's own."""
    made = the_record(
        opened(),
        child(own_weight=1.0, parent_weight=0.5, message="m1"),
        *asked("g1", parent="c1", message="m2", parent_weight=0.5),
        turn("c1"), reward("c1", 4.0), sealed("c1"),
        turn(), reward(value=2.0), sealed(),
    )  # fmt: skip
    assert {"c1": (5.0, 0.5), "g1": (2.5, 0.25)} == {
        one.episode_id: (one.reward, one.share) for one in made.children
    }


CLOSING = (EpisodeSealed, EpisodeAborted, Reward)
"""What may close the record: behind that its repeat is a dead letter."""
STORY = {
    "e1": [turn(), turn(seq=1, prompt=(9,)), sealed(n=2, children=("c1", "d2"))],
    "reward e1": [reward(value=0.5)],
    "c1": [child(own_weight=1.0), turn("c1"), sealed("c1")],
    "reward c1": [reward("c1", 0.25)],
    "d": [
        child("d1", message="m2", last_attempt=False), turn("d1"), aborted("d1", retry=True),
        *asked("d2", message="m2", attempt=2),
    ],
}  # fmt: skip
"""What happens to a sample of three agents, each list in its own order."""


@st.composite
def interleaved(draw):
    """The story in any order in which it can happen: who answered has ended before the seal."""
    lanes = {name: list(events) for name, events in STORY.items()}
    told = [opened()]
    begun = set()
    while lanes:
        ready = [
            name
            for name, events in lanes.items()
            if (not name.startswith("reward") or name.removeprefix("reward ") in begun | {"e1"})
            and (name != "e1" or len(events) > 1 or not {"c1", "d"} & lanes.keys())
        ]
        name = draw(st.sampled_from(ready))
        begun.add(name)
        told.append(lanes[name].pop(0))
        if draw(st.booleans()) and not isinstance(told[-1], CLOSING):
            told.append(told[-1])
        if not lanes[name]:
            del lanes[name]
    return told


@settings(max_examples=60, deadline=None)
@given(interleaved(), st.data())
def test_every_order_gives_one_record_and_a_new_owner_repeats_nothing(told, data):
    """The same children, turns and worths, whatever happens between; at any point of a crash."""
    log = Log()
    for event in told:
        log.add(event)
    crash = data.draw(st.integers(0, len(log.records)))
    first = StagePartition(ASSEMBLE, 0)
    out = first.feed(log.records[:crash])
    second = StagePartition(ASSEMBLE, 0, first.low_water, first.written)
    out += second.feed(log.records)
    assert [] == [one for one in out if one.topic == DLQ.name]
    (made,) = [codec.decode(one.value, Episode) for one in out if one.topic == EPISODES.name]
    worths = {one.episode_id: one.reward for one in made.children}
    assert {"c1": 0.75, "d1": None, "d2": 0.5} == worths
    assert {"d1/w1/0": "retried"} == made.untrained_turns
    within = sorted(turn_id for run in made.sequences for turn_id in run.turn_ids)
    assert ["c1/w1/0", "d2/w1/0", "e1/w1/0", "e1/w1/1"] == within
    assert (0, second.position) == (second.fold.open(), second.low_water)


def test_the_mark_of_a_new_owner_is_that_of_the_old_one_though_a_child_was_opened_twice():
    """The new one begins between parent and child, so it knows of neither; no ghost comes of it."""
    log = Log()
    for event in (
        opened(), opened("e2"), child(), opened("e3"), child(), sealed("c1"),
        sealed(children=("c1",)), reward(), sealed("e2"), reward("e2"),
    ):  # fmt: skip
        log.add(event)
    marks, old, new = [], StagePartition(ASSEMBLE, 0), None
    for record in log.records:
        old.feed([record])
        if new is None and old.low_water == 1:
            new = StagePartition(ASSEMBLE, 0, old.low_water, old.written)
            new.feed(log.records[: record.offset + 1])
        elif new is not None:
            new.feed([record])
            marks.append((old.low_water, new.low_water))
    assert marks[-1] == (3, 3)
    assert all(first == second for first, second in marks)
    last = StagePartition(ASSEMBLE, 0, old.low_water, old.written)
    last.feed(log.records)
    assert 1 == last.fold.open()


def test_children_that_differ_make_a_group_of_equal_samples_worth_reading():
    """Equal samples teach nothing, unless an agent's children were worth different rewards."""

    def one(sample, worth, **more):
        of = ChildEpisode(episode_id=f"c{sample}", parent="p", agent="b", reward=worth, **more)
        return episode(sample, reward=1.0, children=(of,))

    for others, own, differ in [(1.0, 1.0, False), (0.0, 1.0, True), (0.0, 0.0, False)]:
        told = [expected(), one(0, 1.0, own=own), one(1, others, own=own)]
        (batch,), _ = tell(GROUP, told)
        assert isinstance(batch, Batch)
        assert (differ, not differ) == (batch.children_differ, batch.zero_variance)


def counted(events, changed=lambda batch: batch):
    """What `verify` says of a log, with whatever the stages make of it."""
    turns, groups = Log(TURNS), Log(EPISODES)
    for event in events:
        turns.add(event)
    groups.add(expected(size=1))
    out = StagePartition(ASSEMBLE, 0).feed(turns.records)
    count = Conservation()
    for one in out:
        if one.topic == EPISODES.name:
            groups.add(changed(codec.decode(one.value, Episode)))
    batches = Log(BATCHES)
    for one in StagePartition(GROUP, 0).feed(groups.records):
        batches.add(one.value, key=one.key)
    letters = Log(DLQ)
    for one in out:
        if one.topic == DLQ.name:
            letters.records.append(_record(one, len(letters.records)))
    for log in (turns, groups, batches, letters):
        for record in log.records:
            count.feed(record)
    return count.report()


def _record(one, offset):
    log = Log(DLQ)
    record = log.add(one.value, key=one.key)
    return type(record)(
        record.topic, 0, offset, record.key, record.value, one.headers, record.timestamp
    )


WHOLE = [opened(group_size=1), *asked(), turn(), reward(), sealed(children=("c1",))]


def test_verify_counts_children_apart():
    """A sample with a child is one sample; the child and its turn have sums of their own."""
    report = counted(WHOLE)
    assert report["closed"], report
    sums = report["conservation"]
    assert (1, 1, 1) == (sums["samples"], sums["episodes"], sums["opened"])
    assert {"opened": 1, "held": 1, "refused": 0, "turns": 1} == sums["children"]


def test_verify_closes_over_an_orphan():
    """Its dead letters account for it."""
    report = counted([*WHOLE, *asked("c9", message="m9")])
    assert report["closed"], report
    assert 1 == report["conservation"]["children"]["refused"]


def replaced(**fields):
    return lambda made: codec.msgspec.structs.replace(made, **fields)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda made: replaced(children=(), sequences=made.sequences[:1])(made), "child c1"),
        (lambda made: replaced(sequences=made.sequences[:1])(made), "turn c1/w1/0"),
        (
            lambda made: replaced(
                children=(*made.children, ChildEpisode(episode_id="c7", parent="e1", agent="b"))
            )(made),
            "child c7 is in an episode, but was never opened",
        ),
    ],
    ids=["a child", "its turn", "nobody's child"],
)
def test_verify_names_what_a_record_lacks(change, found):
    """A child that fell out of its parent's record, a turn of it, and one that never was."""
    report = counted(WHOLE, change)
    lists = itertools.chain(*(report[name] for name in ("lost", "open", "problems")))
    assert not report["closed"]
    assert found in list(lists)


def test_an_episode_that_is_over_waits_for_no_collector():
    """Nor do its children, although they and it held each other: a log has millions of them."""
    gc.disable()
    try:
        parent = OpenEpisode(opened(), 0, 0.0, None)
        first, second = OpenEpisode(child(), 1, 0.0, None), OpenEpisode(child("c2"), 2, 0.0, None)
        parent.adopt(first, "m1")
        parent.adopt(second, "m2")
        alive = [weakref.ref(member) for member in (parent, first, second)]
        assert parent is second.root
        parent.part()
        del parent, first, second
        assert [None, None, None] == [member() for member in alive]
    finally:
        gc.enable()
