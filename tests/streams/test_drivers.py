"""One behaviour suite over every driver: in memory, Kafka transactions, Faust."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from odradek.infra.bus import BusSettings, delete_topics, producer
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Outcome, Timeouts
from odradek.schemas.topics import BATCHES, CONVERSATIONS, DLQ, EPISODES, REWARDS, TURNS
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from tests.support.schemas.event_builders import expected, opened, reward, sealed, turn
from tests.support.streams.stage_drivers import FaustWorld, KafkaWorld, MemoryWorld, World

WORLDS = {"kafka": KafkaWorld, "faust": FaustWorld}


def kinds():
    yield pytest.param("memory")
    yield pytest.param("kafka", marks=pytest.mark.broker)
    yield pytest.param("faust", marks=pytest.mark.broker)


@pytest.fixture(params=kinds())
async def world(request) -> AsyncIterator[World]:
    if request.param == "memory":
        made: World = MemoryWorld()
    else:
        bus = BusSettings(
            bootstrap_servers=request.getfixturevalue("broker"),
            topic_prefix=f"t{uuid4().hex[:10]}.",
            topic_partitions=3,
        )
        made = WORLDS[request.param](bus)
    yield made
    await made.end()
    if not isinstance(made, MemoryWorld):
        await delete_topics(made.bus)


def reasons(letters):
    return [codec.header(letter.headers, "dlq-reason") for letter in letters]


async def test_a_story_becomes_an_episode_and_a_group_a_batch(world):
    """Through intake, assembler and grouper, with the reward on its own topic.

    Then none of them is behind, though a marker stands behind each transaction.
    """
    await world.run(intake(), ASSEMBLE, GROUP)
    await world.write(expected(size=2), EPISODES)
    for sample in range(2):
        name = f"e{sample}"
        for event in (opened(name, sample=sample), turn(name), sealed(name)):
            await world.write(event)
        await world.write(reward(name, value=float(sample)), REWARDS)
    (record,) = await world.until(BATCHES, 1)
    batch = codec.decode(record.value, Batch)
    assert [("e0", 0.0), ("e1", 1.0)] == [(one.episode_id, one.reward) for one in batch.episodes]
    episodes = {
        (record.partition, record.offset): record for record in await world.until(EPISODES, 3)
    }
    for pointer in batch.episodes:
        assert pointer.digest == codec.digest(episodes[pointer.partition, pointer.offset].value)
    assert 2 == len(await world.until(CONVERSATIONS, 2))
    assert [] == await world.until(DLQ, 0)
    assert {} == await world.at_rest()


async def test_repeats_change_nothing(world):
    """Every event before the seal twice gives the same one episode."""
    await world.run(ASSEMBLE)
    for event in (opened(), turn(), turn(), reward(), opened(), reward(), turn(), sealed()):
        await world.write(event)
    (record,) = await world.until(EPISODES, 1)
    assert (1, 1.0) == (
        codec.decode(record.value, Episode).n_turns,
        codec.decode(record.value, Episode).reward,
    )
    assert [] == await world.until(DLQ, 0)


async def test_a_crash_neither_loses_nor_repeats_an_episode(world):
    """A new owner folds from the oldest open episode, silent about what is written."""
    await world.run(ASSEMBLE)
    open_one = [opened("open"), turn("open")]
    closed = [opened("closed"), turn("closed"), reward("closed"), sealed("closed")]
    for event in (*open_one, *closed):
        await world.write(event)
    await world.until(EPISODES, 1)
    await world.crash(ASSEMBLE)
    for event in (turn("open", seq=1, prompt=(1, 2, 3)), reward("open")):
        await world.write(event)
    await world.run(ASSEMBLE)
    await world.write(sealed("open", n=2))
    await world.write(turn("closed", seq=1))
    letters = await world.until(DLQ, 1)
    found = await world.until(EPISODES, 2)
    episodes = {record.key + codec.decode(record.value, Episode).episode_id for record in found}
    assert {"t1open", "t1closed"} == episodes
    assert 2 == codec.decode(found[-1].value, Episode).n_turns
    if world.exactly_once:
        assert 2 == len(found)
        assert ["closed_or_unknown"] == reasons(letters)


async def test_a_poison_record_is_a_dead_letter_and_its_partition_goes_on(world):
    """The letter holds the bytes, and says from where they came and why."""
    await world.run(ASSEMBLE)
    poison = [b"{", b'{"type":"nonsense"}', b"[" * 200_000, b'{"type":"turn","seq":-1}', None]
    for value in poison:
        await world.write(value, key="e1")
    for event in (opened(), turn(), reward(), sealed()):
        await world.write(event)
    await world.until(EPISODES, 1)
    letters = await world.until(DLQ, len(poison))
    assert ["not_json", "unknown_type", "too_deep", "bad_schema", "tombstone"] == reasons(letters)
    assert poison == [letter.value for letter in letters]
    for letter in letters:
        place = [codec.header(letter.headers, f"dlq-{name}") for name in ("topic", "consumer")]
        assert [TURNS.name, "assemble"] == place
        assert codec.header(letter.headers, "dlq-offset").isdigit()


async def test_time_passes_through_the_log(world):
    """An overdue episode is closed by a Tick that anybody can read back."""
    await world.run(ASSEMBLE)
    await world.write(opened(timeouts=Timeouts(call_s=0.1, attempt_s=0.2, seal_s=0.1)))
    await world.pass_time(0.4)
    (record,) = await world.until(EPISODES, 1)
    assert Outcome.HOST_LOST == codec.decode(record.value, Episode).outcome
    ticks = [one for one in await world.until(TURNS, 2) if b'"tick"' in one.value]
    assert 1 <= len(ticks)


async def test_a_reward_from_the_wrong_source_is_refused(world):
    """Only judges write rewards, where the intake is told who they are."""
    await world.run(intake({"game": ["/agent/other"]}))
    await world.write(reward(), REWARDS)
    assert ["source_not_allowed"] == reasons(await world.until(DLQ, 1))
    assert [] == await world.until(TURNS, 0)


async def test_an_aborted_transaction_is_never_read(world):
    """Both drivers read committed records only; Faust does not unless told."""
    if isinstance(world, MemoryWorld):
        pytest.skip("a log in memory has no transactions")
    await world.run(ASSEMBLE)
    client = producer(world.bus, transactional_id="zombie")
    await client.start()
    await client.begin_transaction()
    for event in (opened("ghost"), sealed("ghost", n=0)):
        await client.send(
            world.bus.topic(TURNS.name), key=b"ghost", value=codec.encode(event), headers=[]
        )
    await client.flush()
    await client.abort_transaction()
    await client.stop()
    for event in (opened(), turn(), reward(), sealed()):
        await world.write(event)
    (record,) = await world.until(EPISODES, 1)
    assert "e1" == codec.decode(record.value, Episode).episode_id
    (record,) = await world.until(CONVERSATIONS, 1)
    assert "e1" == record.key


@pytest.mark.broker
async def test_two_workers_share_and_take_over(bus):
    """A second worker takes partitions, a third of the stories come while it does; all end once."""
    world = KafkaWorld(bus)
    await world.run(ASSEMBLE)
    names = [f"e{number}" for number in range(60)]
    other = None
    for number, name in enumerate(names):
        for event in (opened(name), turn(name), reward(name)):
            await world.write(event)
        if number == 20:
            other = world.driver(ASSEMBLE)
            task = asyncio.create_task(other.run())
    await other.ready.wait()
    for name in names:
        await world.write(sealed(name))
    await world.until(EPISODES, 30)
    other.stop()
    await task
    found = await world.until(EPISODES, 60)
    assert sorted(names) == sorted(codec.decode(one.value, Episode).episode_id for one in found)
    assert [] == await world.until(DLQ, 0)
    await world.end()
