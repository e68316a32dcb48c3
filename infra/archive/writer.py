"""Archiving: what the log has and the archive lacks is copied, object by object.

What is archived is what the store lists, so an archiver that was killed goes on where it ended, and
two at once write equal objects under equal names.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from aiokafka.errors import OffsetOutOfRangeError
from msgspec import Struct

from odradek.infra.archive.names import ObjectName
from odradek.infra.archive.objects import encoded
from odradek.infra.archive.range import OffsetRange, planned
from odradek.infra.archive.reader import Archive
from odradek.infra.bus import BusSettings, Record, RecordLookup, looking_up
from odradek.infra.errors import ArchiveMismatch, TopicMissing
from odradek.infra.runtime.crash_points import crash_point

OBJECT_BYTES: Final = 16 * 1024 * 1024
"""Values of an object, after which it ends: memory holds about four times as much."""
OBJECT_RECORDS: Final = 10_000
"""Records of an object, after which it ends."""
FETCH_BYTES: Final = 4 * 1024 * 1024
FETCH_RECORDS: Final = 256
"""Of one fetch, taken at once: packed well, a fetch may hold more than memory should."""

Moved = Callable[[int, int], None]
"""Called with the offsets that were archived, and with all that there are to archive."""


class LostRange(Struct, frozen=True):
    """Offsets that neither the log nor the archive has."""

    topic: str
    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        """As a line for people."""
        return f"{self.topic}/{self.partition}: offsets {self.first} to {self.last} are lost"


class ArchivedRun(Struct, frozen=True):
    """The result of archiving once."""

    objects: int
    records: int
    bytes: int
    """Of values, as they stand on the log."""
    offsets: int
    """That were archived, or with `dry` would be."""
    lost: tuple[LostRange, ...] = ()
    absent: tuple[str, ...] = ()
    """Topics that are not there."""
    dry: bool = False


class _Part(Struct, frozen=True):
    """A range that is to be copied."""

    topic: str
    partition: int
    partitions: int
    range: OffsetRange


class Archiver:
    """Copies topics to an archive.

    Args:
        bus: Where Kafka is.
        archive: Where to.
        topics: Which, without prefix.
        object_records: See `OBJECT_RECORDS`.
    """

    def __init__(
        self,
        bus: BusSettings,
        archive: Archive,
        topics: Iterable[str],
        *,
        object_records: int | None = None,
    ) -> None:
        self._bus = bus
        self._archive = archive
        self._topics = tuple(topics)
        self._most_records = object_records or OBJECT_RECORDS
        self._compared: set[tuple[str, int]] = set()
        """Partitions of which the archive and the log have been held against each other."""
        self._objects = self._records = self._bytes = self._done = 0

    async def run(self, *, dry_run: bool = False, moved: Moved | None = None) -> ArchivedRun:
        """Copy all that is committed now and not archived yet.

        Args:
            dry_run: Count, and write nothing.
            moved: Hears of progress.

        Raises:
            ArchiveMismatch: The archive is of another log.
            ArchiveError: The store cannot be read or written.
            TopicMissing: None of the topics is there.
            BusError: Kafka cannot be reached or used.
        """
        self._objects = self._records = self._bytes = self._done = 0
        if not dry_run:
            store = await asyncio.to_thread(self._archive.store)
            await asyncio.to_thread(store.sweep)
        await self._archive.refresh()
        lost: set[LostRange] = set()
        async with looking_up(self._bus, fetch_bytes=FETCH_BYTES) as lookup:
            parts, absent = await self._parts(lookup, lost)
            total = sum(len(part.range) for part in parts)
            if dry_run:
                return self._result(total, lost, absent, dry=True)
            for part in parts:
                async with aclosing(self._copied(lookup, part, lost)) as copied:
                    async for offset in copied:
                        if moved is not None:
                            moved(self._done + offset - part.range.first, total)
                self._done += len(part.range)
        return self._result(total, lost, absent)

    def _result(
        self, offsets: int, lost: Iterable[LostRange], absent: list[str], *, dry: bool = False
    ) -> ArchivedRun:
        return ArchivedRun(
            objects=self._objects,
            records=self._records,
            bytes=self._bytes,
            offsets=offsets,
            lost=tuple(sorted(lost, key=lambda each: (each.topic, each.partition, each.first))),
            absent=tuple(absent),
            dry=dry,
        )

    async def _parts(
        self, lookup: RecordLookup, lost: set[LostRange]
    ) -> tuple[list[_Part], list[str]]:
        """What is to be copied, and topics that are absent."""
        parts, absent = [], []
        for topic in self._topics:
            bounds = await lookup.bounds(topic)
            if not bounds:
                absent.append(topic)
            for number, (first, end) in enumerate(bounds):
                held = await self._archive.held(topic, number)
                await self._compare(lookup, topic, number, held, OffsetRange(first, end))
                plan = planned(held, OffsetRange(first, end))
                lost |= {_lost(topic, number, each) for each in plan.lost}
                parts += [_Part(topic, number, len(bounds), each) for each in plan.missing]
        if len(absent) == len(self._topics):
            raise TopicMissing(
                f"none of these topics is there: {', '.join(absent)}; run `odradek topics apply`"
            )
        return parts, absent

    async def _compare(
        self,
        lookup: RecordLookup,
        topic: str,
        partition: int,
        held: list[OffsetRange],
        log: OffsetRange,
    ) -> None:
        """Hold the newest archived record against the log, once. Raises ArchiveMismatch."""
        if not held:
            return
        equal = held[-1].end <= log.end
        if equal and (topic, partition) not in self._compared:
            self._compared.add((topic, partition))
            newest = await self._archive.newest(topic, partition)
            if newest is not None and newest.offset in log:
                found = await lookup.records([newest.address])
                equal = found.get(newest.address, newest) == newest  # compaction may have taken it
        if not equal:
            raise ArchiveMismatch(
                f"{topic}/{partition} of the archive, up to {held[-1].end - 1}, is not of this "
                f"log, which ends at {log.end}: archive this log to another place"
            )

    async def _copied(
        self, lookup: RecordLookup, part: _Part, lost: set[LostRange]
    ) -> AsyncGenerator[int, None]:
        """Copy a range in objects; yield the offset behind each."""
        first = at = part.range.first
        records: list[Record] = []
        size = 0
        while at < part.range.end:
            try:
                fetched, at = await lookup.stretch(
                    part.topic, part.partition, at, most=FETCH_RECORDS
                )
            except OffsetOutOfRangeError:  # retention was quicker: go on where the log begins now
                if first < at:
                    yield await self._write(part, OffsetRange(first, at), records)
                first = min(await self._beginning(part, behind=at), part.range.end)
                lost.add(_lost(part.topic, part.partition, OffsetRange(at, first)))
                at, records, size = first, [], 0
                continue
            for record in fetched:
                if record.offset >= part.range.end:
                    break
                records.append(record)
                size += len(record.value or b"")
                if size >= OBJECT_BYTES or len(records) >= self._most_records:
                    yield await self._write(part, OffsetRange(first, record.offset + 1), records)
                    first, records, size = record.offset + 1, [], 0
        end = min(at, part.range.end)
        if first < end:
            yield await self._write(part, OffsetRange(first, end), records)

    async def _beginning(self, part: _Part, *, behind: int) -> int:
        """The first offset that the log has by now, which lies behind one that it lacks."""
        async with looking_up(self._bus, fetch_bytes=FETCH_BYTES) as fresh:
            bounds = await fresh.bounds(part.topic)
        return max(bounds[part.partition][0] if bounds else part.range.end, behind + 1)

    async def _write(self, part: _Part, offsets: OffsetRange, records: list[Record]) -> int:
        name = ObjectName(part.topic, part.partition, part.partitions, offsets)
        data = await asyncio.to_thread(encoded, name, records)
        # Dead above this line, or in it, there is no such object: the next run makes it. Dead below
        # it, it is there, and the next run goes on behind it.
        await asyncio.to_thread(self._archive.store().write, str(name), data)
        crash_point("object_written")
        self._objects += 1
        self._records += len(records)
        self._bytes += sum(len(record.value or b"") for record in records)
        return offsets.end


def _lost(topic: str, partition: int, offsets: OffsetRange) -> LostRange:
    return LostRange(topic, partition, offsets.first, offsets.end - 1)
