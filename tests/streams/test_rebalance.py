"""A stage keeps its partitions through a rebalance, and with them what it has folded."""

import asyncio

import pytest
from aiokafka import TopicPartition

from odradek.infra.bus import FencedWriter
from odradek.schemas import codec
from odradek.schemas.events import Episode, Timeouts
from odradek.schemas.topics import DLQ, EPISODES, TURNS
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.schemas.event_builders import opened, reward, sealed, turn
from tests.support.streams.stage_drivers import KafkaWorld

pytestmark = pytest.mark.broker

NAMES = [f"e{number}" for number in range(30)]


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


@pytest.fixture
async def halfway(bus):
    """A world whose one assembler has read the openings of thirty episodes, and one turn of each."""
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    for name in NAMES:
        for event in (opened(name, timeouts=Timeouts()), turn(name), reward(name)):
            await world.write(event)
    driver, _ = world.running[ASSEMBLE.name]
    await until(lambda: sum(partition.records for partition in driver.partitions) == 3 * len(NAMES))
    yield world, driver
    await world.end()


def progress(driver):
    """Each partition's state, and how many records it has folded."""
    return {partition.number: (partition, partition.records) for partition in driver.partitions}


async def ended(world):
    """End every episode; each is written once, and no record is a dead letter."""
    for name in NAMES:
        await world.write(sealed(name))
    episodes = await world.until(EPISODES, len(NAMES))
    assert sorted(NAMES) == sorted(codec.decode(one.value, Episode).episode_id for one in episodes)
    assert [] == await world.until(DLQ, 0)


async def test_what_is_kept_is_not_read_again_from_its_low_water_mark(halfway):
    """Another worker joins and leaves; the first one reads again only what it got back."""
    world, first = halfway
    before = progress(first)
    second = world.driver(ASSEMBLE)
    other = asyncio.create_task(second.run())
    await until(lambda: 0 < len(first.partitions) < 3 and second.partitions)
    kept = progress(first)
    assert kept.items() <= before.items()
    second.stop()
    await other
    await until(lambda: len(first.partitions) == 3 and first.ready.is_set())
    assert kept.items() <= progress(first).items()
    await ended(world)


async def test_what_another_had_meanwhile_is_taken_over_anew(halfway):
    """Its owner missed a generation: what it has folded is behind the log, and it is fenced.

    It does not end, nor does it wait: the group has just said that the partition is its own.
    """
    world, driver = halfway
    before = {partition.number: partition for partition in driver.partitions}
    stranger = FencedWriter(world.bus, ASSEMBLE.name, 1)
    await stranger.start()
    await driver._group.on_partitions_assigned(
        TopicPartition(world.bus.topic(TURNS.name), number) for number in range(3)
    )
    await until(lambda: len(driver.partitions) == 3 and before[1] not in driver.partitions)
    assert {0, 2} == {
        partition.number for partition in driver.partitions if partition in before.values()
    }
    await stranger.aclose()
    await ended(world)


async def test_who_was_fenced_since_its_last_commit_takes_nothing_back(halfway, monkeypatch):
    """It committed after the rebalance, so whoever fenced it came later: the group will say so."""
    world, driver = halfway
    topic = world.bus.topic(TURNS.name)
    assigned = [TopicPartition(topic, number) for number in range(3)]
    await driver._group.on_partitions_assigned(assigned)
    await until(lambda: not any(owned.unproved for owned in driver._partitions.values()))
    monkeypatch.setattr(driver._group, "take_again", lambda _: pytest.fail("taken back"))
    stranger = FencedWriter(world.bus, ASSEMBLE.name, 1)
    await stranger.start()
    for name in NAMES:
        await world.write(sealed(name))
    await until(lambda: [0, 2] == sorted(partition.number for partition in driver.partitions))
    await stranger.aclose()
    await driver._group.on_partitions_assigned(assigned[::2])
    await driver._group.on_partitions_assigned(assigned)
    await until(lambda: len(driver.partitions) == 3 and driver.ready.is_set())
    episodes = await world.until(EPISODES, len(NAMES))
    assert len(NAMES) == len(episodes)
