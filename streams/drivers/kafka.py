"""The default driver: consume, fold and produce in one transaction per poll and partition.

One transactional id per (group, input partition): starting the producer of a partition fences
whoever owned it before, so of two owners only the newer one can commit. The committed offset is
the fold's low-water mark; how far results were written (the done mark) stands in the commit's
metadata. A new owner folds again from the low-water mark and is silent below the done mark. There
is no changelog and no table.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata

from odradek.infra.bus import (
    BusSettings,
    Record,
    admin,
    check_position,
    close,
    consumer,
    producer,
    require_topics,
    running,
    start,
)
from odradek.infra.errors import PositionLost
from odradek.infra.runtime.crash_points import crash_point
from odradek.schemas.ids import key_bytes, key_text
from odradek.schemas.topics import DLQ
from odradek.streams.errors import LaneLost, TransactionFailed
from odradek.streams.partition import Outgoing, StagePartition
from odradek.streams.stage import Stage

log = logging.getLogger("odradek")

POLL_MS: Final = 100
MAX_RECORDS: Final = 4000
"""Records of one poll: small enough that heartbeats go on, large enough to share a commit."""

IDLE_COMMIT_S: Final = 1.0
"""Progress without results is committed this often: it saves a new owner's time, no more."""

FENCED_S: Final = 30.0
"""A lane that stays fenced while the group says it is ours: end, and be assigned anew."""


class KafkaPartition:
    """A partition that we own: its lane, and the producer that proves it."""

    def __init__(self, lane: StagePartition, client: AIOKafkaProducer, committed: int) -> None:
        self.lane = lane
        self.client = client
        self.committed = committed
        """Position at the last commit."""
        self.committed_at = 0.0
        self.next_tick = 0.0
        self.tick_pause = 1.0
        self.fenced_at: float | None = None
        self._heard = (0.0, 0.0)

    def hear(self, messages: Sequence[Any], at: float) -> None:
        """Note when the broker appended the last of some messages, read at `at` (monotonic)."""
        if messages:
            self._heard = (messages[-1].timestamp / 1000, at)

    def time(self, clock: float, at: float) -> float:
        """What time it is, at least: by our clock, or by the broker's as we last heard it.

        So a clock that is behind closes nothing late. One that is ahead appends Ticks that change
        nothing: they are judged by their own append time.
        """
        told, heard_at = self._heard
        return max(clock, told + at - heard_at) if told else clock


