"""A worker that is told to end gives its partitions up at once."""

import asyncio

import pytest

from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from tests.support.streams.stage_drivers import KafkaWorld

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("stage", [intake(), ASSEMBLE, GROUP], ids=lambda stage: stage.name)
async def test_a_worker_that_ends_leaves_its_group(bus, stage):
    """Nobody waits for its session to end, which here would take longer than the test may."""
    bus = bus.model_copy(update={"session_timeout_ms": 60_000})
    world = KafkaWorld(bus)
    await world.run(stage)
    first, task = world.running[stage.name]
    second = world.driver(stage)
    other = asyncio.create_task(second.run())
    await asyncio.wait_for(second.ready.wait(), 60)
    while not (0 < len(first.partitions) < bus.topic_partitions):
        await asyncio.sleep(0.02)
    first.stop()
    await task
    async with asyncio.timeout(60):
        while len(second.partitions) < bus.topic_partitions:
            await asyncio.sleep(0.02)
    second.stop()
    await other
    world.running.clear()
    await world.end()
