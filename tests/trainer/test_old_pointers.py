"""Pointers into a past that is gone: a replay leaves those episodes out, a live run ends."""

import asyncio
from uuid import uuid4

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.bus import BusSettings, KafkaAppender, admin, ensure_topics, running
from odradek.infra.errors import TopicMissing
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Pointer
from odradek.schemas.topics import BATCHES, EPISODES
from odradek.trainer.errors import MissingRecord, PositionGone
from odradek.trainer.feed.readers import episode_reader as following
from odradek.trainer.feed.readers.batch_reader import LogGroups

pytestmark = pytest.mark.broker

OLD = "old.episodes"
"""Where the episodes of these tests stand: one partition, six records."""
NAMED = "named.batches"
"""Where the batches stand that name them."""


@pytest.fixture
def log_bus(broker, monkeypatch):
    """A bus of this test's own, with two topics; nobody waits long for a record."""
    monkeypatch.setattr(following, "LATEST_S", 0.5)
    bus = BusSettings(bootstrap_servers=broker, topic_prefix=f"t{uuid4().hex[:10]}.")
    old = msgspec.structs.replace(EPISODES, name=OLD, partitions=1)
    named = msgspec.structs.replace(BATCHES, name=NAMED)
    asyncio.run(ensure_topics(bus, [(OLD, old), (NAMED, named)]))
    return bus


async def _write(bus, origin, topic, partition, offset):
    """Six episodes, and two batches of two: the first of readable ones, the second with `offset`."""
    appender = await KafkaAppender.connect(bus)
    pointers = []
    for number in range(6):
        episode = Episode(
            episode_id=f"e{number}", task_id="t", agent="a", sample=number, group_size=2
        )
        value = codec.encode(episode)
        at = await appender.append(OLD, key="t", value=value, headers=codec.headers(
            episode, source="/test", subject="t", event_id=uuid4().hex))  # fmt: skip
        pointers.append(
            Pointer(
                episode_id=f"e{number}", sample=number, topic=OLD, partition=at.partition,
                offset=at.offset, digest=codec.digest(value), reward=float(number % 2),
            )
        )  # fmt: skip
    lost = msgspec.structs.replace(
        pointers[2], topic=topic, partition=partition,
        offset=pointers[2].offset if offset is None else offset,
    )  # fmt: skip
    for chosen in ([pointers[3], pointers[4]], [lost, pointers[5]]):
        batch = Batch(task_id="t", group_size=2, episodes=tuple(chosen), origin=origin)
        await appender.append(NAMED, key="t", value=codec.encode(batch), headers=())
    await appender.aclose()


async def _take_away(bus, what):
    topic = bus.topic(OLD)
    async with running(admin(bus), bus) as client:
        if what == "topic":
            await client.delete_topics([topic])
        elif what:
            on = TopicPartition(topic, 0)
            await client.delete_records({on: RecordsToDelete(before_offset=int(what))})


def follow(bus, *, before="", between=""):
    """Both groups, with what is taken away before the first and between the two."""
    thread = LoopThread()
    source = LogGroups(thread, bus, NAMED, ends=True)
    found = []
    try:
        asyncio.run(_take_away(bus, before))
        source.open(0)
        while not source.ended() and len(found) < 2:
            if group := source.next(0.2):
                found.append(group)
                if len(found) == 1:
                    asyncio.run(_take_away(bus, between))
    finally:
        source.close()
        thread.close()
    return found


TABLE = {
    "retention, before it began": ("retention", PositionGone, {"before": "3"}),
    "retention, while it read": ("retention", PositionGone, {"between": "5", "offset": 4}),
    "its topic was deleted": ("missing_record", TopicMissing, {"between": "topic"}),
    "no such topic": ("missing_record", None, {"topic": "nobody"}),
    "no name of a topic": ("missing_record", None, {"topic": "a b/c"}),
    "an endless name": ("missing_record", None, {"topic": "n" * 300}),
    "no name at all": ("missing_record", None, {"topic": ""}),
    "no such partition": ("missing_record", None, {"partition": 7}),
    "a partition beyond all numbers": ("missing_record", None, {"partition": 2**53 - 1}),
    "behind the end": ("missing_record", None, {"offset": 4000}),
    "beyond all numbers": ("missing_record", None, {"offset": 2**53 - 1}),
}
"""Case: (reason of a replay's refusal, what ends a live run or None, what is done)."""


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("origin", ["rl.batches.v1/0/7", ""], ids=["replayed", "live"])
def test_what_a_pointer_no_longer_leads_to(log_bus, case, origin):
    """Of a replayed batch it is refused by name; where the live log lost it, the run ends."""
    reason, ends, how = TABLE[case]
    place = {"topic": OLD, "partition": 0, "offset": None}
    place |= {key: value for key, value in how.items() if key in place}
    away = {key: value for key, value in how.items() if key not in place}
    asyncio.run(_write(log_bus, origin, **place))
    if ends and not origin:
        with pytest.raises(ends):
            follow(log_bus, **away)
        return
    _, group = follow(log_bus, **away)
    assert [reason] * len(group.refused) == [refusal.reason for refusal in group.refused]
    assert group.refused[0].episode_id == "e2"


async def _append(bus, *numbers):
    """Episodes with these names; pointers to them."""
    appender = await KafkaAppender.connect(bus)
    found = []
    for number in numbers:
        episode = Episode(episode_id=f"e{number}", task_id="t", agent="a", sample=0, group_size=1)
        value = codec.encode(episode)
        at = await appender.append(OLD, key="t", value=value)
        found.append(
            Pointer(
                episode_id=episode.episode_id, sample=0, topic=OLD, partition=at.partition,
                offset=at.offset, digest=codec.digest(value), reward=1.0,
            )
        )  # fmt: skip
    await appender.aclose()
    return found


async def test_a_reader_that_retention_overtook_goes_on_behind_it(log_bus):
    """A real broker's answer for where it stood refuses what is gone, and nothing else."""
    reader = following.EpisodeReader(log_bus, OLD)
    (first,) = await _append(log_bus, 0)
    await reader.open()
    try:
        assert "e0" == (await reader.resolve(first)).episode_id
        pointers = await _append(log_bus, *range(1, 8))
        await _take_away(log_bus, "5")
        found = []
        for number in (2, 3, 6, 4, 5, 7):
            try:
                found.append((await reader.resolve(pointers[number - 1])).episode_id)
            except PositionGone as error:
                found.append(error.reason)
        assert ["retention", "retention", "e6", "retention", "e5", "e7"] == found
    finally:
        await reader.close()


async def test_a_pointer_behind_the_end_is_missing_wherever_it_comes(log_bus):
    """Also as the first of its partition, where nothing was read before."""
    reader = following.EpisodeReader(log_bus, OLD)
    (first,) = await _append(log_bus, 0)
    await reader.open()
    try:
        beyond = msgspec.structs.replace(first, offset=4000)
        with pytest.raises(MissingRecord):
            await reader.resolve(beyond)
        assert "e0" == (await reader.resolve(first)).episode_id
    finally:
        await reader.close()
