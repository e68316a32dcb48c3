"""Reading an archive: which offsets it has, and the records that stand at them."""

import asyncio
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from odradek.infra.archive.names import ObjectName, by_partition
from odradek.infra.archive.objects import decoded
from odradek.infra.archive.range import OffsetRange, holder, merged
from odradek.infra.archive.store import ObjectStore
from odradek.infra.bus import Record
from odradek.infra.errors import ArchiveHole

KEEP_BYTES: Final = 256 * 1024 * 1024
"""Values of the objects that were read last, and are kept."""

LIST_S: Final = 10.0
"""A list of objects that is so old is made anew before an offset counts as a hole."""


class Archive:
    """Records by topic, partition and offset. Objects are read whole and held against their digest.

    Args:
        store: Makes the store, when it is first asked for: nothing is read before.
    """

    def __init__(self, store: Callable[[], ObjectStore]) -> None:
        self._make = store
        self._store: ObjectStore | None = None
        self._objects: dict[tuple[str, int], dict[OffsetRange, ObjectName]] | None = None
        """Of each partition, by their ranges."""
        self._held: dict[tuple[str, int], list[OffsetRange]] = {}
        """The offsets of those, in order."""
        self._listed = 0.0
        self._kept: OrderedDict[ObjectName, tuple[Record, ...]] = OrderedDict()
        self._bytes = 0

    def store(self) -> ObjectStore:
        """The store. Raises ArchiveRefused."""
        if self._store is None:
            self._store = self._make()
        return self._store

    async def refresh(self) -> None:
        """List the objects anew: an archiver may have added some. Raises ArchiveError."""
        store = await asyncio.to_thread(self.store)
        paths = await asyncio.to_thread(store.sizes)
        names = by_partition(name for name in map(ObjectName.parse, paths) if name is not None)
        self._objects = {at: {name.range: name for name in of} for at, of in names.items()}
        self._held = {at: merged(of) for at, of in self._objects.items()}
        self._listed = time.monotonic()

    async def _all(self) -> dict[tuple[str, int], dict[OffsetRange, ObjectName]]:
        if self._objects is None:
            await self.refresh()
        return self._objects or {}

    async def _of(self, topic: str, partition: int) -> dict[OffsetRange, ObjectName]:
        return (await self._all()).get((topic, partition), {})

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic (without prefix) has, 0 where nothing of it is archived."""
        counts = [
            name.partitions
            for (of, _), names in (await self._all()).items()
            if of == topic
            for name in names.values()
        ]
        return max(counts, default=0)

    async def held(self, topic: str, partition: int) -> list[OffsetRange]:
        """The offsets that it has of a partition, in order."""
        await self._all()
        return self._held.get((topic, partition), [])

    async def stretch(
        self, topic: str, partition: int, offset: int
    ) -> tuple[tuple[Record, ...], int]:
        """The records of an object from an offset on, and the offset behind the object.

        Raises:
            ArchiveHole: No object has the offset.
            ArchiveDamaged, ArchiveMismatch, ArchiveUnreachable, ArchiveRefused.
        """
        records, first, end = await self._around(topic, partition, offset)
        return records[first:], end

    async def _around(
        self, topic: str, partition: int, offset: int
    ) -> tuple[tuple[Record, ...], int, int]:
        """All records of an offset's object, which is the first from there on, the object's end."""
        name = self._holder(await self._of(topic, partition), offset)
        if name is None and time.monotonic() - self._listed > LIST_S:
            await self.refresh()
            name = self._holder(await self._of(topic, partition), offset)
        if name is None:
            raise ArchiveHole(
                f"{topic}/{partition}/{offset} is neither on the log nor in the archive, which "
                f"has {', '.join(map(str, await self.held(topic, partition))) or 'none of it'}"
            )
        records = await self._object(name)
        return records, bisect_left(records, offset, key=_offset), name.range.end

    async def newest(self, topic: str, partition: int) -> Record | None:
        """The last record of the object that reaches farthest, None where it holds none."""
        objects = await self._of(topic, partition)
        if not objects:
            return None
        records = await self._object(objects[max(objects, key=lambda each: each.end)])
        return records[-1] if records else None

    async def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at an offset, None where there is none. Raises as `stretch`, but no hole."""
        try:
            records, at, _ = await self._around(topic, partition, offset)
        except ArchiveHole:
            return None
        return records[at] if at < len(records) and records[at].offset == offset else None

    async def _object(self, name: ObjectName) -> tuple[Record, ...]:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        records = await asyncio.to_thread(self._read, name)
        self._kept[name] = records
        self._bytes += _bytes(records)
        while self._bytes > KEEP_BYTES and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return records

    def _read(self, name: ObjectName) -> tuple[Record, ...]:
        return decoded(name, self.store().read(str(name)))

    @staticmethod
    def _holder(objects: dict[OffsetRange, ObjectName], offset: int) -> ObjectName | None:
        widest = holder(objects, offset)
        return None if widest is None else objects[widest]


def _offset(record: Record) -> int:
    return record.offset


def _bytes(records: tuple[Record, ...]) -> int:
    return sum(len(record.value or b"") for record in records)
