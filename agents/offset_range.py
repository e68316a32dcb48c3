"""Reading a stretch of one partition, once."""

from collections.abc import AsyncIterator

from aiokafka import TopicPartition

from odradek.infra.bus import BusSettings, Record, check_position, consumer, record_of, running


async def span(
    bus: BusSettings,
    topic: str,
    partition: int,
    *,
    start: int | None = None,
    end: int | None = None,
) -> AsyncIterator[Record]:
    """Records [start, end) of a partition, as committed readers see it.

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
    reader = consumer(bus)
    async with running(reader, bus):
        reader.assign([where])
        beginning = (await reader.beginning_offsets([where]))[where]
        check_position(where, start, beginning)
        now = (await reader.end_offsets([where]))[where]
        last = now if end is None else min(end, now)
        reader.seek(where, beginning if start is None else start)
        while await reader.position(where) < last:
            for messages in (await reader.getmany(timeout_ms=200)).values():
                for message in messages:
                    if message.offset >= last:
                        return
                    yield record_of(message, bus)
