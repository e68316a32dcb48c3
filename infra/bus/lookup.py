"""Reading single records, and short stretches, wherever they stand: by address, not by scanning."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus.appender import Record, RecordAddress
from odradek.infra.bus.clients import consumer, running, topic_partitions
from odradek.infra.bus.dead_letters import record_of
from odradek.infra.bus.reader import at_offsets, read_range, to_end
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError

POLL_MS: Final = 200
FETCH_BYTES: Final = 128 * 1024
"""What one look-up fetches of a partition: a larger record comes whole all the same."""
NEAR: Final = 200
"""Records that are rather read than passed over by another look-up."""
MAX_RECORDS: Final = 256
"""Records that are looked at before it is seen what is still wanted."""
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
        self._at: dict[TopicPartition, int] = {}
        """Where each partition is read on without a new fetch."""

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
        self._at.clear()
        self._reader.pause(*held)  # only what is asked for is fetched
        first = await self._reader.beginning_offsets(fresh)
        end = await self._reader.end_offsets(fresh)
        return [(first[on], end[on]) for on in fresh]

    async def _of(self, topic: str, partition: int) -> tuple[int, int] | None:
        bounds = await self.bounds(topic)
        return bounds[partition] if partition < len(bounds) else None

    async def forgotten(self, address: RecordAddress) -> bool:
        """Whether the beginning of its partition lies behind an address: nothing is read for it."""
        bounds = await self._of(address.topic, address.partition)
        return bounds is not None and address.offset < bounds[0]

    def span(
        self, topic: str, partition: int, *, start: int | None = None, end: int | None = None
    ) -> AsyncGenerator[Record, None]:
        """Records [start, end) of a partition, on a connection of their own; see `read_range`."""
        return read_range(self._bus, topic, partition, start=start, end=end)

    def whole(
        self,
        topic: str,
        since: Mapping[int, int] | None = None,
        *,
        stall_s: float | None = 30.0,
    ) -> AsyncGenerator[Record, None]:
        """All records of a topic up to its end of now, on a connection of their own.

        Args:
            topic: Its name without prefix.
            since: By partition, where to begin, if not at the beginning.
            stall_s: See `to_end`.
        """
        start = at_offsets(self._bus, {(topic, at): begin for at, begin in (since or {}).items()})
        return to_end(self._bus, topic, start=start, stall_s=stall_s)

    async def at_time(self, topic: str, partition: int, timestamp: float) -> int:
        """The first offset that was written at a time (Unix seconds) or later, else the end."""
        bounds = await self._of(topic, partition)
        if bounds is None:
            return 0
        on = TopicPartition(self._bus.topic(topic), partition)
        answer = (await self._reader.offsets_for_times({on: max(0, int(timestamp * 1000))}))[on]
        return bounds[1] if answer is None else int(answer.offset)

    async def stretch(
        self, topic: str, partition: int, offset: int, *, most: int | None = None
    ) -> tuple[list[Record], int]:
        """What one fetch brings from an offset on, and the offset behind it.

        Args:
            topic: Its name without prefix.
            partition: Which.
            offset: The first that is wanted.
            most: Records, at most. The next stretch is of the same fetch if it follows this one.

        Raises BusError where the log says nothing.
        """
        bounds = await self._of(topic, partition)
        if bounds is None or offset >= bounds[1]:
            return [], offset
        on = TopicPartition(self._bus.topic(topic), partition)
        if self._at.get(on) != offset:
            self._reader.seek(on, max(offset, bounds[0]))
        self._reader.resume(on)
        try:
            for _ in range(STALL_POLLS):
                fetched = await self._reader.getmany(on, timeout_ms=POLL_MS, max_records=most)
                self._at[on] = reached = await self._reader.position(on)
                if fetched or reached > offset:
                    messages = fetched.get(on, [])
                    return [record_of(message, self._bus) for message in messages], reached
        finally:
            self._reader.pause(on)
        raise BusError(f"{topic}[{partition}] brings nothing from {offset} on")

    async def records(self, addresses: Iterable[RecordAddress]) -> dict[RecordAddress, Record]:
        """The records at addresses; one that was deleted, or never was, is left out.

        All partitions are read at once, each only where records are wanted.
        Raises BusError where the log says nothing.
        """
        left: dict[TopicPartition, list[int]] = {}
        for address in sorted(set(addresses), key=lambda address: address.offset):
            bounds = await self._of(address.topic, address.partition)
            if bounds is not None and bounds[0] <= address.offset < bounds[1]:
                on = TopicPartition(self._bus.topic(address.topic), address.partition)
                left.setdefault(on, []).append(address.offset)
        found: dict[RecordAddress, Record] = {}
        for on, offsets in left.items():
            self._reader.seek(on, offsets[0])
        self._reader.resume(*left)
        try:
            await self._collect(left, found)
        finally:
            self._reader.pause(*self._reader.assignment())
            self._at.clear()
        return found

    async def _collect(
        self, left: dict[TopicPartition, list[int]], found: dict[RecordAddress, Record]
    ) -> None:
        """Read until no offset is left; what is far ahead is gone to, and what is near read to."""
        polls = 0
        while left:
            fetched = await self._reader.getmany(*left, timeout_ms=POLL_MS, max_records=MAX_RECORDS)
            polls = 0 if fetched else polls + 1
            if polls > STALL_POLLS:
                raise BusError(f"{min(left).topic} brings nothing from {min(left.values())[0]} on")
            for on, messages in fetched.items():
                wanted = set(left[on])
                found |= {
                    record.address: record
                    for record in (
                        record_of(message, self._bus)
                        for message in messages
                        if message.offset in wanted
                    )
                }
            for on in list(left):
                reached = await self._reader.position(on)
                left[on] = [offset for offset in left[on] if offset >= reached]
                if not left[on]:
                    self._reader.pause(on)
                    del left[on]
                elif left[on][0] - reached > NEAR:
                    self._reader.seek(on, left[on][0])


@asynccontextmanager
async def looking_up(
    bus: BusSettings, *, fetch_bytes: int = FETCH_BYTES
) -> AsyncIterator[RecordLookup]:
    """Inside, records can be looked up.

    Args:
        bus: Where Kafka is.
        fetch_bytes: What one stretch brings, about.

    Raises KafkaUnreachable.
    """
    async with running(consumer(bus, partition_bytes=fetch_bytes), bus) as reader:
        yield RecordLookup(bus, reader)
