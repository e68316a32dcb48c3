"""How far processes are behind: records that are not done, whatever offsets say."""

import asyncio
import json
from dataclasses import dataclass, field

import msgspec
import pytest
from aiokafka import TopicPartition
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents.dispatch.progress import TaskProgress, TaskState
from odradek.infra.app.backlog import BacklogCount, behind
from odradek.infra.app.backlog.lag import Stretch, lag_of
from odradek.infra.app.backlog.offsets import done_offsets
from odradek.infra.app.backlog.processes import LedgerHead, Reading, Trainers, others, readings
from odradek.infra.app.backlog.spans import CountedSpan
from odradek.infra.app.cli import main
from odradek.infra.bus import (
    FencedWriter,
    KafkaAppender,
    OffsetTracker,
    OutgoingRecord,
    ensure_topics,
    rows,
)
from odradek.schemas import codec
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import (
    A2A_REQUESTS,
    BATCHES,
    CONVERSATIONS,
    EPISODES,
    REWARDS,
    STEPS,
    TASKS,
    TURNS,
    agent_topic,
)

WHERE = TopicPartition("t", 0)


@dataclass
class Log:
    """A partition by hand: which offsets are records, and which of those are done."""

    slots: list[bool]
    """True for a record, false for a marker of a transaction."""
    beginning: int = 0
    undone: set[int] = field(default_factory=set)

    @property
    def records(self) -> list[int]:
        return [at for at, slot in enumerate(self.slots) if slot and at >= self.beginning]

    def by_force(self) -> int:
        return sum(at in self.undone for at in self.records)

    def lag(self, offset, metadata, near=None):
        done = done_offsets(offset, metadata)
        stretch = Stretch(self.beginning, len(self.slots), near)
        first = stretch.first(done)
        offsets = [] if first is None else [at for at in self.records if at >= first]
        return lag_of(Reading("p", "t"), {WHERE: done}, {WHERE: stretch}, lambda _: offsets)


@st.composite
def logs(draw):
    """A log, how far it was read, and where retention has come to."""
    slots = draw(st.lists(st.booleans(), max_size=40))
    read = draw(st.integers(0, len(slots)))
    return Log(slots, beginning=draw(st.integers(0, len(slots)))), read


@given(logs(), st.data())
def test_a_tracker_s_lag_is_what_counting_by_force_gives(given_log, data):
    """Of a host, a reward service, a subscription: what is unfinished, and what is unread."""
    log, read = given_log
    log.beginning = 0
    tracker = OffsetTracker(0)
    for at in (at for at in log.records if at < read):
        tracker.take(at)
        if data.draw(st.booleans()):
            tracker.finish(at)
        else:
            log.undone.add(at)
    log.undone |= {at for at in log.records if at >= tracker.next}
    log.beginning = data.draw(st.integers(0, len(log.slots)))
    found = log.lag(tracker.low_water, tracker.metadata)
    assert (log.by_force(), True) == (found.lag, found.exact)


@given(logs(), st.data())
def test_a_dispatcher_s_lag_is_what_counting_by_force_gives(given_log, data):
    """Tasks that it has sent are others' work; those that wait for credit are its own."""
    log, read = given_log
    log.beginning = 0
    progress = TaskProgress(0)
    for at in (at for at in log.records if at < read):
        progress.take(at)
        state = data.draw(st.sampled_from(TaskState))
        progress.put(at, state)
        if state is TaskState.WAITING:
            log.undone.add(at)
    progress.settle()
    log.undone |= {at for at in log.records if at >= progress.next}
    found = log.lag(progress.low_water, progress.metadata(7))
    assert (log.by_force(), True) == (found.lag, found.exact)


@given(logs(), st.data())
def test_a_stage_s_lag_is_what_counting_by_force_gives(given_log, data):
    """It begins at its low-water mark, and has done all below its done mark."""
    log, done = given_log
    log.undone = {at for at in log.records if at >= done}
    low = data.draw(st.integers(0, done))
    found = log.lag(low, f"done={done}")
    assert (log.by_force(), True) == (found.lag, found.exact)


@given(logs(), st.integers(0, 40))
def test_where_records_are_not_counted_their_offsets_are_the_most_they_can_be(given_log, near):
    """And it says so; what is near is counted as ever."""
    log, done = given_log
    log.undone = {at for at in log.records if at >= done}
    found = log.lag(done, "", near)
    unread = len(log.slots) - max(done, log.beginning)
    assert (unread <= near or unread <= 0) == found.exact
    assert log.by_force() == found.lag if found.exact else unread == found.lag


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_a_span_that_is_remembered_is_what_reading_again_would_give(slots, data):
    """However the mark moves, back as well."""
    end = data.draw(st.integers(0, len(slots)))
    first = data.draw(st.integers(0, end))
    records = [at for at, slot in enumerate(slots) if slot]
    span = CountedSpan(first, end, tuple(at for at in records if first <= at < end))
    wanted = data.draw(st.integers(0, len(slots)))
    kept = span.since(wanted)
    fresh = tuple(at for at in records if at >= kept.end)
    assert wanted == kept.first <= kept.end
    assert tuple(at for at in records if at >= wanted) == kept.offsets + fresh


def test_what_waits_for_a_process_that_never_ran_is_its_backlog():
    """Dispatcher, hosts and stages have rows of their own before there is any group of theirs."""
    topics = {agent_topic(A2A_REQUESTS, "hilo"), TASKS.name}
    found = readings(topics, [], {})
    assert [("dispatcher", TASKS.name), ("agent-hilo", "a2a.requests.hilo")] == [
        (each.process, each.topic) for each in found
    ]


