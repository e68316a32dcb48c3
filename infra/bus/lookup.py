"""Reading single records, and short stretches, wherever they stand: by address, not by scanning."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus.appender import Record, RecordAddress
from odradek.infra.bus.clients import consumer, running, topic_partitions
from odradek.infra.bus.dead_letters import record_of
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError

POLL_MS: Final = 200
FETCH_BYTES: Final = 256 * 1024
"""What one look-up fetches of a partition: a larger record comes whole all the same."""
NEAR: Final = 200
"""Records that are rather read than passed over by another look-up."""
STALL_POLLS: Final = 150
"""Fetches in a row that bring nothing, after which the log counts as silent."""


class RecordLookup:
    """One connection that goes to wherever it is asked to. Nothing is committed.

    Args:
        bus: Where Kafka is.
        reader: A consumer that has begun.
    """

    def __init__(self, bus: BusSettings, reader: AIOKafkaConsumer) -> None:
        self._bus = bus
        self._reader = reader
        self._bounds: dict[str, list[tuple[int, int]]] = {}

    async def bounds(self, topic: str) -> list[tuple[int, int]]:
        """By partition, the first offset and the one behind the last, when first asked for.

        A topic (name without prefix) that is missing has no partition. Raises BusError.
        """
        if topic not in self._bounds:
            try:
                self._bounds[topic] = await self._take_on(topic)
            except KafkaError as error:
                raise BusError(f"offsets of {topic} cannot be read: {error!r}") from error
        return self._bounds[topic]

    async def _take_on(self, topic: str) -> list[tuple[int, int]]:
        fresh = await topic_partitions(self._reader, self._bus.topic(topic))
        if not fresh:
            return []
        held = [*self._reader.assignment(), *fresh]
        self._reader.assign(held)
        for on in held:  # a position of its own at once: nothing is reset to anywhere
            self._reader.seek(on, 0)
        self._reader.pause(*held)  # only what is asked for is fetched
        first = await self._reader.beginning_offsets(fresh)
        end = await self._reader.end_offsets(fresh)
        return [(first[on], end[on]) for on in fresh]

    async def _of(self, topic: str, partition: int) -> tuple[int, int] | None:
        bounds = await self.bounds(topic)
        return bounds[partition] if partition < len(bounds) else None

    async def at_time(self, topic: str, partition: int, timestamp: float) -> int:
        """The first offset that was written at a time (Unix seconds) or later, else the end."""
        bounds = await self._of(topic, partition)
        if bounds is None:
            return 0
        on = TopicPartition(self._bus.topic(topic), partition)
        answer = (await self._reader.offsets_for_times({on: max(0, int(timestamp * 1000))}))[on]
        return bounds[1] if answer is None else int(answer.offset)

    async def stretch(self, topic: str, partition: int, offset: int) -> tuple[list[Record], int]:
        """What one fetch brings from an offset on, and the offset behind it.

        Raises BusError where the log says nothing.
        """
        bounds = await self._of(topic, partition)
        if bounds is None or offset >= bounds[1]:
            return [], offset
        on = TopicPartition(self._bus.topic(topic), partition)
        self._reader.seek(on, max(offset, bounds[0]))
        self._reader.resume(on)
        try:
            for _ in range(STALL_POLLS):
                fetched = await self._reader.getmany(on, timeout_ms=POLL_MS)
                reached = await self._reader.position(on)
                if fetched or reached > offset:
                    messages = fetched.get(on, [])
                    return [record_of(message, self._bus) for message in messages], reached
        finally:
            self._reader.pause(on)
        raise BusError(f"{topic}[{partition}] brings nothing from {offset} on")

    async def records(self, addresses: Iterable[RecordAddress]) -> dict[RecordAddress, Record]:
        """The records at addresses; one that was deleted, or never was, is left out.

        Raises BusError where the log says nothing.
        """
        wanted: dict[tuple[str, int], list[int]] = {}
        for address in addresses:
            wanted.setdefault((address.topic, address.partition), []).append(address.offset)
        found: dict[RecordAddress, Record] = {}
        for (topic, partition), offsets in wanted.items():
            await self._collect(topic, partition, sorted(set(offsets)), found)
        return found

    async def _collect(
        self,
        topic: str,
        partition: int,
        offsets: list[int],
        found: dict[RecordAddress, Record],
    ) -> None:
        """Records of one partition, read on where the next one is near."""
        bounds = await self._of(topic, partition)
        if bounds is None:
            return
        left = [offset for offset in offsets if bounds[0] <= offset < bounds[1]]
        while left:
            at = left[0]
            while left and left[0] - at <= NEAR:
                records, reached = await self.stretch(topic, partition, at)
                asked = set(left)
                found |= {record.address: record for record in records if record.offset in asked}
                left = [offset for offset in left if offset >= reached]
                at = reached


@asynccontextmanager
async def looking_up(bus: BusSettings) -> AsyncIterator[RecordLookup]:
    """Inside, records can be looked up. Raises KafkaUnreachable."""
    async with running(consumer(bus, partition_bytes=FETCH_BYTES), bus) as reader:
        yield RecordLookup(bus, reader)
