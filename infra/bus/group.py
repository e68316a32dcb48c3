"""Being a member of a consumer group without losing or doubling a record.

`PartitionGroup` follows the assignments of one topic. It tells a `PartitionOwner` which partitions
to take over, which to keep through a rebalance, and which to let go. Hosts, dispatchers and stages
are such owners.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from odradek.infra.errors import PartitionLost

log = logging.getLogger("odradek")

DOUBT_S: Final = 15.0
"""How long a new assignment may take to explain that we were fenced."""


class PartitionOwner(Protocol):
    """What owns partitions."""

    async def take(self, number: int) -> int:
        """Take a partition over; return the offset at which reading begins."""
        ...

    def keep(self, number: int) -> int | None:
        """The group was rebalanced, and a partition stays ours.

        Return the offset at which reading goes on; None if the partition is not owned.
        """
        ...

    def lose(self, number: int) -> None:
        """Another member owns a partition now."""
        ...

    async def commit(self) -> None:
        """Commit what is done."""
        ...


async def commit_offsets(
    reader: AIOKafkaConsumer,
    offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
    fail: Callable[[BaseException], None],
) -> bool:
    """Commit a group's offsets; False if they wait for the next time.

    Args:
        reader: The member.
        offsets: Where a successor begins, by partition.
        fail: Called with an answer of the broker's that is no reason to try again.
    """
    try:
        await reader.commit(offsets)
    except (CommitFailedError, IllegalStateError) as error:
        log.info("offsets wait for the rebalance: %s", type(error).__name__)
        return False
    except KafkaError as error:
        if not error.retriable:
            fail(error)
        return False
    return True


class PartitionGroup(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """Follows the assignments of one topic and hands partitions to their owner.

    Args:
        topic: The topic, with prefix.
        owner: Owns the partitions.
        fail: Called with an error that ends the process.
    """

    def __init__(
        self, topic: str, owner: PartitionOwner, fail: Callable[[BaseException], None]
    ) -> None:
        self._topic = topic
        self._owner = owner
        self._fail = fail
        self._reader: AIOKafkaConsumer = None
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._owned: set[int] = set()
        self._assigned: set[int] = set()
        self._doubts: list[asyncio.TimerHandle] = []
        self.settled = asyncio.Event()
        """Set while every assigned partition is taken over."""
        self.changes = 0
        """How often partitions came or went."""

    def subscribe(self, reader: AIOKafkaConsumer) -> None:
        """Join the group once this consumer starts."""
        self._reader = reader
        reader.subscribe([self._topic], listener=self)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins. Most partitions come back, so what goes on with them goes on."""
        del revoked
        await self._owner.commit()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """A rebalance ended."""
        try:
            self._follow({where.partition for where in assigned})
        # aiokafka logs and swallows what this callback raises, and would go on reading partitions
        # that nobody has taken over: whatever it is ends the process.
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def _follow(self, numbers: set[int]) -> None:
        self.changes += 1
        self._assigned = numbers
        for doubt in self._doubts:
            doubt.cancel()
        self._doubts.clear()
        for number in self._owned - numbers:
            self._owned.discard(number)
            self._owner.lose(number)
        for number in set(self._taking) - numbers:
            self._taking.pop(number).cancel()
        for number in numbers:
            position = self._owner.keep(number)
            if position is None:
                self._begin(number)
            else:
                self._reader.seek(TopicPartition(self._topic, number), position)
        self._announce()

    def _begin(self, number: int) -> None:
        # No record may come before the predecessor is fenced and the position is known: the
        # partition stands still until `_take` is through.
        where = TopicPartition(self._topic, number)
        self._reader.seek(where, 0)
        self._reader.pause(where)
        if number not in self._taking:
            self._taking[number] = asyncio.create_task(self._take(number))
            self._taking[number].add_done_callback(self._take_ended)

    async def _take(self, number: int) -> None:
        position = await self._owner.take(number)
        # From the owner's last wait to here nothing waits, so no rebalance comes between. An owner
        # that was fenced while it took over has said so by `doubt`, and owns nothing.
        if self._taking.get(number) is asyncio.current_task():
            del self._taking[number]
            self._enter(number, position)
        self._announce()

    def _enter(self, number: int, position: int) -> None:
        self._owned.add(number)
        self.changes += 1
        where = TopicPartition(self._topic, number)
        self._reader.seek(where, position)
        self._reader.resume(where)

    def take_again(self, number: int) -> None:
        """Take a partition over anew that another member has had meanwhile.

        For a partition that was kept through a rebalance and is fenced at its first write since:
        its owner missed a generation of the group in which somebody else had the partition. What
        stands in memory is of the time before.
        """
        self._owned.discard(number)
        try:
            self._begin(number)
        except IllegalStateError:
            return  # another rebalance goes on; the next assignment says whose it is
        self._announce()

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

    def _take_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _announce(self) -> None:
        if self._taking:
            self.settled.clear()
        else:
            log.info("%s: owns partitions %s", self._topic, sorted(self._owned))
            self.settled.set()

    async def aclose(self) -> None:
        """Take over nothing more."""
        for doubt in self._doubts:
            doubt.cancel()
        for task in self._taking.values():
            task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
