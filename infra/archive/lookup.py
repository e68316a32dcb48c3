"""The log and the archive as one: what the log no longer has is read from the archive."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial

from odradek.infra.archive.range import OffsetRange, joined
from odradek.infra.archive.reader import Archive
from odradek.infra.archive.settings import ArchiveSettings
from odradek.infra.archive.store import store_of
from odradek.infra.bus import BusSettings, Record, RecordAddress, RecordLookup, looking_up
from odradek.infra.errors import ArchiveMismatch, PositionLost

EMPTY = OffsetRange(0, 0)


class ArchivedLookup(RecordLookup):
    """A `RecordLookup` for which an archive lengthens the log backwards.

    The archive is listed before the log is asked for its bounds. So an archive that reaches behind
    the end of the log is another log's.

    Args:
        log: Looks up in the log.
        archive: What was archived of it.
    """

    def __init__(self, log: RecordLookup, archive: Archive) -> None:
        self._log = log
        self._archive = archive
        self._joined: dict[str, list[tuple[int, int]]] = {}

    async def bounds(self, topic: str) -> list[tuple[int, int]]:
        """See `RecordLookup`. Raises ArchiveMismatch where the archive is of another log."""
        if topic not in self._joined:
            archived = await self._archive.partitions(topic)
            held = [await self._archive.held(topic, number) for number in range(archived)]
            log = await self._log.bounds(topic)
            listed = []
            for number in range(max(archived, len(log))):
                on_log = OffsetRange(*log[number]) if number < len(log) else EMPTY
                whole = joined(on_log, held[number] if number < archived else ())
                if whole is None:
                    raise ArchiveMismatch(
                        f"{topic}/{number} ends at {on_log.end} on the log, and at "
                        f"{held[number][-1].end} in the archive: that is an archive of another "
                        "log. Name its own, or read it below another ODRADEK_TOPIC_PREFIX"
                    )
                listed.append((whole.first, whole.end))
            self._joined[topic] = listed
        return self._joined[topic]

    async def _on_log(self, topic: str, partition: int) -> OffsetRange:
        bounds = await self._log.bounds(topic)
        return OffsetRange(*bounds[partition]) if partition < len(bounds) else EMPTY

    async def _whole(self, topic: str, partition: int) -> OffsetRange:
        bounds = await self.bounds(topic)
        return OffsetRange(*bounds[partition]) if partition < len(bounds) else EMPTY

    async def forgotten(self, address: RecordAddress) -> bool:
        """See `RecordLookup`."""
        whole = await self._whole(address.topic, address.partition)
        if address.offset >= whole.end or address.offset in await self._on_log(
            address.topic, address.partition
        ):
            return False
        held = await self._archive.held(address.topic, address.partition)
        return not any(address.offset in each for each in held)

    async def at_time(self, topic: str, partition: int, timestamp: float) -> int:
        """See `RecordLookup`; what is archived is not searched, so it may be earlier than that."""
        whole, log = await self._whole(topic, partition), await self._on_log(topic, partition)
        if not len(log):
            return whole.first
        offset = await self._log.at_time(topic, partition, timestamp)
        return whole.first if offset <= log.first else offset

    async def stretch(
        self, topic: str, partition: int, offset: int, *, most: int | None = None
    ) -> tuple[list[Record], int]:
        """See `RecordLookup`. Raises ArchiveHole where neither has the offset."""
        whole, log = await self._whole(topic, partition), await self._on_log(topic, partition)
        offset = max(offset, whole.first)
        if offset >= whole.end:
            return [], offset
        if offset in log:
            return await self._log.stretch(topic, partition, offset, most=most)
        records, end = await self._archive.stretch(topic, partition, offset)
        if most is not None and len(records) > most:
            return list(records[:most]), records[most - 1].offset + 1
        return list(records), end

    async def records(self, addresses: Iterable[RecordAddress]) -> dict[RecordAddress, Record]:
        """See `RecordLookup`."""
        wanted = list(addresses)
        for topic in {address.topic for address in wanted}:
            await self.bounds(topic)
        found = await self._log.records(wanted)
        left = {address for address in wanted if address not in found}
        for at in sorted(left, key=lambda each: (each.topic, each.partition, each.offset)):
            if at.offset not in await self._on_log(at.topic, at.partition):
                record = await self._archive.record(at.topic, at.partition, at.offset)
                if record is not None:
                    found[at] = record
        return found

    async def span(
        self, topic: str, partition: int, *, start: int | None = None, end: int | None = None
    ) -> AsyncGenerator[Record, None]:
        """See `RecordLookup`. Raises ArchiveHole where neither has an offset."""
        whole, log = await self._whole(topic, partition), await self._on_log(topic, partition)
        at = whole.first if start is None else start
        if at < whole.first:
            raise PositionLost(
                f"{topic}/{partition} begins at {whole.first}, also in the archive: {at} is gone"
            )
        last = whole.end if end is None else min(end, whole.end)
        while at < last and at not in log:
            records, behind = await self._archive.stretch(topic, partition, at)
            for record in records:
                if record.offset < last and record.offset not in log:
                    yield record
            at = behind if not len(log) else min(behind, log.first)
        if at < last:
            async with aclosing(self._log.span(topic, partition, start=at, end=last)) as later:
                async for record in later:
                    yield record

    async def whole(
        self,
        topic: str,
        since: Mapping[int, int] | None = None,
        *,
        stall_s: float | None = 30.0,
    ) -> AsyncGenerator[Record, None]:
        """See `RecordLookup`; partition by partition, for as long as each takes."""
        del stall_s
        since = since or {}
        for number, (first, end) in enumerate(await self.bounds(topic)):
            start = max(first, since.get(number, first))
            async with aclosing(self.span(topic, number, start=start, end=end)) as records:
                async for record in records:
                    yield record


def archive_of(settings: ArchiveSettings) -> Archive | None:
    """The archive that settings name, None where they name none. Nothing is read yet."""
    return Archive(partial(store_of, settings)) if settings.location else None


@asynccontextmanager
async def looking_back(
    bus: BusSettings, archive: Archive | None = None
) -> AsyncIterator[RecordLookup]:
    """Inside, records of the log can be looked up, and those that an archive has of it.

    Raises KafkaUnreachable.
    """
    async with looking_up(bus) as lookup:
        yield lookup if archive is None else ArchivedLookup(lookup, archive)
