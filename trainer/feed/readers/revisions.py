"""Late rewards for the trainer: all there are as a batch is read, or those before an offset."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import (
    BusSettings,
    Record,
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
        archive: Read what the log no longer has.
    """

    def __init__(
        self,
        bus: BusSettings,
        revision: str,
        pinned: Mapping[int, int] | None = None,
        archive: Archive | None = None,
    ) -> None:
        self._bus = bus
        self._archive = archive
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
            KafkaUnreachable, TopicMissing, ArchiveError.
            BadSettings: The topic ends before the offset that was asked for.
        """
        self._reader = consumer(self._bus)
        await start(self._reader, self._bus)
        (self._on,) = await partitions_of(self._reader, self._bus.topic(REVISIONS.name))
        self._reader.assign([self._on])
        begin = (await self._reader.beginning_offsets([self._on]))[self._on]
        end = (await self._reader.end_offsets([self._on]))[self._on]
        first, last = (begin, end) if self._archive is None else await self._older(begin, end)
        if self._until is not None and not first <= self._until <= last:
            raise BadSettings(
                f"revision is {self._until}, and {REVISIONS.name} holds the offsets {first} to "
                f"{last}: name one of them, or `latest`"
            )
        self._reader.seek(self._on, begin)
        await self._catch_up()

    async def _older(self, begin: int, end: int) -> tuple[int, int]:
        """Read what is archived and not on the log; return where both together begin and end."""
        async with looking_back(self._bus, self._archive) as lookup:
            first, last = (await lookup.bounds(REVISIONS.name))[0]
            behind = begin if end > begin else last
            until = behind if self._until is None else min(behind, self._until)
            if first < until:
                async with aclosing(lookup.span(REVISIONS.name, 0, end=until)) as records:
                    async for record in records:
                        self._read(record)
            self._passed = until
        return first, last

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
                self._read(record_of(message, self._bus))
        self._passed = max(self._passed, end)
        return True

    def _read(self, record: Record) -> None:
        try:
            self._book.read(record.offset, record.value, record.headers)
        except InvalidRecord as error:
            passed_over(record, error)
