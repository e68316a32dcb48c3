"""Late rewards for the trainer: all there are as a batch is read, or those before an offset."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.bus import (
    BusSettings,
    away,
    close,
    consumer,
    partitions_of,
    passed_over,
    record_of,
    start,
)
from odradek.schemas.errors import InvalidRecord, NotRevisable
from odradek.schemas.events import Batch
from odradek.schemas.revisions import LATEST, RevisionBook
from odradek.schemas.topics import REVISIONS
from odradek.trainer.errors import BadSettings
from odradek.trainer.feed.rows import EpisodeGroup, revised_group

PAUSE_S: Final = 0.2

log = logging.getLogger("odradek")


class LateRewards:
    """The rewards that a trainer takes for those of its batches.

    Args:
        bus: Where Kafka is.
        revision: `latest`, or the offset on `rl.revisions.v1` before which late rewards count.
        pinned: By offset of a batch, the revision that it has whatever `revision` says.
    """

    def __init__(
        self, bus: BusSettings, revision: str, pinned: Mapping[int, int] | None = None
    ) -> None:
        self._bus = bus
        self._pinned = pinned or {}
        self._until = None if revision == LATEST else int(revision)
        self._book = RevisionBook()
        self._passed = 0
        """The first offset that was not read; the book's end is behind its last reward."""
        self._reader: AIOKafkaConsumer | None = None
        self._on: TopicPartition | None = None

    async def open(self) -> None:
        """Connect, and read what there is.

        Raises:
            KafkaUnreachable, TopicMissing.
            BadSettings: The topic ends before the offset that was asked for.
        """
        self._reader = consumer(self._bus)
        await start(self._reader, self._bus)
        (self._on,) = await partitions_of(self._reader, self._bus.topic(REVISIONS.name))
        self._reader.assign([self._on])
        begin = (await self._reader.beginning_offsets([self._on]))[self._on]
        end = (await self._reader.end_offsets([self._on]))[self._on]
        if self._until is not None and not begin <= self._until <= end:
            raise BadSettings(
                f"revision is {self._until}, and {REVISIONS.name} holds the offsets {begin} to "
                f"{end}: name one of them, or `latest`"
            )
        self._reader.seek(self._on, begin)
        await self._catch_up()

    async def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            await close(self._reader)
            self._reader = None

    async def concern(self, offset: int, batch: Batch) -> bool:
        """Whether the batch at an offset has samples that a late reward names."""
        await self._catch_up()
        return bool(self._book.concerns(batch, self._of(offset)))

    def _of(self, offset: int) -> int | None:
        return self._pinned.get(offset, self._until)

    def revised(self, group: EpisodeGroup) -> EpisodeGroup:
        """A group with the rewards of the revision; itself where that changes none of them."""
        try:
            return revised_group(group, self._book, self._of(group.offset))
        except NotRevisable as error:
            log.warning("batch %d is used with its first rewards: %s", group.offset, error)
            return group

    async def _catch_up(self) -> None:
        """Read up to the end of now, or to the offset. A broker that is away is waited for."""
        while self._until is None or self._passed < self._until:
            try:
                if await self._read_on():
                    return
            except KafkaError as error:
                if not away(error):
                    raise
                log.warning("waiting for %s: %r", REVISIONS.name, error)
                await asyncio.sleep(PAUSE_S)

    async def _read_on(self) -> bool:
        """Take what there is; return whether nothing is left."""
        assert self._reader is not None
        assert self._on is not None
        end = (await self._reader.end_offsets([self._on]))[self._on]
        if self._until is not None:
            end = min(end, self._until)
        while await self._reader.position(self._on) < end:
            fetched = await self._reader.getmany(self._on, timeout_ms=100)
            for message in fetched.get(self._on, ()):
                record = record_of(message, self._bus)
                try:
                    self._book.read(record.offset, record.value, record.headers)
                except InvalidRecord as error:
                    passed_over(record, error)
        self._passed = end
        return True