def test_groups_have_the_names_of_their_processes():
    """A group that is none of ours keeps its name; a re-scoring is over when it has ended."""
    groups = ["reward-right", "sample", "subscription.audit", "rescore-again"]
    found = readings([], groups, {})
    assert {"dispatcher", "reward-right", "sampler"} == {each.process for each in found}
    assert ["subscription.audit"] == others(groups, found)


def test_the_ledger_says_who_trains():
    """The run that wrote last leads, those beside it name it, and without any all batches wait."""
    trainers = Trainers()
    assert [("trainer", 0)] == [(each.process, each.position) for each in trainers.readings()]
    for run, position, leader in (("a", 5, ""), ("beside", 3, "a"), ("b", 2, ""), ("b", 4, "")):
        trainers.hear(LedgerHead(run, position, sampled_by=leader))
    assert [("trainer", 4), ("trainer-beside", 3)] == [
        (each.process, each.position) for each in trainers.readings()
    ]


def test_a_process_that_reads_two_topics_is_behind_on_both():
    """The sampler reads batches and steps."""
    log = Log([True, True], undone={0, 1})
    assert {"p": 4} == behind([log.lag(0, ""), log.lag(0, "")])


def outgoing(topic, *values, partition=0):
    return [
        OutgoingRecord(topic=topic, key="k", value=value, partition=partition) for value in values
    ]


@pytest.fixture
async def at_work(bus):
    """Three records for each process, a marker behind each; a trainer has passed one batch."""
    await ensure_topics(bus, rows(["hilo"]))
    batch = Batch(task_id="t", agent="hilo", group_size=1)
    batches = [batch, batch, msgspec.structs.replace(batch, purpose="eval")]
    values = dict.fromkeys(READ.values(), (b"0", b"1", b"2"))
    for topic, written in {**values, BATCHES.name: map(codec.encode, batches)}.items():
        writer = FencedWriter(bus, f"w-{topic}", 0)
        await writer.start()
        for value in written:
            await writer.write(OutgoingRecord(topic=topic, key="k", value=value, partition=0))
        await writer.aclose()
    await ledger(bus, 1)
    return bus


READ = {
    "dispatcher": TASKS.name,
    "agent.hilo": "a2a.requests.hilo",
    "intake": REWARDS.name,
    "assemble": TURNS.name,
    "group": EPISODES.name,
    "reward-right": CONVERSATIONS.name,
}
"""What each group reads."""


async def ledger(bus, position):
    appender = await KafkaAppender.connect(bus)
    step = Step(run="main", incarnation=1, step=position, position=position)
    await appender.append(STEPS.name, key="main", value=codec.encode(step))
    await appender.aclose()


async def commit(bus, marks):
    for group, (offset, metadata) in marks.items():
        writer = FencedWriter(bus, group, 0)
        await writer.start()
        where = TopicPartition(bus.topic(READ[group]), 0)
        await writer.commit(where, offset, metadata)
        await writer.aclose()


async def shown(bus, monkeypatch):
    """What the verb says, in a table and in JSON."""
    monkeypatch.setenv("ODRADEK_KAFKA_BOOTSTRAP_SERVERS", bus.bootstrap_servers)
    monkeypatch.setenv("ODRADEK_KAFKA_TOPIC_PREFIX", bus.topic_prefix)
    table = await asyncio.to_thread(CliRunner().invoke, main, ["lag"])
    assert ["agent-hilo", "a2a.requests.hilo", "2"] in [
        line.split() for line in table.output.splitlines()
    ]
    answer = await asyncio.to_thread(CliRunner().invoke, main, ["lag", "--json", "--exact"])
    (trainer,) = (
        each for each in json.loads(answer.output)["processes"] if each["process"] == "trainer"
    )
    assert (1, True, BATCHES.name) == (trainer["lag"], trainer["exact"], trainer["topic"])


@pytest.mark.broker
async def test_a_log_at_rest_is_zero_behind_though_markers_stand_at_its_ends(at_work, monkeypatch):
    """On a real broker: low-water marks with metadata, evaluation batches, a ledger; the verb."""
    ours = ["dispatcher", "agent-hilo", "intake", "assembler", "grouper"]
    async with BacklogCount.connect(at_work, near=None) as count:
        before = behind(await count.take())
        assert {**dict.fromkeys(ours, 3), "trainer": 1} == before
        progress, tracker = TaskProgress(0), OffsetTracker(0)
        for offset in (0, 2, 4):
            progress.take(offset)
            tracker.take(offset)
        progress.put(2, TaskState.SENT)
        tracker.finish(2)
        await commit(
            at_work,
            {
                "dispatcher": (0, progress.metadata(0)),
                "agent.hilo": (0, tracker.metadata),
                "reward-right": (0, tracker.metadata),
                "assemble": (0, "done=3"),
                "group": (2, "done=2"),
            },
        )
        under_way = behind(await count.take())
        assert {
            "dispatcher": 2, "agent-hilo": 2, "intake": 3, "assembler": 1, "grouper": 2,
            "reward-right": 2, "trainer": 1,
        } == under_way  # fmt: skip
        await shown(at_work, monkeypatch)
        await commit(
            at_work,
            {
                "dispatcher": (5, ""),
                "agent.hilo": (5, ""),
                "reward-right": (5, ""),
                "intake": (5, "done=5"),
                "assemble": (0, "done=5"),
                "group": (0, "done=5"),
            },
        )
        await ledger(at_work, 3)
        lags = await count.take()
    assert dict.fromkeys([*ours, "reward-right", "trainer"], 0) == behind(lags)
    (assembler,) = (each for each in lags if each.process == "assembler")
    assert (0, 5, 6) == (
        assembler.partitions[0].lag, assembler.partitions[0].done, assembler.partitions[0].end
    )  # fmt: skip
