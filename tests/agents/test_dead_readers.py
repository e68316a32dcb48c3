"""A client whose reader the broker refuses, or whose reader dies: callers hear of it, and it recovers."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from a2a.types import Task
from a2a.utils.errors import InternalError
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.client import reader
from odradek.agents.client.connection import KafkaConnection
from odradek.agents.client.event_tail import EventTail
from odradek.agents.client.reader import SteadyReader
from odradek.infra.bus import BusSettings, Record
from odradek.infra.errors import BusError, TopicMissing

BUS = BusSettings(bootstrap_servers="127.0.0.1:1")
WHERE = TopicPartition("a2a.events.player", 0)


class FakeLog:
    """One partition, which `following` reads; a test may break its reader, or refuse one."""

    def __init__(self):
        self.records = []
        self.refusal = None
        self.begun = []
        self.broken = asyncio.Event()
        self.grown = asyncio.Event()

    def append(self, key="t", headers=()):
        record = Record(
            topic=WHERE.topic, partition=0, offset=len(self.records), key=key, value=b"{}",
            headers=headers, timestamp=0.0,
        )  # fmt: skip
        self.records.append(record)
        self.grown.set()

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, len(self.records))

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    @asynccontextmanager
    async def following(self, bus, *sources, start):
        if self.refusal is not None:
            raise self.refusal
        at = (await start(self, [WHERE]))[WHERE]
        self.begun.append(at)
        yield self.read(at)

    async def read(self, at):
        while True:
            if self.broken.is_set():
                self.broken.clear()
                raise TopicAuthorizationFailedError("no")
            self.grown.clear()
            while at < len(self.records):
                at += 1
                yield self.records[at - 1]
            waiting = [asyncio.create_task(e.wait()) for e in (self.broken, self.grown)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()


@pytest.fixture
async def log(monkeypatch):
    log = FakeLog()
    monkeypatch.setattr(reader, "following", log.following)
    monkeypatch.setattr(reader, "FIRST_PAUSE_S", 0.01)
    return log


async def test_a_reader_that_dies_is_replaced_by_one_behind_its_last_record(log, monkeypatch):
    """No record is heard twice and none is missed; nobody hears of an error."""
    monkeypatch.setattr(reader, "HEALTHY_S", 0.0)
    heard, lost = asyncio.Queue(), []
    steady = SteadyReader(BUS, WHERE, heard.put_nowait, lost=lost.append)
    await steady.ready()
    log.append()
    assert 0 == (await heard.get()).offset
    log.broken.set()
    log.append()
    log.append()
    assert [1, 2] == [(await heard.get()).offset for _ in range(2)]
    assert ([], 2) == (lost, len(log.begun))
    await steady.aclose()


async def test_a_stream_whose_reader_is_refused_ends_at_once_and_a_new_one_recovers(log):
    """Those that come meanwhile hear the cause, until the broker lets a reader in again."""
    tail = EventTail(BUS, "player")
    await tail.ready()
    stream = tail.stream("t", generation=0, partition=0, offset=0)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    log.refusal = TopicMissing("the topic is gone")
    log.broken.set()
    with pytest.raises(BusError, match="TopicAuthorization"):
        await waiting
    with pytest.raises(BusError, match="TopicAuthorization"):
        async with asyncio.timeout(60):
            while True:
                await tail.ready()
                await asyncio.sleep(0.01)
    with pytest.raises(BusError):
        await anext(tail.stream("t", generation=0, partition=0, offset=0))
    log.refusal = None
    async with asyncio.timeout(60):
        while True:
            try:
                await tail.ready()
                break
            except BusError:
                await asyncio.sleep(0.01)
    await tail.aclose()


async def test_calls_fail_with_the_cause_and_not_with_time(log):
    """Those that wait for a reply, and those that come later."""
    connection = KafkaConnection(BUS)
    connection._reader = SteadyReader(BUS, WHERE, connection._hear, lost=connection._fail)
    await connection._reader.ready()
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    connection._waiting |= {"a": first, "b": second}
    log.append(key="a", headers=(("a2a-status", b"200"), ("A2A-Status", b"200")))
    with pytest.raises(InternalError, match="stands there twice"):
        await first
    log.refusal = TopicMissing("the topic is gone")
    log.broken.set()
    with pytest.raises(BusError, match="replies cannot be read"):
        await second
    called = RequestHeaders(operation="GetTask")
    with pytest.raises(BusError):
        await connection.call("player", called, Task(), timeout_s=60.0)
    await connection._reader.aclose()
