"""What makes the Kafka driver exactly once: both sides of every commit, and who may commit."""

import asyncio
import os
import time

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from odradek.infra.bus import BusSettings, admin, group, producer, running
from odradek.infra.errors import BusError, PartitionLost, PositionLost, TopicMissing
from odradek.infra.runtime.crash_points import TRANSACTION
from odradek.schemas import codec
from odradek.schemas.events import Episode, Outcome, Timeouts
from odradek.schemas.topics import CONVERSATIONS, DLQ, EPISODES, TURNS
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.errors import TransactionFailed
from odradek.streams.stages.assembler import ASSEMBLE
from tests.support.schemas.event_builders import opened, reward, sealed, turn
from tests.support.streams.stage_drivers import Crashed, KafkaWorld

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("point", TRANSACTION)
async def test_a_crash_at_any_point_of_a_commit_writes_everything_once(bus, point):
    """Episodes, conversations and dead letters: all there, none twice."""
    world = KafkaWorld(bus)
    crashed = asyncio.Event()

    def at(name: str) -> None:
        if name == point and not crashed.is_set() and armed:
            crashed.set()
            raise Crashed(name)

    armed = False
    await world.run(ASSEMBLE, at=at)
    names = [f"e{number}" for number in range(12)]
    for name in names:
        for event in (opened(name), turn(name), reward(name)):
            await world.write(event)
    armed = True
    for name in names:
        await world.write(sealed(name))
        await world.write(turn(name, seq=9))
    _, task = world.running.pop(ASSEMBLE.name)
    with pytest.raises(Crashed):
        await task
    await world.run(ASSEMBLE)
    letters = await world.until(DLQ, 12)
    found = await world.until(EPISODES, 12)
    assert sorted(names) == sorted(codec.decode(one.value, Episode).episode_id for one in found)
    assert 12 == len(await world.until(CONVERSATIONS, 12)) == len(letters)
    await world.end()


async def test_what_was_fetched_before_a_rebalance_is_read_again(bus):
    """When partitions come or go between fetch and fold, each is put back to where it is."""
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    driver, _ = world.running[ASSEMBLE.name]
    fetch, dropped = driver._reader.getmany, []

    async def and_rebalance(**more):
        fetched = await fetch(**more)
        if fetched and len(dropped) < 3:
            dropped.append(fetched)
            driver._group.changes += 1
        return fetched

    driver._reader.getmany = and_rebalance
    for event in (opened(), turn(), reward(), sealed()):
        await world.write(event)
    assert 1 == len(await world.until(EPISODES, 1))
    assert [] == await world.until(DLQ, 0)
    assert dropped
    await world.end()


async def test_a_fenced_lane_writes_nothing_and_ends_the_process_in_the_end(bus, monkeypatch):
    """Who holds the partition's transactional id now is its owner; a zombie must not take it back."""
    monkeypatch.setattr(group, "DOUBT_S", 0.2)
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    owners = [producer(bus, transactional_id=f"assemble.{partition}") for partition in range(3)]
    for owner in owners:
        await owner.start()
    for event in (opened(), turn(), reward(), sealed()):
        await world.write(event)
    driver, task = world.running.pop(ASSEMBLE.name)
    while not task.done() and len(driver.partitions) == 3:
        await asyncio.sleep(0.02)
    assert [] == await world.until(EPISODES, 0)
    with pytest.raises(PartitionLost):
        await task
    for owner in owners:
        await owner.begin_transaction()
        await owner.abort_transaction()
        await owner.stop()
    await world.run(ASSEMBLE)
    assert 1 == len(await world.until(EPISODES, 1))
    await world.end()


async def test_an_instance_comes_back_to_its_partitions_without_a_rebalance(bus):
    """A process with a name is not waited for: its successor is the same member of the group."""
    world = KafkaWorld(bus)
    generations = []
    for _ in range(2):
        await world.run(ASSEMBLE, instance="first")
        generations.append(world.running[ASSEMBLE.name][0]._reader._coordinator.generation)
        await world.crash(ASSEMBLE)
    assert generations[0] == generations[1]
    await world.end()


async def test_a_clock_that_is_behind_expires_nothing_late(bus):
    """Time goes on from the broker's as it was last heard; an own clock can only be ahead of it."""
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE, clock=lambda: time.time() - 600)
    for event in (opened(timeouts=Timeouts(reward_s=0.2)), turn(), sealed()):
        await world.write(event)
    (record,) = await world.until(EPISODES, 1)
    assert Outcome.UNREWARDED == codec.decode(record.value, Episode).outcome
    await world.end()


async def test_a_record_that_the_broker_refuses_fails_its_transaction(bus):
    """Nothing of it is committed; the process ends, and a later one writes it."""
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    for event in (opened(), turn(), reward()):
        await world.write(event)
    await limit(bus, EPISODES.name, 80)
    junk = 0
    with pytest.raises(BusError, match="too large"):
        while True:
            # The broker takes a moment to hear of its new limit.
            await world.appender.append(EPISODES.name, key="junk", value=os.urandom(200))
            junk += 1
    await world.write(sealed())
    _, task = world.running.pop(ASSEMBLE.name)
    with pytest.raises(TransactionFailed, match="MessageSizeTooLarge"):
        await task
    await limit(bus, EPISODES.name, 1_000_000)
    await world.run(ASSEMBLE)
    assert junk + 1 == len(await world.until(EPISODES, junk + 1))
    assert 1 == len(await world.until(CONVERSATIONS, 1))
    await world.end()


async def limit(bus, name, size):
    """Set the largest record that the broker takes on a topic."""
    async with running(admin(bus), bus) as client:
        await client.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, bus.topic(name), {"max.message.bytes": str(size)}
                )
            ]
        )


async def test_a_position_that_retention_deleted_is_an_error(bus):
    """Never a silent skip."""
    from odradek.streams.dead_letters import drop

    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    for number in range(6):
        await world.write(opened(f"e{number}"))
    driver, task = world.running.pop(ASSEMBLE.name)
    while sum(partition.records for partition in driver.partitions) < 6:
        await asyncio.sleep(0.02)
    marks = {}
    while len(marks) < 2:
        offsets = await driver._admin.list_consumer_group_offsets(bus.group(ASSEMBLE.name))
        marks = {tp.partition: one.offset for tp, one in offsets.items()}
        await asyncio.sleep(0.1)
    driver.stop()
    await task
    await drop(bus, dict.fromkeys(marks, 1), dlq=TURNS.name)
    again = KafkaDriver(bus, ASSEMBLE)
    with pytest.raises(PositionLost):
        await again.run()
    await world.end()


async def test_missing_topics_are_told_at_start(broker):
    """With what to do about it."""
    bus = BusSettings(bootstrap_servers=broker, topic_prefix="nowhere.")
    with pytest.raises(TopicMissing, match="odradek topics apply"):
        await KafkaDriver(bus, ASSEMBLE).run()
