"""How far a group has come with an agent's events: which partitions are ours, and what is over."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata

from odradek.infra.bus import (
    BusSettings,
    OffsetTracker,
    PartitionGroup,
    Start,
    admin,
    close,
    commit_offsets,
    consumer,
    running,
    standings,
    start,
)
from odradek.schemas.topics import A2A_EVENTS, agent_topic

COMMIT_S: Final = 0.5
log = logging.getLogger("odradek")


class OwnedEvents:
    """An owned partition of events.

    Attributes:
        number: Which.
        tracker: Which of its events are over.
        left: By offset, how many receivers an event waits for.
        lost: Whether another member has it now.
        committed: The mark and the metadata that were committed last.
    """

    def __init__(self, number: int, tracker: OffsetTracker, committed: tuple[int, str]) -> None:
        self.number = number
        self.tracker = tracker
        self.left: dict[int, int] = {}
        self.lost = False
        self.committed = committed

    def settle(self, offset: int) -> None:
        """One receiver more has an event, or never will."""
        self.left[offset] -= 1
        if not self.left[offset]:
            del self.left[offset]
            self.tracker.finish(offset)


class EventProgress:
    """A member of a consumer group on an agent's events.

    A partition's mark is its oldest event that is not over, and the metadata of the commit says
    which of those behind it are. So a successor gets again what was under way, and little else.

    Args:
        bus: Where Kafka is.
        agent: Whose events.
        group: The group's name, without prefix.
        instance: See `ODRADEK_INSTANCE`.
        begin: Where a group without progress begins.
        fail: Called with an error after which nobody knows what is over.
        lost: Called with a partition that another member has now.
    """

    def __init__(
        self,
        bus: BusSettings,
        agent: str,
        *,
        group: str,
        instance: str | None,
        begin: Start,
        fail: Callable[[BaseException], None],
        lost: Callable[[OwnedEvents], None] = lambda _: None,
    ) -> None:
        self._bus = bus
        self._topic = bus.topic(agent_topic(A2A_EVENTS, agent))
        self._name = group
        self._begin = begin
        self._fail = fail
        self._lost = lost
        self._paused = False
        self.owned: dict[int, OwnedEvents] = {}
        """By number."""
        self.reader: Any = consumer(bus, group=group, instance=instance, sticky=True)
        self._group = PartitionGroup(self._topic, self, fail)
        self.settled = self._group.settled
        """Set while every partition that is ours is read."""

    async def start(self) -> None:
        """Join the group. Raises KafkaUnreachable."""
        self._group.subscribe(self.reader)
        await start(self.reader, self._bus)

    async def leave(self) -> None:
        """Take over nothing more."""
        await self._group.aclose()

    async def aclose(self) -> None:
        """Leave the group."""
        await close(self.reader)

    def hold(self, *, still: bool) -> None:
        """Read nothing, or go on to read; to be called before each poll."""
        if not (self._paused or still):
            return
        try:
            for number in self.owned:
                where = TopicPartition(self._topic, number)
                (self.reader.pause if still else self.reader.resume)(where)
            self._paused = still
        except IllegalStateError:
            return  # a rebalance goes on; the next assignment says whose it is

    async def take(self, number: int) -> int:
        """See `PartitionOwner`."""
        where = TopicPartition(self._topic, number)
        while await self.reader.committed(where) is None:
            offset = (await self._begin(self.reader, [where]))[where]
            # Written down before anything is read: a restart begins here, and not at a later end.
            # A rebalance may refuse it; the next assignment cancels this, or it is tried again.
            mark = {where: OffsetAndMetadata(offset, "")}
            if not await commit_offsets(self.reader, mark, self._fail):
                await asyncio.sleep(COMMIT_S)
        async with running(admin(self._bus), self._bus) as client:
            standing = await standings(client, self.reader, self._bus, self._name, [where])
        offset, metadata = standing[where]
        tracker = OffsetTracker(offset, metadata)
        self.owned[number] = OwnedEvents(number, tracker, (offset, metadata))
        return offset

    def keep(self, number: int) -> int | None:
        """See `PartitionOwner`."""
        owned = self.owned.get(number)
        self._paused = True  # a new assignment begins unpaused: look again
        return None if owned is None else owned.tracker.next

    def lose(self, number: int) -> None:
        """See `PartitionOwner`."""
        owned = self.owned.pop(number)
        owned.lost = True
        self._lost(owned)

    async def commit(self) -> None:
        """See `PartitionOwner`: commit the marks that have moved."""
        marks = {
            number: (owned.tracker.low_water, owned.tracker.metadata)
            for number, owned in self.owned.items()
        }
        offsets = {
            TopicPartition(self._topic, number): OffsetAndMetadata(*mark)
            for number, mark in marks.items()
            if mark != self.owned[number].committed
        }
        if not offsets:
            return
        # If we die above this line, events that are over come again. Below it, none does.
        if not await commit_offsets(self.reader, offsets, self._fail):
            return
        for where in offsets:
            if (owned := self.owned.get(where.partition)) is not None:
                owned.committed = marks[where.partition]

    async def commit_often(self) -> None:
        """Commit for ever."""
        while True:
            await asyncio.sleep(COMMIT_S)
            await self.commit()
