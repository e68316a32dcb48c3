"""Reading an archive: which offsets it has, and the records that stand at them."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Final

from odradek.infra.archive.names import ObjectName
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
        self._names: dict[tuple[str, int], list[ObjectName]] | None = None
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
        names: dict[tuple[str, int], list[ObjectName]] = defaultdict(list)
        for path in await asyncio.to_thread(store.sizes):
            name = ObjectName.parse(path)
            if name is not None:
                names[name.topic, name.partition].append(name)
        self._names, self._listed = dict(names), time.monotonic()

    async def _of(self, topic: str, partition: int) -> list[ObjectName]:
        if self._names is None:
            await self.refresh()
        return (self._names or {}).get((topic, partition), [])

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic (without prefix) has, 0 where nothing of it is archived."""
        if self._names is None:
            await self.refresh()
        counts = [
            each.partitions
            for (of, _), names in (self._names or {}).items()
            if of == topic
            for each in names
        ]
        return max(counts, default=0)

    async def held(self, topic: str, partition: int) -> list[OffsetRange]:
        """The offsets that it has of a partition, in order."""
        return merged(name.range for name in await self._of(topic, partition))

    async def stretch(
        self, topic: str, partition: int, offset: int
    ) -> tuple[tuple[Record, ...], int]:
        """The records of an object from an offset on, and the offset behind the object.

        Raises:
            ArchiveHole: No object has the offset.
            ArchiveDamaged, ArchiveMismatch, ArchiveUnreachable, ArchiveRefused.
        """
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
        return tuple(each for each in records if each.offset >= offset), name.range.end

    async def newest(self, topic: str, partition: int) -> Record | None:
        """The last record of the object that reaches farthest, None where it holds none."""
        names = await self._of(topic, partition)
        if not names:
            return None
        records = await self._object(max(names, key=lambda name: name.range.end))
        return records[-1] if records else None

    async def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at an offset, None where there is none. Raises as `stretch`, but no hole."""
        try:
            records, _ = await self.stretch(topic, partition, offset)
        except ArchiveHole:
            return None
        return records[0] if records and records[0].offset == offset else None

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
    def _holder(names: list[ObjectName], offset: int) -> ObjectName | None:
        widest = holder([name.range for name in names], offset)
        return next((name for name in names if name.range == widest), None)


def _bytes(records: tuple[Record, ...]) -> int:
    return sum(len(record.value or b"") for record in records)
