"""Writing for one request partition in transactions, so that a host that lost it cannot.

`TransactionalWriter` is what attempts ask for, `FencedWriter` the real one, and `PlainWriter` the
one for tests and for logs without transactions.
"""

import asyncio
from typing import Final, Protocol

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from odradek.agents.errors import PartitionLost
from odradek.infra.bus import Appender, BusSettings, close, producer, start
from odradek.infra.errors import LogUnavailable
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.codec import Headers

WRITE_S: Final = 90.0
"""How long a transaction may take: longer than a broker needs to come back."""


class OutgoingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record to be written."""

    topic: str
    """Without prefix."""
    key: str
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


class TransactionalWriter(Protocol):
    """Writes entries together, as the owner of a request partition."""

    async def write(self, *entries: OutgoingRecord) -> None:
        """Return once the log has them all, in this order. Raises PartitionLost."""
        ...

    async def aclose(self) -> None:
        """Let go."""
        ...


class FencedWriter:
    """One transactional producer for one request partition; starting it fences the last owner.

    Entries that come while a transaction is under way share the next one. A transaction that ends
    with an error is the last one: its producer cannot begin another, so all who come later hear the
    same, until the partition is taken over anew.
    """

    def __init__(self, bus: BusSettings, group: str, partition: int) -> None:
        self._bus = bus
        self._group = bus.group(group)
        self._client = producer(bus, transactional_id=f"{group}.{partition}")
        self._name = f"{group}[{partition}]"
        self._waiting: list[tuple[tuple[OutgoingRecord, ...], asyncio.Future[None]]] = []
        self._offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._writer: asyncio.Task[None] | None = None
        self._over: BaseException | None = None

    async def start(self) -> None:
        """Take the partition over: whoever held its producer before is refused from now on."""
        await start(self._client, self._bus)

    async def commit(
        self, where: TopicPartition, offset: int, metadata: str, *entries: OutgoingRecord
    ) -> None:
        """Write entries and commit the group's offset, together."""
        self._offsets[where] = OffsetAndMetadata(offset, metadata)
        await self.write(*entries)

    async def write(self, *entries: OutgoingRecord) -> None:
        """See `TransactionalWriter`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain())
        await asyncio.shield(done)

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            offsets, self._offsets = self._offsets, {}
            together = [entry for entries, _ in batch for entry in entries]
            if self._over is None:
                (ended,) = await asyncio.gather(
                    self._transaction(together, offsets), return_exceptions=True
                )
                self._over = self._problem(ended)
            for _, done in batch:
                if done.cancelled():
                    continue
                if self._over is None:
                    done.set_result(None)
                else:
                    done.set_exception(self._over)
                    done.exception()  # whoever waits gets it; nobody may wait any more

    def _problem(self, ended: BaseException | None) -> BaseException | None:
        """What to tell those who wait: a mistake of ours as it is, for it ends the process."""
        if isinstance(ended, ProducerFenced):
            return PartitionLost(f"another host has taken {self._name} over")
        if isinstance(ended, KafkaError | TimeoutError):
            return LogUnavailable(f"{self._name} could not write a transaction: {ended!r}")
        return ended

    async def _transaction(
        self, entries: list[OutgoingRecord], offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        async with asyncio.timeout(WRITE_S):
            await self._client.begin_transaction()
            crash_point("after_begin")
            sent = [await self._send(entry) for entry in entries]
            # aiokafka commits a transaction although the broker refused one of its records: look.
            await self._client.flush()
            for future in sent:
                future.result()
            crash_point("after_produce_before_offsets")
            if offsets:
                await self._client.send_offsets_to_transaction(offsets, self._group)
            crash_point("after_offsets_before_commit")
            # Dying above this line leaves an open transaction, which the next owner's start
            # aborts: nobody has seen the entries. Below it they all stand.
            await self._client.commit_transaction()
            crash_point("after_commit")

    async def _send(self, entry: OutgoingRecord) -> "asyncio.Future[object]":
        sent: asyncio.Future[object] = await self._client.send(
            self._bus.topic(entry.topic),
            key=entry.key.encode(),
            value=entry.value,
            headers=list(entry.headers),
            partition=entry.partition,
        )
        sent.add_done_callback(_seen)
        return sent

    async def aclose(self) -> None:
        """See `TransactionalWriter`."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=5)
        await close(self._client)


def _seen(sent: "asyncio.Future[object]") -> None:
    """Take note of an exception that nobody will ask for where another one came first."""
    if not sent.cancelled():
        sent.exception()


class PlainWriter:
    """Writes through an Appender, one after the other, with no fence."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender

    async def write(self, *entries: OutgoingRecord) -> None:
        """See `TransactionalWriter`."""
        for entry in entries:
            await self._appender.append(
                entry.topic,
                key=entry.key,
                value=entry.value,
                headers=entry.headers,
                partition=entry.partition,
            )

    async def aclose(self) -> None:
        """See `TransactionalWriter`."""
