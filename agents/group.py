"""Being a member of a consumer group without losing or doubling a record."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from odradek.agents.errors import PartitionLost

logger = logging.getLogger("odradek")

DOUBT_S: Final = 15.0
"""How long a new assignment may take to explain that we were fenced."""


class PartitionOwner(Protocol):
    """What owns partitions."""

    async def take(self, number: int) -> int:
        """Take a partition over; return the offset at which reading begins."""
        ...

    def lose(self, number: int) -> None:
        """Another member owns a partition now."""
        ...

    def position(self, number: int) -> int | None:
        """Where reading of an owned partition goes on; None if it is not owned."""
        ...

    async def commit(self) -> None:
        """Commit what is done."""
        ...


class PartitionGroup(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Follows the assignments of one topic and hands partitions to their tenant.

    Args:
        reader: The consumer, not yet subscribed.
        topic: Its topic, with prefix.
        tenant: Owns the partitions.
        fail: Told what ends the process.
    """

    def __init__(
        self,
        reader: AIOKafkaConsumer,
        topic: str,
        tenant: PartitionOwner,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._tenant = tenant
        self._fail = fail
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._owned: set[int] = set()
        self._assigned: set[int] = set()
        self._doubts: list[asyncio.TimerHandle] = []
        self.settled = asyncio.Event()
        """Set while every assigned partition is taken over."""

    def subscribe(self) -> None:
        """Join the group once the consumer starts."""
        self._reader.subscribe([self._topic], listener=self)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins. Most partitions come back, so what goes on with them goes on."""
        del revoked
        await self._tenant.commit()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """A rebalance ended."""
        try:
            self._follow({where.partition for where in assigned})
        # aiokafka logs and swallows what this callback raises, and would go on reading partitions
        # that nobody has taken over: whatever it is ends the process.
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def _follow(self, numbers: set[int]) -> None:
        self._assigned = numbers
        for doubt in self._doubts:
            doubt.cancel()
        self._doubts.clear()
        for number in self._owned - numbers:
            self._owned.discard(number)
            self._tenant.lose(number)
        for number in set(self._taking) - numbers:
            self._taking.pop(number).cancel()
        for number in numbers:
            where = TopicPartition(self._topic, number)
            position = self._tenant.position(number)
            if position is not None:
                self._reader.seek(where, position)
                continue
            # No record may come before the predecessor is fenced and the position is known: the
            # partition stands still until `_take` is through.
            self._reader.seek(where, 0)
            self._reader.pause(where)
            if number not in self._taking:
                self._taking[number] = asyncio.create_task(self._take(number))
                self._taking[number].add_done_callback(self._taken)
        self._tell()

    async def _take(self, number: int) -> None:
        position = await self._tenant.take(number)
        # From the tenant's last wait to here nothing waits, so no rebalance comes between.
        self._taking.pop(number, None)
        # A tenant that was fenced while it took over has told so by `doubt`, and owns nothing.
        if self._tenant.position(number) is not None:
            self._owned.add(number)
            where = TopicPartition(self._topic, number)
            self._reader.seek(where, position)
            self._reader.resume(where)
        self._tell()

    def doubt(self, number: int, error: PartitionLost) -> None:
        """Another member has fenced us off a partition: we give it up.

        Mostly its assignment is just quicker than ours, which must come soon. If none comes, the
        group has forgotten us, or somebody else uses our transactional ids: the process ends.
        To start a new producer for the partition would fence its rightful owner.
        """
        self._owned.discard(number)
        # What was taking it over works for nothing. Where it is assigned to us again before that
        # has ended, it is taken over anew.
        if (taking := self._taking.pop(number, None)) is not None:
            taking.cancel()
        self._doubts.append(
            asyncio.get_running_loop().call_later(DOUBT_S, self._settle, number, error)
        )

    def _settle(self, number: int, error: PartitionLost) -> None:
        if number in self._assigned - self._owned - set(self._taking):
            self._fail(error)

    def _taken(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _tell(self) -> None:
        if self._taking:
            self.settled.clear()
        else:
            logger.info("%s: owns partitions %s", self._topic, sorted(self._owned))
            self.settled.set()

    async def aclose(self) -> None:
        """Take over nothing more."""
        for doubt in self._doubts:
            doubt.cancel()
        for task in self._taking.values():
            task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
