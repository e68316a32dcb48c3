"""Reading an archive through: is each object what was written, and is nothing missing between."""

import asyncio
from collections.abc import Callable, Iterable

from msgspec import Struct

from odradek.infra.archive.names import ObjectName, by_partition
from odradek.infra.archive.objects import decoded
from odradek.infra.archive.range import OffsetRange, merged, without
from odradek.infra.archive.reader import Archive
from odradek.infra.errors import ArchiveDamaged, ArchiveMismatch

Moved = Callable[[int, int], None]
"""Called with the objects that were read, and with all."""


class ArchivedPartition(Struct, frozen=True):
    """What an archive has of a partition, by its objects' names."""

    topic: str
    partition: int
    objects: int
    bytes: int
    """Of the objects, as they are stored."""
    first: int
    last: int
    holes: tuple[tuple[int, int], ...] = ()
    """First and last offset of each."""


class ValidatedArchive(Struct, frozen=True):
    """The result of reading an archive through."""

    partitions: tuple[ArchivedPartition, ...]
    records: int
    damaged: tuple[str, ...]
    """A line for each object that is not what was written."""
    unknown: tuple[str, ...]
    """Files that are none of ours."""

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.damaged and not any(each.holes for each in self.partitions)


def listing(sizes: dict[str, int]) -> tuple[list[ArchivedPartition], list[str]]:
    """What an archive has by partition, and the names that are none of ours. Pure.

    Args:
        sizes: Bytes of each object, by its path.
    """
    names = {path: ObjectName.parse(path) for path in sizes}
    ours = by_partition(name for name in names.values() if name is not None)
    partitions = [
        _partition(parts, sum(sizes[str(name)] for name in parts))
        for _, parts in sorted(ours.items())
    ]
    return partitions, [path for path, name in names.items() if name is None]


def _partition(names: list[ObjectName], size: int) -> ArchivedPartition:
    has = merged(name.range for name in names)
    whole = OffsetRange(has[0].first, has[-1].end)
    return ArchivedPartition(
        topic=names[0].topic,
        partition=names[0].partition,
        objects=len(names),
        bytes=size,
        first=whole.first,
        last=whole.end - 1,
        holes=tuple((hole.first, hole.end - 1) for hole in without(whole, has)),
    )


async def validated(archive: Archive, moved: Moved | None = None) -> ValidatedArchive:
    """Read each object, and hold it against its digest. Raises ArchiveUnreachable, ArchiveRefused.

    Args:
        archive: Which.
        moved: Hears of progress.
    """
    store = await asyncio.to_thread(archive.store)
    sizes = await asyncio.to_thread(store.sizes)
    partitions, unknown = listing(sizes)
    names = [name for path in sorted(sizes) if (name := ObjectName.parse(path)) is not None]
    damaged, records = [], 0
    for done, name in enumerate(names, 1):
        try:
            data = await asyncio.to_thread(store.read, str(name))
            records += len(await asyncio.to_thread(decoded, name, data))
        except (ArchiveDamaged, ArchiveMismatch) as error:
            damaged.append(str(error))
        if moved is not None:
            moved(done, len(names))
    return ValidatedArchive(tuple(partitions), records, tuple(damaged), tuple(unknown))


def hole_lines(partitions: Iterable[ArchivedPartition]) -> list[str]:
    """A line for each hole, for people."""
    return [
        f"{each.topic}/{each.partition}: offsets {first} to {last} are not archived"
        for each in partitions
        for first, last in each.holes
    ]
