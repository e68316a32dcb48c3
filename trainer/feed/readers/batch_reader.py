"""The trainer's input: `rl.batches.v1` (or a replay's topic) with its pointers followed."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from odradek.infra.archive import Archive
from odradek.infra.bus import (
    BusSettings,
    away,
    close,
    consumer,
    gone,
    partitions_of,
    passed_over,
    record_of,
    start,
)
from odradek.infra.client import records
from odradek.infra.errors import TopicMissing
from odradek.infra.runtime import metrics
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, Pointer, Refusal
from odradek.schemas.revisions import FIRST
from odradek.trainer.errors import (
    BadSettings,
    MissingRecord,
    PositionGone,
    UntrainableEpisode,
    WrongDigest,
)
from odradek.trainer.feed.readers.episode_reader import EpisodeReader
from odradek.trainer.feed.readers.revisions import LateRewards
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.feed.rules import why_not

log = logging.getLogger("odradek")

LOOK_EVERY_S: Final = 10.0
"""How often an idle reader sees whether its topic is still there."""


class LogGroups:
    """Implements `GroupSource` over Kafka: one partition of batches, in order, by offset.

    Args:
        thread: Where its loop runs.
        bus: Where Kafka is.
        topic: Of the batches.
        ends: Whether to stop at the topic's end.
        revision: Of the rewards; see `TrainerSettings`.
        pinned: By offset of a batch of which rows were used, the revision that they were used with:
            the rest of it has the same rewards.
        archive: Read what the log no longer has: episodes, and late rewards.
    """

    def __init__(
        self,
        thread: LoopThread,
        bus: BusSettings,
        topic: str,
        *,
        ends: bool,
        revision: str = FIRST,
        pinned: Mapping[int, int] | None = None,
        archive: Archive | None = None,
    ) -> None:
        self._thread = thread
        self._bus = bus
        self._topic = topic
        self._ends = ends
        self._archive = archive
        self._late = (
            None if revision == FIRST else LateRewards(bus, revision, pinned or {}, archive)
        )
        self._at_end = False
        self._looked = time.monotonic()
        self._reader: AIOKafkaConsumer | None = None
        self._on: TopicPartition | None = None
        self._episodes: dict[str, EpisodeReader] = {}
        self._records: asyncio.Queue[Any] = asyncio.Queue()

    def open(self, offset: int) -> None:
        """Connect and go to the batch at `offset` (0: where the topic begins).

        Raises KafkaUnreachable, TopicMissing, PositionGone, BadSettings.
        """
        with ExitStack() as failed:
            failed.callback(self.close)  # at ctrl-C as well: its thread would keep the process
            self._thread.call(self._open(offset))
            failed.pop_all()

    async def _open(self, offset: int) -> None:
        self._reader = consumer(self._bus, max_poll_records=100)
        await start(self._reader, self._bus)
        name = self._bus.topic(self._topic)
        partitions = await partitions_of(self._reader, name)
        if len(partitions) != 1:
            raise BadSettings(
                f"{self._topic} has {len(partitions)} partitions; batches need exactly one, "
                "because their order is the training order"
            )
        self._on = on = partitions[0]
        self._reader.assign([on])
        begin = (await self._reader.beginning_offsets([on]))[on]
        end = (await self._reader.end_offsets([on]))[on]
        if 0 < offset < begin:
            raise PositionGone(
                f"{self._topic} begins at {begin}, but this run stands at {offset}: retention has "
                "deleted batches that were not trained on; start a new run from its checkpoint"
            )
        if offset > end:
            raise BadSettings(
                f"{self._topic} ends at {end}, but this run stands at {offset}: the checkpoint is "
                "of another log; choose another output_dir"
            )
        self._reader.seek(on, max(offset, begin))
        if self._late is not None:
            await self._late.open()

    def next(self, timeout_s: float) -> EpisodeGroup | None:
        """The next batch with its episodes, or None. Raises PositionGone."""
        return self._thread.call(self._next(timeout_s))

    def ended(self) -> bool:
        """Whether a run that is to stop at the end is there."""
        return self._ends and self._at_end

    def close(self) -> None:
        """Disconnect."""
        self._thread.call(self._close())

    async def _close(self) -> None:
        while self._episodes:
            await self._episodes.popitem()[1].close()
        if self._late is not None:
            await self._late.close()
        if self._reader is not None:
            await close(self._reader)
            self._reader = None

    async def _next(self, timeout_s: float) -> EpisodeGroup | None:
        if self._reader is None or self._on is None:
            return None
        if self._records.empty():
            try:
                fetched = await self._reader.getmany(timeout_ms=int(timeout_s * 1000))
            except OffsetOutOfRangeError as error:
                raise PositionGone(
                    f"retention of {self._topic} has overtaken this run: batches were deleted that "
                    "were not trained on; start a new run from its checkpoint"
                ) from error
            for message in (message for messages in fetched.values() for message in messages):
                self._records.put_nowait(message)
            if self._records.empty():
                await self._look(self._reader, self._on)
                if self._ends:
                    self._at_end = await self._reached_end(self._reader, self._on)
                return None
        message = self._records.get_nowait()
        try:
            batch = codec.decode(message.value, Batch)
        except InvalidRecord as error:
            # It names no group, so it is passed, and the ledger has a refusal for it.
            passed_over(record_of(message, self._bus), error)
            batch = Batch(task_id="unreadable", group_size=1, empty_reason=error.reason)
        return await self._follow(message.offset, batch)

    async def _reached_end(self, reader: AIOKafkaConsumer, on: TopicPartition) -> bool:
        """Whether nothing is left to read; a broker that is away does not say so."""
        try:
            end: int = (await reader.end_offsets([on]))[on]
        except KafkaError as error:
            if not away(error):
                raise
            log.warning("waiting for the end of %s: %r", on.topic, error)
            return False
        return bool(await reader.position(on) >= end)

    async def _look(self, reader: AIOKafkaConsumer, on: TopicPartition) -> None:
        """While nothing comes, see now and then whether the topic is still there.

        Raises TopicMissing.
        """
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        if await gone(reader, on.topic):
            raise TopicMissing(
                f"topic {on.topic} was deleted while it was read: start a new run, or replay its "
                "episodes"
            )

    async def _follow(self, offset: int, batch: Batch) -> EpisodeGroup:
        """A batch with its episodes, and what is refused of it. Raises PositionGone, TopicMissing.

        A live batch that points at what is gone ends the run: it has fallen behind retention, and
        would leave out whatever follows. A replayed batch names the past, and some of that may be
        gone: the rest is trained on.
        """
        late = self._late is not None and await self._late.concern(offset, batch)
        if why_not(batch) and not late:
            return EpisodeGroup(offset, batch)
        lost = (
            MissingRecord,
            WrongDigest,
            UntrainableEpisode,
            *((PositionGone,) if batch.origin else ()),
        )
        episodes: list[tuple[Pointer, Episode]] = []
        refused: list[Refusal] = []
        for pointer in batch.episodes:
            try:
                episode = await self._resolve(pointer, replayed=bool(batch.origin))
            except lost as error:
                log.warning("batch %d: %s", offset, error)
                metrics.moved(metrics.SKIPPED, topic=self._topic, reason=error.reason)
                refused.append(
                    Refusal(offset=offset, reason=error.reason, episode_id=pointer.episode_id)
                )
            else:
                episodes.append((pointer, episode))
        group = EpisodeGroup(offset, batch, tuple(episodes), tuple(refused))
        return self._late.revised(group) if self._late is not None and late else group

    async def _resolve(self, pointer: Pointer, *, replayed: bool) -> Episode:
        reader = await self._reader_of(pointer.topic)
        try:
            return await reader.resolve(pointer)
        except TopicMissing as error:
            if not replayed:
                raise
            await self._episodes.pop(pointer.topic).close()
            raise MissingRecord(str(error)) from error

    async def _reader_of(self, topic: str) -> EpisodeReader:
        if topic not in self._episodes:
            reader = EpisodeReader(self._bus, topic, self._archive)
            try:
                await reader.open()
            except TopicMissing as error:
                # A topic that a record names is that record's mistake, and no reason to end.
                await reader.close()
                raise MissingRecord(f"there is no topic {topic}") from error
            self._episodes[topic] = reader
        return self._episodes[topic]


async def read_all(bus: BusSettings, topic: str, kind: Any) -> list[Any]:
    """All events of a topic up to its end of now, without undecodable ones."""
    events = []
    async for record in records(topic, since="beginning", follow=False, bus=bus):
        try:
            events.append(codec.decode(record.value, kind))
        except InvalidRecord as error:
            if record.value is not None:  # a tombstone is compaction's business
                passed_over(record, error)
    return events
