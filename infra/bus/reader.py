"""Reading topics as committed readers see them, without a group: nothing is committed.

`read_range` reads a stretch of one partition, `to_end` whole topics to their ends of now, and
`follow` goes on for ever. `following` is `follow` for those who must know that it has begun before
they do something else. Where these three begin, a `Start` says. `read_below` is for those who have
a consumer already.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus.appender import Record
from odradek.infra.bus.clients import check_position, consumer, partitions_of, running
from odradek.infra.bus.dead_letters import record_of
from odradek.infra.bus.settings import BusSettings
from odradek.infra.errors import BusError

POLL_MS: Final = 200
MAX_RECORDS: Final = 5000
"""Records of one fetch."""

Positions = dict[TopicPartition, int]
Start = Callable[[AIOKafkaConsumer, list[TopicPartition]], Awaitable[Positions]]
"""Says at which offset reading of each partition begins."""


async def at_beginning(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
    """Start at the oldest record."""
    positions: Positions = await reader.beginning_offsets(partitions)
    return positions


async def at_end(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
    """Start behind the newest record."""
    positions: Positions = await reader.end_offsets(partitions)
    return positions


def at_offsets(bus: BusSettings, offsets: Mapping[tuple[str, int], int]) -> Start:
    """Start at the offset of each (topic, partition), or behind it where the log begins later.

    The topics are named without prefix. Partitions that are not named are read from their
    beginnings.
    """

    async def start(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        return {
            where: max(offsets.get((bus.bare(where.topic), where.partition), 0), first)
            for where, first in (await at_beginning(reader, partitions)).items()
        }

    return start


async def read_range(
    bus: BusSettings,
    topic: str,
    partition: int,
    *,
    start: int | None = None,
    end: int | None = None,
) -> AsyncGenerator[Record, None]:
    """Records [start, end) of a partition.

    Args:
        bus: Where Kafka is.
        topic: Without prefix.
        partition: Which.
        start: First offset; the beginning if not given.
        end: Offset after the last; what is the end now if not given.

    Raises:
        PositionLost: Retention has deleted `start`.
    """
    where = TopicPartition(bus.topic(topic), partition)

    async def begin(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        beginning = (await at_beginning(reader, partitions))[where]
        check_position(where, start, beginning)
        return {where: beginning if start is None else start}

    async with _reading(bus, [where], begin) as (reader, positions):
        now = (await at_end(reader, [where]))[where]
        ends = {where: now if end is None else min(end, now)}
        async with aclosing(read_below(bus, reader, positions, ends)) as records:
            async for record in records:
                yield record


async def to_end(
    bus: BusSettings,
    *topics: str,
    start: Start = at_beginning,
    ready: Callable[[], None] | None = None,
    stall_s: float | None = 30.0,
) -> AsyncGenerator[Record, None]:
    """All records of topics up to their ends of now.

    Args:
        bus: Where Kafka is.
        topics: Names without prefix.
        start: Where to begin.
        ready: Called once it is known where reading begins and ends.
        stall_s: How long to wait for an end that does not come nearer (an open transaction holds
            it back no longer than its timeout); None for as long as it takes.

    Raises:
        TopicMissing: A topic is not there.
        BusError: The end was not reached.
    """
    async with _reading(bus, topics, start) as (reader, positions):
        try:
            ends = await at_end(reader, list(positions))
        except KafkaError as error:
            raise BusError(f"offsets cannot be read: {error!r}") from error
        if ready is not None:
            ready()
        async with aclosing(read_below(bus, reader, positions, ends, stall_s=stall_s)) as records:
            async for record in records:
                yield record


async def follow(
    bus: BusSettings,
    *topics: str,
    start: Start = at_beginning,
    ready: Callable[[], None] | None = None,
) -> AsyncGenerator[Record, None]:
    """All records of topics as they come, for ever.

    Args:
        bus: Where Kafka is.
        topics: Names without prefix.
        start: Where to begin.
        ready: Called once that is known: what is published later will be seen.

    Raises:
        TopicMissing: A topic is not there.
    """
    async with following(bus, *topics, start=start) as records:
        if ready is not None:
            ready()
        async for record in records:
            yield record


@asynccontextmanager
async def following(
    bus: BusSettings, *sources: str | TopicPartition, start: Start = at_beginning
) -> AsyncIterator[AsyncGenerator[Record, None]]:
    """Inside, all records of topics as they come: what is published from its entry on will be seen.

    Args:
        bus: Where Kafka is.
        sources: Names of topics without prefix, or single partitions of topics with their prefix.
        start: Where to begin.

    Raises:
        TopicMissing: A topic is not there.
    """
    async with (
        _reading(bus, sources, start) as (reader, _),
        aclosing(_for_ever(bus, reader)) as records,
    ):
        yield records


async def _for_ever(bus: BusSettings, reader: AIOKafkaConsumer) -> AsyncGenerator[Record, None]:
    while True:
        fetched = await reader.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        for messages in fetched.values():
            for message in messages:
                yield record_of(message, bus)


@asynccontextmanager
async def _reading(
    bus: BusSettings, sources: Iterable[str | TopicPartition], start: Start
) -> AsyncIterator[tuple[AIOKafkaConsumer, Positions]]:
    """A consumer on partitions, or all partitions of topics, and where it begins on each."""
    async with running(consumer(bus), bus) as reader:
        partitions: list[TopicPartition] = []
        for name in sources:
            partitions += (
                await partitions_of(reader, bus.topic(name)) if isinstance(name, str) else [name]
            )
        reader.assign(partitions)
        try:
            positions = await start(reader, partitions)
        except KafkaError as error:
            raise BusError(f"offsets cannot be read: {error!r}") from error
        for partition, offset in positions.items():
            reader.seek(partition, offset)
        yield reader, positions


async def read_below(
    bus: BusSettings,
    reader: AIOKafkaConsumer,
    positions: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    *,
    stall_s: float | None = None,
) -> AsyncGenerator[Record, None]:
    """Records from where a consumer stands to the ends of its partitions.

    Args:
        bus: Where Kafka is.
        reader: A consumer that has begun, and was assigned all of these partitions anew.
        positions: Where it stands.
        ends: Where to end.
        stall_s: See `to_end`.

    Raises BusError if the end was not reached.
    """
    loop = asyncio.get_running_loop()
    moved_at = loop.time()
    left = {partition: end for partition, end in ends.items() if end > positions[partition]}
    while left:
        fetched = await reader.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        for partition, messages in fetched.items():
            for message in messages:
                if message.offset < left.get(partition, 0):
                    yield record_of(message, bus)
        if fetched:
            moved_at = loop.time()
        for partition in list(left):
            # The position also moves over transaction markers and aborted records, so it does
            # reach the end; a count of records would not.
            if await reader.position(partition) >= left[partition]:
                reader.pause(partition)
                del left[partition]
        if stall_s is not None and loop.time() - moved_at > stall_s:
            raise BusError(f"these did not end within {stall_s:g} s: {sorted(left)}")
