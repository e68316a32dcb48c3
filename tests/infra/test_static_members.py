"""Members of a group that bear one name: the last to come stays, and none of them dies of it."""

import asyncio

import pytest

from odradek.infra.bus import close, consumer, ensure_topics, start
from odradek.schemas.topics import TASKS

pytestmark = pytest.mark.broker


async def test_a_successor_joins_beside_a_predecessor_that_is_still_there(bus):
    """Kafka fences one of two that join under one name (KIP-345): it joins again."""
    await ensure_topics(bus, [(TASKS.name, TASKS)])

    async def member():
        reader = consumer(bus, TASKS.name, group="one", instance="a")
        await start(reader, bus)
        return reader

    readers = await asyncio.gather(*(member() for _ in range(4)))
    for reader in readers:
        await close(reader)
