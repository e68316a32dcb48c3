"""Writing for one partition in transactions, so that a member that lost it cannot.

`TransactionalWriter` is what attempts ask for, `FencedWriter` the real one, and `PlainWriter` the
one for what needs no fence, and for tests.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from odradek.infra.bus.appender import Appender
from odradek.infra.bus.clients import close, producer, start
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import LogUnavailable, PartitionLost
from odradek.infra.runtime import metrics
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.codec import Headers
from odradek.schemas.ids import key_bytes

WRITE_S: Final = 90.0
"""How long a transaction may take: longer than a broker needs to come back."""

Offsets = dict[TopicPartition, OffsetAndMetadata]
"""What a group commits: the offset of each partition, and its metadata."""


class OutgoingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record to be written."""

    topic: str
    """Without prefix."""
    key: str | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    """Where it belongs; None for where its key says."""


class TransactionalWriter(Protocol):
    """Writes records together, as the owner of a partition."""

    async def write(self, *records: OutgoingRecord) -> None:
        """Return once the log has them all, in this order. Raises PartitionLost."""
        ...

    async def aclose(self) -> None:
        """Let go."""
        ...


class FencedWriter:
    """One transactional producer for one partition; starting it fences the last owner.

    Records that come while a transaction is under way share the next one. A transaction that ends
    with an error is the last one: its producer cannot begin another, so all who come later hear the
    same, until the partition is taken over anew.

    Args:
        bus: Where Kafka is.
        group: The group that owns the partition, without prefix.
        partition: The partition's number.
        at: Called at each crash point.
        timeout_s: How long a transaction may take; None for as long as the broker is away.
    """

    def __init__(
        self,
        bus: BusSettings,
        group: str,
        partition: int,
        *,
        at: Callable[[str], None] | None = None,
        timeout_s: float | None = WRITE_S,
    ) -> None:
        self._bus = bus
        self._group = bus.group(group)
        self._client = producer(bus, transactional_id=f"{group}.{partition}")
        self._name = f"{group}[{partition}]"
        self._at = at or crash_point
        self._timeout_s = timeout_s
        self._waiting: list[tuple[tuple[OutgoingRecord, ...], asyncio.Future[None]]] = []
        self._offsets: Offsets = {}
        self._writing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def start(self) -> None:
        """Take the partition over: whoever held its producer before is refused from now on."""
        await start(self._client, self._bus)

    async def write(self, *records: OutgoingRecord) -> None:
        """See `TransactionalWriter`."""
        await asyncio.shield(self._submit(records))

    async def commit(
        self, where: TopicPartition, offset: int, metadata: str, *records: OutgoingRecord
    ) -> None:
        """Write records and commit the group's offset, together."""
        await asyncio.shield(self.submit(where, offset, metadata, *records))

    def submit(
        self, where: TopicPartition, offset: int, metadata: str, *records: OutgoingRecord
    ) -> "asyncio.Future[None]":
        """Put records and the group's offset into the next transaction, without waiting for it.

        Returns:
            Done once they are committed. Raises PartitionLost or LogUnavailable.
        """
        self._offsets[where] = OffsetAndMetadata(offset, metadata)
        return self._submit(records)

    def _submit(self, records: tuple[OutgoingRecord, ...]) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((records, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting())
        return done

    async def _write_waiting(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            offsets, self._offsets = self._offsets, {}
            together = [record for records, _ in waiting for record in records]
            if self._error is None:
                (ended,) = await asyncio.gather(
                    self._transaction(together, offsets), return_exceptions=True
                )
                self._error = self._error_for_waiters(ended)
            for _, done in waiting:
                if done.cancelled():
                    continue
                if self._error is None:
                    done.set_result(None)
                else:
                    done.set_exception(self._error)
                    done.exception()  # whoever waits gets it; nobody may wait any more

    def _error_for_waiters(self, ended: BaseException | None) -> BaseException | None:
        """The error that waiting writers get. Our own bugs pass unchanged: they end the process."""
        if isinstance(ended, ProducerFenced):
            return PartitionLost(f"another member has taken {self._name} over")
        if isinstance(ended, KafkaError | TimeoutError):
            return LogUnavailable(f"{self._name} could not write a transaction: {ended!r}")
        return ended

    async def _transaction(self, records: Sequence[OutgoingRecord], offsets: Offsets) -> None:
        began = time.perf_counter()
        async with asyncio.timeout(self._timeout_s):
            await self._client.begin_transaction()
            self._at("after_begin")
            await self._produce(records)
            self._at("after_produce_before_offsets")
            await self._send_offsets(offsets)
            self._at("after_offsets_before_commit")
            # If we die above this line, nothing was written: the open transaction times out, or the
            # next owner's start aborts it. Nobody has seen the records, and a stage's next owner
            # folds the same input into the same results. Below it, everything was written, and the
            # offsets' metadata (a stage's done mark, a dispatcher's memory) says so.
            await self._client.commit_transaction()
            self._at("after_commit")
        metrics.record(metrics.COMMIT_S, time.perf_counter() - began, "commit")
        for topic, n in Counter(record.topic for record in records).items():
            metrics.count(metrics.SENT, n, topic)

    async def _produce(self, records: Iterable[OutgoingRecord]) -> None:
        sent: list[asyncio.Future[Any]] = []
        try:
            for record in records:
                sent.append(await self._send(record))  # noqa: PERF401 - what was sent is looked at
            # aiokafka commits a transaction although the broker refused one of its records: look.
            await self._client.flush()
        except IllegalOperation:
            # Fenced between two sends: aiokafka says so of what was sent, and of the next record
            # only that there is no transaction.
            for future in sent:
                if future.done():
                    future.result()
            raise
        for future in sent:
            future.result()

    async def _send(self, record: OutgoingRecord) -> "asyncio.Future[Any]":
        sent: asyncio.Future[Any] = await self._client.send(
            self._bus.topic(record.topic),
            key=key_bytes(record.key),
            value=record.value,
            headers=list(record.headers),
            partition=record.partition,
        )
        sent.add_done_callback(_retrieve)
        return sent

    async def _send_offsets(self, offsets: Offsets) -> None:
        if offsets:
            await self._client.send_offsets_to_transaction(offsets, self._group)

    async def aclose(self) -> None:
        """See `TransactionalWriter`."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing}, timeout=5)
        await close(self._client)


def _retrieve(sent: "asyncio.Future[Any]") -> None:
    """Take note of an exception that nobody will ask for where another one came first."""
    if not sent.cancelled():
        sent.exception()


class PlainWriter:
    """Writes through an Appender, one after the other, with no fence."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender

    async def write(self, *records: OutgoingRecord) -> None:
        """See `TransactionalWriter`."""
        for record in records:
            await self._appender.append(
                record.topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                partition=record.partition,
            )

    async def aclose(self) -> None:
        """See `TransactionalWriter`."""
