"""Pointers into a past that is gone: a replay leaves those episodes out, a live run ends."""

import asyncio
from uuid import uuid4

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from odradek.infra.bus import BusSettings, KafkaAppender, admin, ensure_topics, running
from odradek.infra.errors import TopicMissing
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Pointer
from odradek.schemas.topics import BATCHES, EPISODES
from odradek.trainer import episodes as following
from odradek.trainer.batches import LogGroups
from odradek.trainer.errors import PositionGone
from odradek.trainer.loop_thread import LoopThread

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
