"""Reward services: each conversation that asks for it is judged, however long that takes."""

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest

from odradek.infra.bus import (
    KafkaAppender,
    admin,
    clients,
    running,
    to_end,
)
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.events import Conversation, Outcome, Reward
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from odradek.streams import reward_service
from odradek.streams.errors import RewardFailed
from odradek.streams.reward_service import RewardService
from tests.support.streams.conversations import conversation, write
from tests.support.streams.group_members import beats, begin, member

pytestmark = pytest.mark.broker


class Slow:
    """A judge that thinks about each conversation until it is let go."""

    def __init__(self, *slow: str, everything: bool = False) -> None:
        self.asked: Counter[str] = Counter()
        self.dropped: set[str] = set()
        self.go = asyncio.Event()
        self._slow = slow
        self._everything = everything

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def judge(self, conversation: Conversation, value: bytes) -> float:
        name = conversation.episode_id
        assert codec.decode(value, Conversation) == conversation
        self.asked[name] += 1
        if self._everything or name in self._slow:
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.dropped.add(name)
                raise
        if name == "bad":
            raise RewardFailed("cannot judge")
        return 0.5


async def until(what, service_task=None):
    """Wait until something holds; what ends a service meanwhile ends the test."""
    async with asyncio.timeout(60):
        while True:
            found = what()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            if service_task is not None and service_task.done():
                service_task.result()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def at_work(bus, judge, **more):
    """A service that has its partitions; a test that leaves without stopping it kills it."""
    service = RewardService(bus, judge, "brief", **more)
    task = asyncio.create_task(service.run())
    await until(service.ready.is_set, task)
    try:
        yield service, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def verdicts(bus) -> Counter:
    return Counter([record.key async for record in to_end(bus, REWARDS.name)])


async def committed(bus) -> dict[int, tuple[int, str]]:
    async with running(admin(bus), bus) as client:
        found = await client.list_consumer_group_offsets(bus.group("reward-brief"))
    return {at.partition: (mark.offset, mark.metadata) for at, mark in found.items()}


@pytest.fixture
def alone(bus):
    """A bus whose conversations stand on one partition."""
    return bus.model_copy(update={"topic_partitions": 1})


@pytest.fixture
def impatient(monkeypatch):
    """A group that puts out members which do not poll for a second; yields how long to look."""
    monkeypatch.setattr(clients, "MAX_POLL_MS", 1000)
    monkeypatch.setattr(reward_service, "BUSY_S", 0.2)
    return 4.0


async def test_who_asked_is_judged_once_and_failures_are_dead_letters(bus):
    """Only completed conversations that want the component; ids are deterministic."""
    await write(
        bus,
        conversation("good"),
        conversation("bad"),
        conversation("unasked", reward_components=("game",)),
        conversation("failed", outcome=Outcome.FAILED),
        conversation("foreign", agent="other"),
    )
    judge = Slow()
    async with at_work(bus, judge, agent="hilo") as (service, task):
        await until(lambda: sum(judge.asked.values()) == 2, task)
        letters = await until(lambda: read(bus, DLQ), task)
        (record,) = await until(lambda: read(bus, REWARDS), task)
        service.stop()
        await task
    assert {"good": 1, "bad": 1} == judge.asked
    assert Reward(
        episode_id="good", component="brief", value=0.5, source="/reward/brief"
    ) == codec.decode(record.value, Reward)
    assert "good/reward/brief" == codec.header(record.headers, "ce_id")
    (letter,) = letters
    assert "reward_failed" == codec.header(letter.headers, "dlq-reason")
    assert "bad" == letter.key
    assert 5 == sum(offset for offset, _ in (await committed(bus)).values())


async def read(bus, topic):
    return [record async for record in to_end(bus, topic.name)]


async def test_verdicts_that_take_longer_than_a_poll_may_are_given_once(alone, impatient):
    """The group hears of its member all the while, and no more is in hand than may be at once."""
    names = [f"e{n}" for n in range(7)]
    await write(alone, *map(conversation, names))
    await begin(alone, "reward-brief", CONVERSATIONS.name)
    judge = Slow(everything=True)
    async with at_work(alone, judge, concurrency=2) as (service, task):
        await until(lambda: len(judge.asked) == 2, task)
        before = member(service._reader)
        heard = beats(service._reader)
        await until(lambda: len(heard) > 1 and heard[-1] - heard[0] > impatient, task)
        assert before == member(service._reader)
        assert {"e0": 1, "e1": 1} == judge.asked
        judge.go.set()
        await until(lambda: len(judge.asked) == 7, task)
        service.stop()
        await task
    assert dict.fromkeys(names, 1) == judge.asked
    assert dict.fromkeys(names, 1) == await verdicts(alone)
    assert {0: (7, "")} == await committed(alone)


