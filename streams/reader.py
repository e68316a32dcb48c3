"""Reading topics from where one likes to their end of now, as committed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus import BusSettings, Record, consumer, partitions_of, record_of, running
from odradek.infra.errors import BusError


async def to_end(
    bus: BusSettings,
    *names: str,
    begin: dict[tuple[str, int], int] | None = None,
    stall_s: float = 30.0,
) -> AsyncIterator[Record]:
    """All committed records of topics (names without prefix) up to their ends of now.

    Args:
        bus: Where Kafka is.
        names: Topics without prefix.
        begin: First offset by (topic, partition); the beginning where nothing is given.
        stall_s: How long to wait for an end that does not come nearer (an open transaction holds
            it back no longer than its timeout).

    Raises:
        TopicMissing: A topic is not there.
        BusError: The end was not reached.
    """
    reader = consumer(bus)
    async with running(reader, bus):
        ends = await _assign(reader, bus, names, begin or {})
        last = asyncio.get_running_loop().time()
        while ends:
            fetched = await reader.getmany(timeout_ms=100, max_records=5000)
            for messages in fetched.values():
                for message in messages:
                    yield record_of(message, bus)
            now = asyncio.get_running_loop().time()
            if fetched:
                last = now
            for partition in list(ends):
                if await reader.position(partition) >= ends[partition]:
                    reader.pause(partition)
                    del ends[partition]
            if now - last > stall_s:
                raise BusError(f"these did not end within {stall_s:g} s: {sorted(ends)}")


async def _assign(
    reader: Any, bus: BusSettings, names: tuple[str, ...], begin: dict[tuple[str, int], int]
) -> dict[TopicPartition, int]:
    """Put the reader on all partitions; return the end of each that holds something."""
    wanted = [
        partition for name in names for partition in await partitions_of(reader, bus.topic(name))
    ]
    reader.assign(wanted)
    try:
        first = await reader.beginning_offsets(wanted)
        ends = await reader.end_offsets(wanted)
    except KafkaError as error:
        raise BusError(f"offsets cannot be read: {error!r}") from error
    for partition in wanted:
        asked = begin.get((bus.bare(partition.topic), partition.partition), first[partition])
        reader.seek(partition, max(asked, first[partition]))
    return {
        partition: ends[partition]
        for partition in wanted
        if ends[partition]
        > begin.get((bus.bare(partition.topic), partition.partition), first[partition])
    }
