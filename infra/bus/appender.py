"""Appending one record and knowing that the log has it: the seam between processes and Kafka.

`Appender` is what processes ask for, `KafkaAppender` the real one, `MemoryAppender` the one for
tests; both pass the same suite.
"""

import asyncio
import logging
import time
from typing import Any, Final, Protocol

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from odradek.infra.bus.clients import close, producer, start
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError, LogUnavailable
from odradek.infra.runtime import metrics
from odradek.schemas.codec import Headers
from odradek.schemas.ids import key_bytes, partition_for

PATIENT_S: Final = 120.0
"""How long to wait for the log where nobody waits for us: an outage costs time, and no work."""
RENEW_S: Final = 1.0
log = logging.getLogger("odradek")


class RecordAddress(msgspec.Struct, frozen=True):
    """Where a record stands."""

    topic: str
    """Without prefix."""
    partition: int
    offset: int


class Record(msgspec.Struct, frozen=True):
    """A record as our readers see it."""

    topic: str
    """Without prefix."""
    partition: int
    offset: int
    key: str | None
    """As `key_text` gives it: `key_bytes` has the bytes back, also of what is no UTF-8."""
    value: bytes | None
    headers: Headers = ()
    timestamp: float = 0.0
    """Unix seconds: append time or create time, as the topic says."""
    appended: bool = False
    """Whether the timestamp is the broker's append time."""

    @property
    def address(self) -> RecordAddress:
        """Where it stands."""
        return RecordAddress(self.topic, self.partition, self.offset)


class Appender(Protocol):
    """Appends records durably."""

    async def append(
        self,
        topic: str,
        *,
        key: str | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> RecordAddress:
        """Return once all in-sync replicas have the record; else raise LogUnavailable, in time."""
        ...

    async def aclose(self) -> None:
        """Send pending records and close."""
        ...


class KafkaAppender:
    """Appends through an idempotent producer with acks=all.

    A broker that is away is waited for by the producer itself. What it cannot get over is an answer
    that is no reason to try again: aiokafka has counted the refused batch's sequence numbers
    already, so the broker takes nothing more from it on that partition. It is replaced then.
    """

    def __init__(
        self, client: AIOKafkaProducer, bus: BusSettings, timeout_s: float, linger_ms: int = 0
    ) -> None:
        self.renewed = 0
        """How often the producer was replaced."""
        self._client = client
        self._bus = bus
        self._timeout_s = timeout_s
        self._linger_ms = linger_ms
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, bus: BusSettings, *, linger_ms: int = 0, timeout_s: float = 10.0
    ) -> "KafkaAppender":
        """Connect. Raises KafkaUnreachable."""
        client = producer(bus, linger_ms=linger_ms)
        await start(client, bus)
        return cls(client, bus, timeout_s, linger_ms)

    async def append(
        self,
        topic: str,
        *,
        key: str | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> RecordAddress:
        """See `Appender`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                metadata = await self._send(topic, key, value, headers, partition)
        except TimeoutError as error:
            raise LogUnavailable(f"{topic} took no record within {self._timeout_s:g} s") from error
        metrics.count(metrics.SENT, 1, topic)
        return RecordAddress(topic, metadata.partition, metadata.offset)

    async def _send(
        self,
        topic: str,
        key: str | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
        *,
        may_retry: bool = True,
    ) -> Any:
        if self._renewal is not None:
            await asyncio.shield(self._renewal)
        client = self._client
        try:
            sent = await client.send(
                self._bus.topic(topic),
                key=key_bytes(key),
                value=value,
                headers=list(headers),
                partition=partition,
            )
            # Shielded: giving up waiting must not cancel a batch that may still land.
            return await asyncio.shield(sent)
        except MessageSizeTooLargeError as error:
            self._replace(client)
            raise BusError(f"a record of {len(value or b'')} bytes is too large for {topic}") from (
                error
            )
        except KafkaError as error:
            if not error.retriable:
                self._replace(client)
            if error.retriable or not may_retry:
                raise LogUnavailable(f"{topic} took no record: {error!r}") from error
        # It may have landed all the same. To send it again is what our caller would do, too, and
        # readers know a repeat by its id.
        return await self._send(topic, key, value, headers, partition, may_retry=False)

    def _replace(self, worn: AIOKafkaProducer) -> None:
        if worn is self._client and self._renewal is None:
            self._renewal = asyncio.create_task(self._renew(worn))

    async def _renew(self, worn: AIOKafkaProducer) -> None:
        """Put a new producer in the place of one that the broker takes nothing more from.

        Records that the old one still has under way fail with it, or land. No caller has heard that
        they did, and a caller that sends them again sends the same bytes.
        """
        while True:
            client = producer(self._bus, linger_ms=self._linger_ms)
            try:
                await start(client, self._bus)
            except BusError as error:
                log.warning("no new producer yet: %s", error)
                await asyncio.sleep(RENEW_S)
            else:
                break
        self._client, self._renewal = client, None
        self.renewed += 1
        await close(worn)

    async def aclose(self) -> None:
        """See `Appender`."""
        if self._renewal is not None:
            self._renewal.cancel()
        await close(self._client)


class MemoryAppender:
    """A log in memory with the partitioner of Kafka; `failing` makes it refuse."""

    def __init__(self, partitions: int = 3) -> None:
        self.records: list[Record] = []
        self.failing = False
        self.partitions = partitions
        self._ends: dict[tuple[str, int], int] = {}

    async def append(
        self,
        topic: str,
        *,
        key: str | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> RecordAddress:
        """See `Appender`."""
        if self.failing:
            raise LogUnavailable(f"{topic} took no record: told to fail")
        if partition is None:
            partition = partition_for(key, self.partitions) if key is not None else 0
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        self.records.append(
            Record(topic, partition, offset, key, value, headers, timestamp=time.time())
        )
        return RecordAddress(topic, partition, offset)

    async def aclose(self) -> None:
        """See `Appender`."""

    def on(self, topic: str) -> list[Record]:
        """The records of a topic, in the order in which they came."""
        return [record for record in self.records if record.topic == topic]