async def test_what_is_judged_is_committed_while_an_older_conversation_is_not(alone):
    """After a crash only what had no verdict is judged again."""
    await write(alone, *(conversation(f"e{n}") for n in range(6)))
    first = Slow("e0", "e3")
    async with at_work(alone, first, concurrency=3) as (_, task):
        await until(lambda: len(first.asked) == 6, task)

        async def told():
            return {0: (0, "1;6;0,3")} == await committed(alone)

        await until(told, task)
    second = Slow()
    async with at_work(alone, second) as (service, task):
        await until(lambda: len(second.asked) == 2, task)
        service.stop()
        await task
    assert {"e0": 1, "e3": 1} == second.asked
    assert {f"e{n}": 1 for n in range(6)} == await verdicts(alone)
    assert {0: (6, "")} == await committed(alone)


async def test_a_rebalance_goes_on_with_what_stays_and_drops_what_goes(bus):
    """The new owner judges what it was given; nothing is judged twice by the one who stays."""
    names = [f"e{n}" for n in range(12)]
    await write(bus, *map(conversation, names))
    first, second = Slow(everything=True), Slow()
    async with at_work(bus, first, concurrency=20) as (stays, task):
        await until(lambda: len(first.asked) == 12, task)
        async with at_work(bus, second) as (_, other):
            await until(lambda: 0 < len(stays._held) < bus.topic_partitions, other)
            await until(lambda: len(first.dropped) == len(second.asked) > 0, other)
            first.go.set()

            async def all_of_them():
                return await verdicts(bus) == dict.fromkeys(names, 1)

            await until(all_of_them, task)
    assert first.dropped == set(second.asked)
    assert dict.fromkeys(names, 1) == first.asked
    assert {1} == set(second.asked.values())


async def test_a_partition_that_another_had_meanwhile_is_begun_where_that_one_left_it(alone):
    """What the other judged is dropped, not judged again; what neither judged is."""
    await write(alone, *(conversation(f"e{n}") for n in range(4)))
    judge = Slow("e0", "e2")
    async with at_work(alone, judge) as (service, task):
        await until(lambda: len(judge.asked) == 4, task)
        await until(
            lambda: [(0, "1;4;0,2")] == [partition.committed for partition in held(service)], task
        )
        (partition,) = service._held
        (its,) = held(service)
        service._commit_at = math.inf  # no commit of its own comes between
        its.committed = (0, "1;4;0,1,2")  # what we know of is not what the group knows
        before = set(its.verdicts)
        await service.on_partitions_assigned([partition])
        assert all(verdict.cancelling() for verdict in before)
        await until(lambda: judge.asked["e0"] == 2 and judge.asked["e2"] == 2, task)
    assert {"e0": 2, "e1": 1, "e2": 2, "e3": 1} == judge.asked


def held(service):
    return list(service._held.values())


async def test_a_service_that_is_told_to_end_does_not_wait_for_a_verdict(alone, monkeypatch):
    """What is judged is committed; the rest is its successor's."""
    monkeypatch.setattr(reward_service, "GRACE_S", 0.1)
    await write(alone, *(conversation(f"e{n}") for n in range(4)))
    judge = Slow("e1")
    async with at_work(alone, judge) as (service, task):
        await until(lambda: len(judge.asked) == 4, task)
        await until(lambda: _n_verdicts(alone, 3), task)
        service.stop()
        async with asyncio.timeout(60):
            await task
    assert {"e1"} == judge.dropped
    assert {0: (1, "1;3;0")} == await committed(alone)


async def _n_verdicts(bus, n):
    return len(await verdicts(bus)) == n


async def test_a_service_that_is_told_to_end_ends_what_takes_a_moment(alone):
    """A verdict that comes within the grace is published and committed."""
    await write(alone, conversation("e0"))
    judge = Slow("e0")
    async with at_work(alone, judge) as (service, task):
        await until(lambda: judge.asked, task)
        service.stop()
        judge.go.set()
        await task
    assert {"e0": 1} == await verdicts(alone)
    assert {0: (1, "")} == await committed(alone)


async def test_a_verdict_that_the_log_does_not_take_ends_the_service(alone, monkeypatch):
    """It is not committed, so that its successor judges it."""

    async def refuses(*_, **__):
        raise LogUnavailable("told to fail")

    await write(alone, conversation("e0"))
    monkeypatch.setattr(KafkaAppender, "append", refuses)
    service = RewardService(alone, Slow(), "brief")
    with pytest.raises(LogUnavailable):
        async with asyncio.timeout(60):
            await service.run()
    assert {} == await committed(alone)
