"""Reading topics: a range, to the end of now, and for ever."""

import asyncio
from contextlib import aclosing

import pytest

from odradek.infra.bus import (
    KafkaAppender,
    at_end,
    at_offsets,
    ensure_topics,
    follow,
    read_range,
    to_end,
)
from odradek.infra.errors import TopicMissing
from odradek.schemas.topics import STEPS, TURNS

pytestmark = pytest.mark.broker


async def keys(records):
    return [record.key async for record in records]


@pytest.fixture
async def log(bus):
    """Five records on a topic of one partition."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for number in range(5):
        await appender.append(STEPS.name, key=f"{number}", value=b"{}")
    yield appender
    await appender.aclose()


async def test_a_range_begins_and_ends_where_it_is_told(bus, log):
    """It ends with the topic where its end has not come, and is empty behind that."""
    assert ["1", "2"] == await keys(read_range(bus, STEPS.name, 0, start=1, end=3))
    assert ["3", "4"] == await keys(read_range(bus, STEPS.name, 0, start=3, end=99))
    assert [] == await keys(read_range(bus, STEPS.name, 0, start=5))


async def test_to_the_end_is_to_the_end_of_now(bus, log):
    """What comes while it is read is not of it; another topic may be empty."""
    seen = []
    async with aclosing(to_end(bus, STEPS.name, TURNS.name)) as records:
        async for record in records:
            seen.append(record.key)
            if len(seen) == 1:
                await log.append(STEPS.name, key="late", value=b"{}")
    assert ["0", "1", "2", "3", "4"] == seen
    start = at_offsets(bus, {(STEPS.name, 0): 4})
    assert ["4", "late"] == await keys(to_end(bus, STEPS.name, start=start))
    with pytest.raises(TopicMissing):
        await keys(to_end(bus, "rl.nowhere.v1"))


async def test_following_from_the_end_sees_what_comes_once_it_is_ready(bus, log):
    """And nothing of before."""
    ready = asyncio.Event()

    async def first():
        async with aclosing(follow(bus, STEPS.name, start=at_end, ready=ready.set)) as records:
            return (await anext(records)).key

    reading = asyncio.create_task(first())
    await ready.wait()
    await log.append(STEPS.name, key="new", value=b"{}")
    async with asyncio.timeout(60):
        assert "new" == await reading
