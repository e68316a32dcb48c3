"""The sampler on Kafka: one transaction for what it writes and both offsets, whenever it dies."""

import asyncio

import msgspec
import pytest

from odradek.infra.bus import KafkaAppender, ensure_topics, to_end
from odradek.infra.errors import PartitionLost
from odradek.infra.runtime.crash_points import TRANSACTION
from odradek.schemas import codec
from odradek.schemas.events import Batch, BatchUse, Step
from odradek.schemas.topics import BATCHES, DLQ, MIXED, STEPS
from odradek.streams.sampler import process
from odradek.streams.sampler.mixer import mixed_again
from odradek.streams.sampler.process import SamplerProcess
from odradek.streams.sampler.rules import DrawRules, MixRules
from odradek.streams.verify import Conservation
from tests.streams.sampler.test_mixer import batch
from tests.support.streams.stage_drivers import Crashed

pytestmark = pytest.mark.broker
RULES = MixRules(fresh=2, replayed=2, seed=5, draws=DrawRules(capacity=8))


class SamplerWorld:
    """A sampler, and those who write what it reads."""

    def __init__(self, bus):
        self.bus = bus
        self.closed = 0

    async def begin(self):
        await ensure_topics(self.bus)
        self.appender = await KafkaAppender.connect(self.bus)

    async def close_batch(self):
        await self._append(BATCHES, f"t{self.closed}", batch(self.closed))
        self.closed += 1

    async def step(self, number):
        use = BatchUse(offset=0, rows=1, source=number, advantage=float(number % 5))
        entry = Step(
            run="main", incarnation=1, step=number, position=0, topic=MIXED.name, used=(use,)
        )
        await self._append(STEPS, "main", entry)

    async def _append(self, topic, key, event):
        await self.appender.append(topic.name, key=key, value=codec.encode(event))

    async def events(self, topic, kind):
        return {
            record.offset: codec.decode(record.value, kind)
            async for record in to_end(self.bus, topic.name)
        }

    async def written(self, n):
        """What the sampler has written, once so many fresh batches are among it."""
        async with asyncio.timeout(60):
            while True:
                found = [*(await self.events(MIXED, Batch)).values()]
                if n <= sum(not each.origin for each in found):
                    return found
                await asyncio.sleep(0.05)


@pytest.fixture
async def world(bus):
    world = SamplerWorld(bus)
    await world.begin()
    yield world
    await world.appender.aclose()


async def mix(world, at=lambda _: None):
    """A sampler that runs."""
    sampler = SamplerProcess(world.bus, RULES, at=at)
    task = asyncio.create_task(sampler.run())
    ready = asyncio.create_task(sampler.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    return sampler, task


async def again(world, written):
    """What one mixer without any trouble writes that reads as far each time."""
    batches, steps = await world.events(BATCHES, Batch), await world.events(STEPS, Step)
    return mixed_again(RULES, [each.mixed for each in written], batches, steps)


@pytest.mark.parametrize("point", TRANSACTION)
async def test_a_sampler_that_dies_around_a_commit_loses_nothing_and_draws_the_same(world, point):
    """Each fresh batch is there once, in order, and every draw follows from the offsets in it."""
    passed = []

    def at(name):
        passed.append(name)
        if passed.count(point) == 3:
            raise Crashed(name)

    _, task = await mix(world, at)
    while not task.done():
        await world.close_batch()
        await world.step(world.closed)
    with pytest.raises(Crashed):
        await task
    _, task = await mix(world)
    for _ in range(10):
        await world.close_batch()
        await world.step(world.closed)
    written = await world.written(world.closed)
    fresh = [each.mixed.batch for each in written if not each.origin]
    assert list(range(world.closed)) == fresh
    assert any(each.origin for each in written)
    assert written == await again(world, written)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_second_sampler_ends_the_first(world):
    """What the first would write after that is refused, so nothing is mixed twice."""
    _, first = await mix(world)
    await world.close_batch()
    await world.written(1)
    second, running = await mix(world)
    for _ in range(3):
        await world.close_batch()
    with pytest.raises(PartitionLost):
        await first
    written = await world.written(4)
    assert list(range(4)) == [each.mixed.batch for each in written if not each.origin]
    second.stop()
    await running


async def test_a_sampler_whose_offsets_kafka_has_forgotten_mixes_nothing_twice(world, monkeypatch):
    """What it had written says how far it was: Kafka keeps the offsets of who is away for a week."""

    async def forgotten(*given):
        return dict.fromkeys(given[-1], (0, ""))

    for _ in range(2):
        sampler, running = await mix(world)
        for _ in range(4):
            await world.close_batch()
            await world.step(world.closed)
        written = await world.written(world.closed)
        sampler.stop()
        await running
        monkeypatch.setattr(process, "standings", forgotten)
    assert list(range(8)) == [each.mixed.batch for each in written if not each.origin]
    assert written == await again(world, written)


async def test_what_is_no_batch_is_a_dead_letter(world):
    """The sampler goes on behind it."""
    sampler, running = await mix(world)
    await world.appender.append(BATCHES.name, key="t", value=b"{")
    await world.close_batch()
    await world.written(1)
    (letter,) = [record async for record in to_end(world.bus, DLQ.name)]
    assert "not_json" == codec.header(letter.headers, "dlq-reason")
    sampler.stop()
    await running


async def test_verify_takes_a_use_of_an_old_batch_for_no_duplicate(world):
    """But a fresh batch twice, one that is missing, and a wrong count of uses are named."""
    sampler, running = await mix(world)
    for _ in range(12):
        await world.close_batch()
    written = await world.written(12)
    sampler.stop()
    await running
    closed = [record async for record in to_end(world.bus, BATCHES.name)]
    mixed = [record async for record in to_end(world.bus, MIXED.name)]
    drawn = next(at for at, each in enumerate(written) if each.origin)

    def problems(records):
        ledger = Conservation()
        for record in [*closed, *records]:
            ledger.feed(record)
        report = ledger.report()
        found = report["lost"] + report["duplicated"] + report["problems"]
        return [line for line in found if "mixed topic" in line]

    assert [] == problems(mixed)
    assert ["batch 0 on the mixed topic"] == problems([mixed[0], *mixed])
    assert ["batch 1 on the mixed topic"] == problems([mixed[0], *mixed[2:]])[:1]
    pointer = msgspec.structs.replace(written[drawn].episodes[0], uses=9)
    wrong = msgspec.structs.replace(
        written[drawn], episodes=(pointer, *written[drawn].episodes[1:])
    )
    bad = msgspec.structs.replace(mixed[drawn], value=codec.encode(wrong))
    assert 1 == len(problems([*mixed[:drawn], bad, *mixed[drawn + 1 :]]))
