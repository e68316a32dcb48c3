"""aiokafka's producer over the simulated cluster: idempotent, or transactional."""

import asyncio
from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, KafkaTimeoutError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from odradek.schemas.ids import partition_for
from tests.simulation.network import Client

_partition_for = lru_cache(maxsize=65536)(partition_for)


class Done(NamedTuple):
    """Where a record stands, as aiokafka's producers tell it."""

    topic: str
    partition: int
    offset: int


class SimProducer(Client):
    """AIOKafkaProducer: idempotent, or transactional."""

    def __init__(self, *, transactional_id: str | None = None, **_: Any) -> None:
        super().__init__()
        self._name = transactional_id
        self._epoch = -1
        self._number = next(self.net.numbers)
        self._sequence = count()
        self._queues: dict[TopicPartition, list[Any]] = {}
        self._sending: dict[TopicPartition, asyncio.Task[None]] = {}
        self._within = False
        self._touched = False
        self._fatal: KafkaError | None = None

    async def start(self) -> None:
        if self._name is not None:
            self._epoch = await self.call(self.net.cluster.init_producer, self._name)
        else:
            await self.call(self.net.cluster.now)

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Any] | None = None,
    ) -> "asyncio.Future[Done]":
        if self._fatal is not None:
            raise self._fatal
        if self._name is not None and not self._within:
            raise IllegalOperation("no transaction was begun")
        if partition is None:
            size = len(self.net.cluster.topics[topic])
            if key is None:
                partition = self.net.rng.randrange(size)
            else:
                partition = _partition_for(key.decode(), size)
        where = TopicPartition(topic, partition)
        future: asyncio.Future[Done] = self.loop.create_future()
        created = int((self.net.cluster.now() + self.life.skew) * 1000)
        record = (key, value, tuple(headers or ()), created)
        self._queues.setdefault(where, []).append((record, future))
        if where not in self._sending:
            self._sending[where] = asyncio.create_task(self._drain(where))
        return future

    async def _drain(self, where: TopicPartition) -> None:
        queue = self._queues[where]
        cluster = self.net.cluster
        try:
            while queue:
                batch = queue[:]
                queue.clear()
                records = [record for record, _ in batch]
                number = (self._number, next(self._sequence))
                try:
                    if self._name is None:
                        first = await self.call(cluster.produce, where, number, records)
                    else:
                        self._touched = True
                        first = await self.call(
                            cluster.produce_in, self._name, self._epoch, where, number, records
                        )
                except KafkaError as error:
                    self._fatal = error
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for at, (_, future) in enumerate(batch):
                    if not future.done():
                        future.set_result(Done(*where, first + at))
        finally:
            del self._sending[where]

    async def flush(self) -> None:
        # A task that was cancelled before its first step is done, and stays noted.
        while waiting := [task for task in self._sending.values() if not task.done()]:
            await asyncio.wait(waiting)

    async def begin_transaction(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._within:
            raise IllegalOperation("a transaction is under way")
        self._within, self._touched = True, False

    async def send_offsets_to_transaction(
        self, offsets: dict[TopicPartition, OffsetAndMetadata], group: str
    ) -> None:
        if not self._within:
            raise IllegalOperation("no transaction was begun")
        self._touched = True
        try:
            await self.call(
                self.net.cluster.offsets_in, self._name, self._epoch, group, dict(offsets)
            )
        except ProducerFenced as error:
            self._fatal = error
            raise

    async def commit_transaction(self) -> None:
        await self._end(commit=True)

    async def abort_transaction(self) -> None:
        await self._end(commit=False)

    async def _end(self, *, commit: bool) -> None:
        await self.flush()
        if self._fatal is not None:
            raise self._fatal
        if self._touched:
            unclear = self.net.rng.random() < self.net.chances.unclear
            if unclear and self.net.rng.random() < 0.5:
                self._fatal = KafkaTimeoutError()
                raise self._fatal
            try:
                await self.call(
                    self.net.cluster.end_transaction, self._name, self._epoch, commit=commit
                )
            except ProducerFenced as error:
                self._fatal = error
                raise
            if unclear:
                self._fatal = KafkaTimeoutError()
                raise self._fatal
        self._within = False

    async def stop(self) -> None:
        await self.flush()
