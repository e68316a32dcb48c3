"""Following pointers: episodes by partition and offset, read forward and a little ahead."""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from odradek.infra.archive import Archive
from odradek.infra.bus import BusSettings, away, close, consumer, gone, partitions_of, start
from odradek.infra.errors import TopicMissing
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Episode, Pointer
from odradek.trainer.errors import MissingRecord, PositionGone, UntrainableEpisode, WrongDigest

EPISODE: Final = "odradek.episode.v1"
KEEP_BYTES: Final = 256 * 1024 * 1024
"""Records kept that no batch has named yet; more are read again when they are named."""
PAUSE_S: Final = 0.1
"""Between two tries of a place that the log does not have."""
LATEST_S: Final = 10.0
"""How long a record may be behind a pointer to it, on a log that says where it ends."""

log = logging.getLogger("odradek")


class EpisodeReader:
    """Records of one topic by (partition, offset). Reads by `assign`, so nothing is committed.

    Args:
        bus: Where Kafka is.
        topic: Its name without prefix.
        archive: Read what the log no longer has.
    """

    def __init__(self, bus: BusSettings, topic: str, archive: Archive | None = None) -> None:
        self._bus = bus
        self._topic = topic
        self._archive = archive
        self._reader: AIOKafkaConsumer | None = None
        self._values: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._read: dict[int, int] = {}
        """Per partition the first offset that has not been read since the last seek."""
        self._from: dict[int, int] = {}
        """Per partition where that reading began."""

    async def open(self) -> None:
        """Connect. Raises KafkaUnreachable, TopicMissing."""
        self._reader = consumer(self._bus)
        await start(self._reader, self._bus)
        partitions = await partitions_of(self._reader, self._bus.topic(self._topic))
        self._reader.assign(partitions)
        self._reader.pause(*partitions)  # only what pointers ask for is fetched
        for partition, offset in (await self._reader.beginning_offsets(partitions)).items():
            self._reader.seek(partition, offset)

    async def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            await close(self._reader)

    async def resolve(self, pointer: Pointer) -> Episode:
        """The episode that a pointer points at.

        Raises:
            PositionGone: Retention has deleted it.
            MissingRecord: Nothing stands there.
            TopicMissing: The topic was deleted while it was read.
            WrongDigest: Something else stands there, or nothing that can be decoded.
            UntrainableEpisode: It was imported.
        """
        value = await self._value(pointer.partition, pointer.offset)
        if codec.digest(value) != pointer.digest:
            raise WrongDigest(f"{_place(self._topic, pointer)} has another digest than the pointer")
        try:
            episode: Episode = codec.decode(value, Episode)
        except InvalidRecord as error:
            raise WrongDigest(f"{_place(self._topic, pointer)}: {error.reason}") from error
        if episode.imported_from:  # no grouper wrote this pointer
            raise UntrainableEpisode(
                f"{_place(self._topic, pointer)} is imported: no policy of this run sampled it"
            )
        return episode

    async def _value(self, partition: int, offset: int) -> bytes:
        at = (partition, offset)
        if at not in self._values:
            try:
                await self._reach(partition, offset)
            except PositionGone:
                archived = await self._archived(partition, offset)
                if archived is None:
                    raise
                return archived
        if at not in self._values:
            raise MissingRecord(f"{self._topic}[{partition}] holds no record at {offset}")
        value = self._values.pop(at)
        self._bytes -= len(value)
        return value

    async def _archived(self, partition: int, offset: int) -> bytes | None:
        if self._archive is None:
            return None
        record = await self._archive.record(self._topic, partition, offset)
        return None if record is None else record.value

    async def _reach(self, partition: int, offset: int) -> None:
        """Read `partition` until `offset` is behind, from where we are or from `offset`."""
        assert self._reader is not None
        on = TopicPartition(self._bus.topic(self._topic), partition)
        if on not in self._reader.assignment():
            raise MissingRecord(f"{self._topic} has no partition {partition}")
        if not self._from.get(partition, 1 << 62) <= offset or offset < self._read[partition]:
            # Behind us and not kept, or the first pointer into this partition.
            await self._go_to(on, offset)
        deadline = time.monotonic() + LATEST_S
        self._reader.resume(on)
        try:
            while self._read[partition] <= offset:
                if time.monotonic() > deadline:
                    if await self._ends_before(on, offset):
                        return
                    deadline = time.monotonic() + LATEST_S
                try:
                    # Of this partition only: another's error is not this pointer's.
                    fetched = await self._reader.getmany(on, timeout_ms=100)
                except OffsetOutOfRangeError:
                    # Retention has overtaken the place where we read: nobody reads on from there.
                    # The record may lie behind it. Or the log ends before it: the deadline shows
                    # that.
                    self._from.pop(partition, None)
                    await self._go_to(on, offset)
                    await asyncio.sleep(PAUSE_S)
                    continue
                for messages in fetched.values():
                    for message in messages:
                        self._keep(message)
                # Markers and aborted records move the position without showing anything.
                reached = await self._reader.position(on)
                self._read[partition] = max(self._read[partition], reached)
        finally:
            self._reader.pause(on)

    async def _go_to(self, on: TopicPartition, offset: int) -> None:
        """Read on at `offset`. Raises PositionGone where retention has deleted what stood there."""
        assert self._reader is not None
        begin = await self._beginning(on)
        if offset < begin:
            raise PositionGone(
                f"{self._topic}[{on.partition}] begins at {begin}: retention has deleted the "
                f"episode at {offset}"
            )
        if (
            self._archive is not None
            and await self._ends_before(on, offset)
            and await self._archived(on.partition, offset) is not None
        ):
            # The log was begun anew, and what the archive has is not waited for.
            raise PositionGone(f"{self._topic}[{on.partition}] does not reach {offset}")
        self._reader.seek(on, offset)
        self._from[on.partition] = self._read[on.partition] = offset

    async def _beginning(self, on: TopicPartition) -> int:
        """Where the log begins, as soon as its broker is there to say so."""
        assert self._reader is not None
        while True:
            try:
                # aiokafka asks for 40 s where a broker knows no such topic.
                async with asyncio.timeout(LATEST_S):
                    beginning: int = (await self._reader.beginning_offsets([on]))[on]
            except (KafkaError, TimeoutError) as error:
                if isinstance(error, KafkaError) and not away(error):
                    raise
                await self._require(on)
                log.warning("waiting for the beginning of %s: %r", on.topic, error)
            else:
                return beginning

    async def _ends_before(self, on: TopicPartition, offset: int) -> bool:
        """Whether the log says that it holds no record at `offset`.

        A broker that is away says nothing: its records are not missing, they are waited for. What a
        run leaves out must not depend on when the broker was restarted.
        """
        assert self._reader is not None
        await self._require(on)
        try:
            end: int = (await self._reader.end_offsets([on]))[on]
        except KafkaError as error:
            log.warning("waiting for %s@%d: %r", on.topic, offset, error)
            return False
        return end <= offset

    async def _require(self, on: TopicPartition) -> None:
        """Raise TopicMissing where the broker, unlike one that is away, knows no such topic."""
        assert self._reader is not None
        if await gone(self._reader, on.topic):
            raise TopicMissing(f"topic {self._topic} was deleted while it was read")

    def _keep(self, message: Any) -> None:
        self._read[message.partition] = message.offset + 1
        if message.value is None or header(message.headers, "ce_type") not in {EPISODE, None}:
            return
        at = (message.partition, message.offset)
        # After a seek back it may be kept already: counted twice, it would push out, in the end,
        # the very record that a pointer asks for.
        self._bytes += len(message.value) - len(self._values.pop(at, b""))
        self._values[at] = message.value
        while self._bytes > KEEP_BYTES and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= len(dropped)


def _place(topic: str, pointer: Pointer) -> str:
    return f"{topic}[{pointer.partition}]@{pointer.offset}"
