"""Every consumer of the pipeline survives every kind of poison, and says what it was."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from odradek.infra.bus import (
    KafkaAppender,
    MemoryAppender,
    Record,
    ensure_topics,
    producer,
    rows,
    running,
    to_end,
)
from odradek.infra.client import subscribe
from odradek.infra.runtime import metrics
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.events import Policy, Step, Task, raw
from odradek.schemas.ids import key_bytes, key_text
from odradek.schemas.topics import (
    BATCHES,
    CONVERSATIONS,
    EPISODES,
    POLICIES,
    REWARDS,
    STEPS,
    TASKS,
    TURNS,
)
from odradek.streams.drivers.kafka import KafkaDriver
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.judges.judge import AsyncJudge
from odradek.streams.reward_service import RewardService
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from odradek.streams.stages.intake import intake
from odradek.streams.verify.report import verify
from tests.support.schemas.event_builders import episode, expected, opened, reward, sealed, turn
from tests.support.schemas.event_samples import SAMPLES
from tests.support.schemas.poison_records import Poison, corpus

AGENT = "player"


async def _never(_: Any) -> float:
    return 1.0


def _host(bus):
    from odradek.agents.host.host import Host
    from odradek.agents.runners.load import as_executor
    from odradek.agents.settings import AgentSettings
    from odradek.infra.runtime.episode_tokens import TokenSettings

    class Sealer:
        async def seal(self, *_: Any, **__: Any) -> Any:
            return None

        async def aclose(self) -> None:
            pass

    async def play(_: Any) -> None:
        pass

    settings = AgentSettings(name=AGENT, proxy_url="http://127.0.0.1:1", grace_s=0.1)
    executor = as_executor(play, "play")
    return Host(settings, bus, executor, tokens=TokenSettings(keys="k" * 40), sealer=Sealer())


def _dispatcher(bus):
    from odradek.agents.dispatch.dispatcher import Dispatcher
    from odradek.agents.settings import DispatchSettings

    return Dispatcher(DispatchSettings(), bus)


class Consumer(NamedTuple):
    """A process of the pipeline: what it reads, and what one good record makes it write."""

    make: Callable[[Any], Any]
    topic: str
    good: bytes
    key: str
    writes: str
    letters: str = "rl.dlq.v1"
    headers: tuple[tuple[str, bytes], ...] = ()


def _request() -> Consumer:
    from odradek.agents.binding.requests import SampleAddress, send_headers, send_value

    value = send_value("m1", raw({}), SampleAddress(task_id="t"))
    headers = send_headers(deadline=None, traceparent=None)
    topic = f"a2a.requests.{AGENT}"
    return Consumer(_host, topic, value, "m1", TURNS.name, f"a2a.dlq.{AGENT}", headers)


def _of(event: Any, key: str, topic: Any, writes: str, make: Callable[[Any], Any]) -> Consumer:
    return Consumer(make, topic.name, codec.encode(event), key, writes)


TASK = Task(task_id="t1", agent=AGENT, group_size=1)
CONSUMERS = {
    "dispatcher": _of(TASK, "t1", TASKS, EPISODES.name, _dispatcher),
    "host": _request(),
    "intake": _of(reward(), "e1", REWARDS, TURNS.name, lambda bus: KafkaDriver(bus, intake())),
    "assembler": _of(
        sealed(n=0), "e1", TURNS, CONVERSATIONS.name, lambda bus: KafkaDriver(bus, ASSEMBLE)
    ),
    "grouper": _of(
        episode(group_size=1), "t1", EPISODES, BATCHES.name, lambda bus: KafkaDriver(bus, GROUP)
    ),
    "reward": _of(
        SAMPLES["conversation"],
        "episode-1",
        CONVERSATIONS,
        REWARDS.name,
        lambda bus: RewardService(bus, AsyncJudge(_never), "game", everything=True),
    ),
}
OPENINGS = {TURNS.name: (opened(), "e1"), EPISODES.name: (expected(size=1), "t1")}
"""What must stand before the good record, so that it has a story to belong to."""


@contextlib.asynccontextmanager
async def at_work(process: Any):
    """A process that runs; what ends it ends the test."""
    task = asyncio.create_task(process.run())
    ready = asyncio.create_task(process.ready.wait())
    await asyncio.wait({task, ready}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        yield task
        assert not task.done(), "it ended"
    finally:
        process.stop()
        await task


async def write(bus, topic: str, poison: list[Poison]) -> list[tuple[int, int]]:
    """Append poison as it is; return where each stands."""
    async with running(producer(bus, linger_ms=5), bus) as client:
        sent = [
            await client.send(
                bus.topic(topic),
                key=one.key,
                value=one.value,
                partition=one.partition,
                headers=list(one.headers),
            )
            for one in poison
        ]
        return [(done.partition, done.offset) for done in await asyncio.gather(*sent)]


async def until(bus, topic: str, n: int, task: "asyncio.Task[None]") -> list[Record]:
    """The records of a topic, once there are n."""
    async with asyncio.timeout(60):
        while True:
            found = [one async for one in to_end(bus, topic)]
            if len(found) >= n or task.done():
                return found
            await asyncio.sleep(0.05)


@pytest.mark.broker
@pytest.mark.parametrize("name", CONSUMERS)
async def test_poison_is_put_aside_with_its_place_and_reason_and_the_next_is_served(bus, name):
    """Original bytes, key and headers; the process that met it goes on."""
    consumer = CONSUMERS[name]
    await ensure_topics(bus, rows(agents=[AGENT]))
    appender = await KafkaAppender.connect(bus)
    if consumer.topic in OPENINGS:
        event, key = OPENINGS[consumer.topic]
        await appender.append(consumer.topic, key=key, value=codec.encode(event))
    poison = corpus(consumer.good, consumer.key, 3, consumer.headers)
    before = metrics.total(metrics.DEAD_LETTERS)
    places = await write(bus, consumer.topic, poison)
    await appender.append(
        consumer.topic, key=consumer.key, value=consumer.good, headers=consumer.headers
    )
    async with at_work(consumer.make(bus)) as task:
        letters = await until(bus, consumer.letters, len(poison), task)
        assert await until(bus, consumer.writes, 1, task), "the good record behind it was served"
    await appender.aclose()
    found = {
        (int(header(one.headers, "dlq-partition")), int(header(one.headers, "dlq-offset"))): one
        for one in letters
    }
    for one, place in zip(poison, places, strict=True):
        letter = found.pop(place, None)
        assert letter is not None, f"{one.name} was put aside"
        assert header(letter.headers, "dlq-reason") in one.reasons, one.name
        assert consumer.topic == header(letter.headers, "dlq-topic")
        assert (one.value, one.key) == (letter.value, key_bytes(letter.key)), one.name
        assert one.headers == letter.headers[: len(one.headers)]
    assert {} == found
    assert len(poison) == metrics.total(metrics.DEAD_LETTERS) - before


@pytest.mark.parametrize("name", ["intake", "assembler", "grouper"])
async def test_a_fold_puts_each_poison_aside_without_a_broker(name):
    """The same corpus, smaller, through the driver in memory."""
    stage = {"intake": intake(), "assembler": ASSEMBLE, "grouper": GROUP}[name]
    consumer = CONSUMERS[name]
    log = MemoryAppender(3)
    poison = corpus(consumer.good, consumer.key, 3, huge=2_000_000, deep=70)
    for one in poison:
        await log.append(
            consumer.topic, key=key_text(one.key), value=one.value, partition=one.partition
        )
    await MemoryDriver(log, stage).step()
    reasons = [header(one.headers, "dlq-reason") for one in log.on("rl.dlq.v1")]
    assert len(poison) == len(reasons)
    assert [] == [one.name for one in poison if not one.reasons & set(reasons)]


READ = {
    BATCHES.name: (SAMPLES["batch"], "task-1"),
    STEPS.name: (SAMPLES["step"], "run-1"),
    POLICIES.name: (SAMPLES["policy"], "policy"),
    EPISODES.name: (SAMPLES["episode"], "task-1"),
    TURNS.name: (turn(), "e1"),
}


@pytest.fixture
async def poisoned(bus):
    """A bus whose topics hold all poison, and one good record each behind it."""
    await ensure_topics(bus)
    appender = await KafkaAppender.connect(bus)
    for topic, (event, key) in READ.items():
        value = codec.encode(event)
        partitions = 3 if topic in {EPISODES.name, TURNS.name} else 1
        # Kafka itself takes no record without a key on a compacted topic.
        compact = topic == POLICIES.name
        every = corpus(value, key, partitions)
        await write(bus, topic, [one for one in every if one.key is not None or not compact])
        await appender.append(topic, key=key, value=value)
    await appender.aclose()
    return bus


@pytest.mark.broker
async def test_mere_readers_pass_poison_over_and_say_so(poisoned):
    """Subscribers and verify see the good records; each one passed over is counted."""
    for topic, (event, _) in READ.items():
        before = metrics.total(metrics.SKIPPED)
        found = [
            one async for one in subscribe(topic, since="beginning", follow=False, bus=poisoned)
        ]
        assert event in found
        assert 9 <= metrics.total(metrics.SKIPPED) - before, topic
    assert (await verify(poisoned)).as_dict()["conservation"]


@pytest.mark.broker
async def test_the_proxy_follows_policies_through_poison(poisoned):
    """What is no policy changes nothing, and the version behind it is found."""
    from odradek.proxy.engines.policy_version import PolicyVersions

    versions = PolicyVersions("policy")
    task = asyncio.create_task(versions.follow(poisoned))
    async with asyncio.timeout(60):
        while versions.current is None and not task.done():
            await asyncio.sleep(0.02)
    assert SAMPLES["policy"].version == versions.current
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.broker
async def test_the_dispatcher_hears_steps_and_batches_through_poison(poisoned):
    """Credit comes from what can be read."""
    await ensure_topics(poisoned, rows(agents=[AGENT]))
    dispatcher = _dispatcher(poisoned)
    async with at_work(dispatcher) as task:
        appender = await KafkaAppender.connect(poisoned)
        await write(poisoned, BATCHES.name, corpus(codec.encode(SAMPLES["batch"]), "task-1", 1))
        await appender.append(TASKS.name, key="t1", value=codec.encode(TASK))
        await until(poisoned, f"a2a.requests.{AGENT}", 1, task)
        await appender.aclose()


@pytest.mark.broker
@pytest.mark.torch
def test_the_trainer_reads_batches_steps_and_policies_through_poison(poisoned):
    """An unreadable batch is passed by name; a pointer that leads nowhere is refused."""
    from odradek.infra.runtime.loop_thread import LoopThread
    from odradek.trainer.feed.readers.batch_reader import LogGroups, read_all

    thread = LoopThread()
    try:
        groups = LogGroups(thread, poisoned, BATCHES.name, ends=True)
        groups.open(0)
        taken = []
        while not groups.ended():
            if (group := groups.next(0.2)) is not None:
                taken.append(group)
        groups.close()
        unreadable = [one.batch.empty_reason for one in taken if one.batch.task_id == "unreadable"]
        assert 9 <= len(unreadable)
        assert {"not_json", "too_deep", "tombstone"} <= set(unreadable)
        steps = thread.call(read_all(poisoned, STEPS.name, Step))
        policies = thread.call(read_all(poisoned, POLICIES.name, Policy))
        assert SAMPLES["step"] in steps
        assert SAMPLES["policy"] in policies
    finally:
        thread.close()


@pytest.mark.broker
@pytest.mark.torch
async def test_a_batch_that_points_at_no_topic_is_refused_by_the_trainer(bus):
    """A record that names what is not there is that record's mistake, and no reason to end."""
    import msgspec

    from odradek.infra.runtime.loop_thread import LoopThread
    from odradek.trainer.feed.readers.batch_reader import LogGroups

    await ensure_topics(bus)
    batch = SAMPLES["batch"]
    batch = msgspec.structs.replace(
        batch,
        purpose="train",
        zero_variance=False,
        empty_reason="",
        episodes=tuple(
            msgspec.structs.replace(batch.episodes[0], topic=topic, reward=float(n))
            for n, topic in enumerate(("no.such.topic", "../up", "x" * 300))
        ),
    )
    appender = await KafkaAppender.connect(bus)
    await appender.append(BATCHES.name, key=batch.task_id, value=codec.encode(batch))
    await appender.aclose()
    thread = LoopThread()
    try:
        groups = LogGroups(thread, bus, BATCHES.name, ends=True)
        groups.open(0)
        group = None
        while group is None:
            group = groups.next(0.5)
        assert ["missing_record"] * 3 == [one.reason for one in group.refused]
        groups.close()
    finally:
        thread.close()
