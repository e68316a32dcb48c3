"""What a host asks its consumer about offsets."""

from typing import Any, Final

from aiokafka import TopicPartition

from odradek.infra.bus import check_position, topic_partitions


class HostOffsets:
    """Where an agent's topics begin and end, and how far its requests are done.

    Args:
        reader: The host's consumer.
        events: The topic of its agent's events, with prefix.
    """

    def __init__(self, reader: Any, events: str) -> None:
        self._reader: Final = reader
        self._events = events

    async def committed(self, where: TopicPartition) -> int:
        """The oldest request that is not done. Raises PositionLost."""
        beginning: int = (await self._reader.beginning_offsets([where]))[where]
        committed: int | None = await self._reader.committed(where)
        check_position(where, committed, beginning)
        return beginning if committed is None else committed

    async def end_of_events(self, partition: int) -> int:
        """Where a partition of the events ends."""
        where = TopicPartition(self._events, partition)
        end: int = (await self._reader.end_offsets([where]))[where]
        return end

    async def events_since(self, partition: int, moment: float) -> int:
        """Where the events of a partition begin that were appended at `moment` (Unix seconds)."""
        where = TopicPartition(self._events, partition)
        found = (await self._reader.offsets_for_times({where: int(moment * 1000)}))[where]
        return await self.end_of_events(partition) if found is None else int(found.offset)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 if it is not there."""
        return len(await topic_partitions(self._reader, topic))