class KafkaDriver(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
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
        self.ready = asyncio.Event()
        """Set once the group has given us partitions, or told us that there are none for us."""
        self._clock = clock
        self._at = at
        self._max_records = max_records
        self._instance = instance
        self._stop = asyncio.Event()
        self._lock = asyncio.Lock()
        self._lanes: dict[TopicPartition, KafkaPartition] = {}
        self._generation = 0
        self._fatal: BaseException | None = None
        self._reader: AIOKafkaConsumer = None
        self._admin: AIOKafkaAdminClient = None

    @property
    def lanes(self) -> list[StagePartition]:
        """The lanes that are ours now."""
        return [held.lane for held in self._lanes.values()]

    def stop(self) -> None:
        """Commit what is under way, then let go."""
        self._stop.set()

    async def run(self) -> None:
        """Fold until `stop()`.

        Raises:
            TransactionFailed: A commit's outcome is open; a restart finds out.
            PositionLost: Retention has deleted what was not processed.
            BusError: Kafka cannot be reached or used.
        """
        stage = self.stage
        names = [stage.source.name, *(sink.name for sink in stage.sinks), DLQ.name]
        await require_topics(self.bus, names)
        async with running(admin(self.bus), self.bus) as self._admin:
            self._reader = consumer(self.bus, group=stage.name, instance=self._instance)
            self._reader.subscribe([self.bus.topic(stage.source.name)], listener=self)
            await start(self._reader, self.bus)
            try:
                while not self._stop.is_set():
                    await self._poll()
            finally:
                async with self._lock:
                    await self._close(self._lanes.values())
                    self._lanes.clear()
                await close(self._reader)

    async def _poll(self) -> None:
        generation = self._generation
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
        async with self._lock:
            if generation != self._generation:
                # Between the fetch and now partitions came or went, and some of these records may
                # belong to lanes that are no longer ours, or stand before their low-water mark.
                # Dropping them alone would lose them: put every lane back to where it is.
                for partition, held in self._lanes.items():
                    self._reader.seek(partition, held.lane.position)
                return
            await asyncio.gather(
                *(
                    self._advance(partition, held, fetched.get(partition, ()))
                    for partition, held in self._lanes.items()
                )
            )

    async def _advance(
        self, partition: TopicPartition, held: KafkaPartition, messages: Sequence[Any]
    ) -> None:
        """Fold what was fetched of one partition, and commit."""
        at = time.monotonic()  # how long ago something was: a clock that is set back never says
        if held.fenced_at is not None:
            if at - held.fenced_at > FENCED_S:
                raise LaneLost(f"{partition.topic}[{partition.partition}] was taken from us")
            return
        lane = held.lane
        out = lane.feed(self._records(messages))
        if self.stage.source.log_append_time:
            held.hear(messages, at)
        tick = self._tick(held, held.time(self._clock(), at), at)
        if not out and tick is None:
            level = lane.position <= held.committed
            if level or at - held.committed_at < IDLE_COMMIT_S:
                return
        try:
            await self._commit(partition, held, out, tick)
        except ProducerFenced:
            # The partition has a new owner, who has our last commit. A new producer for it would
            # fence the rightful owner, so the lane only waits for the group to take it away.
            log.warning("%s: partition %d was taken over", self.stage.name, partition.partition)
            held.fenced_at = at
        except KafkaError as error:
            raise TransactionFailed(
                f"{self.stage.name}: a transaction on {partition.topic}[{partition.partition}] "
                f"ended with {error!r}"
            ) from error
        else:
            held.committed, held.committed_at = lane.position, at

    def _records(self, messages: Sequence[Any]) -> list[Record]:
        """Messages of our source as records; like `record_of`, for many."""
        topic = self.stage.source.name
        return [
            Record(
                topic,
                message.partition,
                message.offset,
                key_text(message.key),
                message.value,
                message.headers or (),
                message.timestamp / 1000,
            )
            for message in messages
        ]

    async def _commit(
        self,
        partition: TopicPartition,
        held: KafkaPartition,
        out: list[Outgoing],
        tick: Outgoing | None,
    ) -> None:
        lane, client = held.lane, held.client
        await client.begin_transaction()
        self._at("after_begin")
        await self._produce(client, partition, out, tick)
        # If we die above this line nothing was written: the transaction times out or is fenced,
        # and the next owner folds the same records into the same results.
        self._at("after_produce_before_offsets")
        await self._mark(client, partition, lane)
        self._at("after_offsets_before_commit")
        await client.commit_transaction()
        # If we die below this line everything was written, and the done mark says so.
        self._at("after_commit")

    async def _produce(
        self,
        client: AIOKafkaProducer,
        partition: TopicPartition,
        out: list[Outgoing],
        tick: Outgoing | None,
    ) -> None:
        sent = [await self._send(client, outgoing) for outgoing in out]
        if tick is not None:
            sent.append(await self._send(client, tick, partition.partition))
        # aiokafka commits a transaction although the broker refused one of its records: look.
        await client.flush()
        for future in sent:
            future.result()

    async def _mark(
        self, client: AIOKafkaProducer, partition: TopicPartition, lane: StagePartition
    ) -> None:
        mark = OffsetAndMetadata(lane.low_water, f"done={lane.position}")
        await client.send_offsets_to_transaction({partition: mark}, self.bus.group(self.stage.name))

    async def _send(
        self, client: AIOKafkaProducer, outgoing: Outgoing, partition: int | None = None
    ) -> Any:
        sent = await client.send(
            self.bus.topic(outgoing.topic),
            key=key_bytes(outgoing.key),
            value=outgoing.value,
            headers=list(outgoing.headers),
            partition=partition,
        )
        sent.add_done_callback(_seen)
        return sent

    def _tick(self, held: KafkaPartition, now: float, at: float) -> Outgoing | None:
        """A Tick if one is due: at most one a second, and ever fewer while they change nothing."""
        lane = held.lane
        if not self.stage.ticks or at < held.next_tick or lane.position < lane.done:
            return None
        if not lane.fold.overdue(now):
            held.tick_pause = 1.0
            return None
        held.next_tick = at + held.tick_pause
        held.tick_pause = min(held.tick_pause * 2, 30.0)
        return lane.tick(now)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let go of lanes, once their transaction under way has ended."""
        async with self._lock:
            self._generation += 1
            doomed = [self._lanes.pop(one) for one in revoked if one in self._lanes]
            await self._close(doomed)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over partitions: fence, then read the marks, then seek."""
        try:
            async with self._lock:
                await self._take(list(assigned))
        # aiokafka logs and swallows what this callback raises, and would go on reading without
        # lanes: whatever it is ends the process from the polling loop.
        except Exception as error:
            log.exception("%s: partitions could not be taken over", self.stage.name)
            self._fatal = error

    async def _take(self, assigned: list[TopicPartition]) -> None:
        self._generation += 1
        await self._close(self._lanes.values())
        self._lanes.clear()
        if not assigned:
            self.ready.set()
            return
        # Producers first: once they have started, no commit of a previous owner can follow, so
        # the marks that are read next are the last ones.
        clients = [self._producer(partition) for partition in assigned]
        try:
            await asyncio.gather(*(start(client, self.bus) for client in clients))
            await self._begin(assigned, clients)
        finally:
            owned = [held.client for held in self._lanes.values()]
            left = [client for client in clients if client not in owned]
            await asyncio.gather(*(close(client) for client in left), return_exceptions=True)
        log.info(
            "%s: owns partitions %s", self.stage.name, sorted(one.partition for one in assigned)
        )
        self.ready.set()

    async def _begin(self, assigned: list[TopicPartition], clients: list[AIOKafkaProducer]) -> None:
        """Put each partition on its low-water mark, silent up to its done mark."""
        marks = await self._admin.list_consumer_group_offsets(
            self.bus.group(self.stage.name), partitions=assigned
        )
        beginnings = await self._reader.beginning_offsets(assigned)
        count = len(self._reader.partitions_for_topic(self.bus.topic(self.stage.source.name)) or ())
        for partition, client in zip(assigned, clients, strict=True):
            mark = marks.get(partition)
            known = mark is not None and mark.offset >= 0
            check_position(partition, mark.offset if known else None, beginnings[partition])
            position = mark.offset if known else beginnings[partition]
            done = _done(mark.metadata) if known else 0
            lane = StagePartition(self.stage, partition.partition, position, done, partitions=count)
            self._lanes[partition] = KafkaPartition(lane, client, committed=max(position, done))
            self._reader.seek(partition, position)

    def _producer(self, partition: TopicPartition) -> AIOKafkaProducer:
        return producer(self.bus, transactional_id=f"{self.stage.name}.{partition.partition}")

    async def _close(self, doomed: Iterable[KafkaPartition]) -> None:
        await asyncio.gather(*(close(held.client) for held in doomed), return_exceptions=True)


def _seen(sent: "asyncio.Future[Any]") -> None:
    """Take note of an exception that nobody will ask for where another one came first."""
    if not sent.cancelled():
        sent.exception()


def _done(metadata: str) -> int:
    """The done mark in a commit's metadata."""
    _, _, mark = metadata.partition("done=")
    return int(mark) if mark.isdigit() else 0
