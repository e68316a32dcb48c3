"""The default driver: consume, fold and produce in one transaction per poll and partition.

One transactional id per (group, input partition): starting the producer of a partition fences
whoever owned it before, so of two owners only the newer one can commit. The committed offset is
the fold's low-water mark; how far results were written (the done mark) stands in the commit's
metadata. A new owner folds again from the low-water mark and is silent below the done mark. There
is no changelog and no table.

A partition that stays ours through a rebalance keeps its fold and its producer. Its first
transaction since then shows whether another member had it meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError

from odradek.infra.bus import (
    BusSettings,
    FencedWriter,
    PartitionGroup,
    admin,
    close,
    consumer,
    require_topics,
    running,
    standings,
    start,
)
from odradek.infra.errors import LogUnavailable, PartitionLost, PositionLost
from odradek.infra.runtime import metrics
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.topics import DLQ
from odradek.streams.drivers.partition import Commit, KafkaPartition, done_mark
from odradek.streams.errors import TransactionFailed
from odradek.streams.partition import StagePartition
from odradek.streams.stage import Stage

log = logging.getLogger("odradek")

POLL_MS: Final = 100
MAX_RECORDS: Final = 4000
"""Records of one poll: small enough that heartbeats go on, large enough to share a commit."""


class KafkaDriver:
    """Runs a stage over the partitions that its group gives to this process.

    Args:
        bus: Where Kafka is.
        stage: What folds.
        clock: Unix time; decides only when to append a Tick.
        at: Called at each crash point.
        instance: A name that outlives restarts (static membership): a restarted process comes back
            to its partitions without a rebalance, and nobody waits for its session to end.
    """

    def __init__(
        self,
        bus: BusSettings,
        stage: Stage,
        *,
        clock: Callable[[], float] = time.time,
        at: Callable[[str], None] = crash_point,
        max_records: int = MAX_RECORDS,
        instance: str | None = None,
    ) -> None:
        self.bus = bus
        self.stage = stage
        self._clock = clock
        self._at = at
        self._max_records = max_records
        self._instance = instance
        self._topic = bus.topic(stage.source.name)
        self._group = PartitionGroup(self._topic, self, self._fail)
        self.ready = self._group.settled
        """Set while every partition that the group has given to us is taken over."""
        self._stop = asyncio.Event()
        self._partitions: dict[int, KafkaPartition] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._fatal: BaseException | None = None
        self._reader: AIOKafkaConsumer = None
        self._admin: AIOKafkaAdminClient = None
        metrics.gauge(metrics.STORIES, self._open_stories)

    def _open_stories(self) -> list[tuple[float, tuple[str]]]:
        return [(sum(part.fold.open() for part in self.partitions), (self.stage.name,))]

    @property
    def partitions(self) -> list[StagePartition]:
        """The state of the stage over each partition that is ours now."""
        return [owned.stage_partition for owned in self._partitions.values()]

    def stop(self) -> None:
        """Commit the open transaction, then release the partitions."""
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        self._fatal = self._fatal or error

    async def run(self) -> None:
        """Fold until `stop()`.

        Raises:
            TransactionFailed: A commit's outcome is open; a restart finds out.
            PartitionLost: Another process writes for a partition that the group gave to us.
            PositionLost: Retention has deleted what was not processed.
            BusError: Kafka cannot be reached or used.
        """
        stage = self.stage
        names = [stage.source.name, *(sink.name for sink in stage.sinks), DLQ.name]
        await require_topics(self.bus, names)
        async with running(admin(self.bus), self.bus) as self._admin:
            self._reader = consumer(
                self.bus, group=stage.name, instance=self._instance, sticky=True
            )
            self._group.subscribe(self._reader)
            await start(self._reader, self.bus)
            try:
                while not self._stop.is_set():
                    await self._poll()
            finally:
                await self._group.aclose()
                writers = [owned.writer.aclose() for owned in self._partitions.values()]
                await asyncio.gather(*writers, *self._closing, return_exceptions=True)
                self._partitions.clear()
                await close(self._reader)

    # -- reading

    async def _poll(self) -> None:
        changes = self._group.changes
        try:
            fetched = await self._reader.getmany(timeout_ms=POLL_MS, max_records=self._max_records)
        except NoOffsetForPartitionError:
            # The assignment is being made; its callback seeks to an explicit first position.
            fetched = {}
            await asyncio.sleep(0.01)
        except OffsetOutOfRangeError as error:
            raise PositionLost(f"{self.stage.source.name}: {error}") from error
        if self._fatal is not None:
            raise self._fatal
        if changes == self._group.changes:
            await self._fold(fetched)
        else:
            # Between the fetch and now partitions came or went, and some of these records may
            # belong to partitions that are no longer ours, or stand before their low-water mark.
            # Dropping them alone would lose them: put every partition back to where it is.
            self._put_back()

    def _put_back(self) -> None:
        for owned in self._partitions.values():
            with suppress(IllegalStateError):  # a rebalance goes on; the next assignment seeks
                self._reader.seek(owned.where, owned.stage_partition.position)

    async def _fold(self, fetched: dict[TopicPartition, Any]) -> None:
        """Fold what was fetched of each partition, and commit."""
        # Until every commit has begun nothing waits, so no rebalance comes between.
        clock = self._clock()
        begun = [
            (owned, commit)
            for owned in self._partitions.values()
            if (commit := owned.advance(fetched.get(owned.where, ()), clock)) is not None
        ]
        await asyncio.gather(*(self._ended(owned, commit) for owned, commit in begun))

    async def _ended(self, owned: KafkaPartition, commit: Commit) -> None:
        """Wait until a commit's outcome is known."""
        try:
            await commit
        except PartitionLost as error:
            self._fenced(owned, error)
        except LogUnavailable as error:
            raise TransactionFailed(f"{self.stage.name}: {error}") from error

    def _fenced(self, owned: KafkaPartition, error: PartitionLost) -> None:
        """Let go of a partition that another member has taken over: it has our last commit."""
        number = owned.where.partition
        if self._partitions.get(number) is not owned:
            return  # the group has taken it away since
        log.warning("%s: partition %d was taken over", self.stage.name, number)
        self.lose(number)
        if owned.unproved:
            # Whoever fenced us owned it in a generation that we missed, and the group has given it
            # back since: what we have folded is behind the log.
            self._group.take_again(number)
        else:
            # We have committed since the last assignment, so the new owner is of a later one. A new
            # producer for it would fence the rightful owner: wait for the group to say so.
            self._group.doubt(number, error)

    # -- partitions

    async def take(self, number: int) -> int:
        """See `PartitionOwner`: fence, then read the marks. Silent up to the done mark."""
        where = TopicPartition(self._topic, number)
        writer = FencedWriter(self.bus, self.stage.name, number, at=self._at, timeout_s=None)
        # The producer first: once it has started, no commit of a previous owner can follow, so the
        # marks that are read next are the last ones.
        await writer.start()
        async with AsyncExitStack() as failed:
            # Cancelled as well: an open producer would fence its successor.
            failed.push_async_callback(writer.aclose)
            standing = await standings(
                self._admin, self._reader, self.bus, self.stage.name, [where]
            )
            failed.pop_all()
        position, metadata = standing[where]
        count = len(self._reader.partitions_for_topic(self._topic) or ())
        done = done_mark(metadata)
        stage_partition = StagePartition(self.stage, number, position, done, partitions=count)
        self._partitions[number] = KafkaPartition(where, stage_partition, writer)
        return position

    def keep(self, number: int) -> int | None:
        """See `PartitionOwner`: its fold goes on where it is."""
        owned = self._partitions.get(number)
        return None if owned is None else owned.keep()

    def lose(self, number: int) -> None:
        """See `PartitionOwner`: write nothing more."""
        closing = asyncio.create_task(self._partitions.pop(number).writer.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def commit(self) -> None:
        """See `PartitionOwner`: spare the next owner from reading again what we have read."""
        begun = [(owned, owned.commit()) for owned in self._partitions.values() if owned.ahead]
        await asyncio.gather(*(self._ended(owned, commit) for owned, commit in begun))
