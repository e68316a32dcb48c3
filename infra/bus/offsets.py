"""Which records of a partition are finished, and so where a successor must begin: pure."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from odradek.infra.errors import TakenTwice

FORM: Final = "1"
"""Version of the metadata's format, so that metadata of another version is not misread."""
LARGEST: Final = 4096
"""Bytes of metadata that Kafka takes with a committed offset."""
ROOM: Final = 32
"""Of them, for the form and the reach."""


class OffsetTracker:
    """The low-water mark of one partition, fed with offsets as they come and go.

    A record may be finished long before older ones. The mark is the oldest unfinished record, so a
    successor is given everything unfinished again, and some finished records with it. Which of
    those are finished stands in the metadata of the commit: a successor that reads it passes over
    them.

    Args:
        position: Where a predecessor's mark was.
        metadata: What it committed with it.
    """

    def __init__(self, position: int, metadata: str = "") -> None:
        self._next = position
        self._open: dict[int, None] = {}  # in order
        self._covered, left = _read(position, metadata)
        self._left = dict.fromkeys(left)

    @property
    def next(self) -> int:
        """The offset to read next."""
        return self._next

    @property
    def unfinished(self) -> int:
        """How many records were taken and are not finished."""
        return len(self._open)

    def take(self, offset: int) -> bool:
        """A record was read; return whether anything is left to do for it.

        Raises TakenTwice if it was read before.
        """
        if offset < self._next:
            raise TakenTwice(f"offset {offset} comes again, behind {self._next}")
        self._next = offset + 1
        if offset < self._covered and offset not in self._left:
            return False
        self._open[offset] = None
        return True

    def finish(self, offset: int) -> None:
        """Nothing is left to do for a record."""
        self._open.pop(offset, None)

    @property
    def low_water(self) -> int:
        """The offset to commit."""
        return next(iter(self._open), self._next)

    @property
    def metadata(self) -> str:
        """The metadata to commit: the unfinished offsets, and how far that list reaches.

        Offsets are distances from the mark. Where not all of them fit, the list ends early: what
        is behind it is given again. Empty where the mark alone says everything.
        """
        low = self.low_water
        listed: list[str] = []
        reach, size = max(self._next, self._covered), 0
        for offset in self._unfinished():
            distance = str(offset - low)
            size += len(distance) + 1
            if size > LARGEST - ROOM:
                reach = offset
                break
            listed.append(distance)
        if len(listed) == reach - low:
            return ""
        return f"{FORM};{reach - low};{','.join(listed)}"

    def _unfinished(self) -> Iterator[int]:
        """All unfinished offsets that are known of, in order: ours, and a predecessor's ahead."""
        yield from self._open
        yield from (offset for offset in self._left if offset >= self._next)


class DoneOffsets(Struct, frozen=True):
    """Which records of a partition are done, as a commit says.

    All below `reach`, but those at the offsets in `left`. Of those from `reach` on none is done.
    """

    reach: int
    left: tuple[int, ...] = ()
    """In order. Each is the offset of a record."""

    @classmethod
    def of(cls, offset: int, metadata: str) -> "DoneOffsets":
        """By a committed offset and the metadata of an `OffsetTracker`, or of nobody."""
        return cls(*_read(offset, metadata))

    def first(self, beginning: int) -> int:
        """Where to read what is not done, in a log that begins at `beginning`."""
        return max(self.reach, beginning)

    def undone(self, offsets: Sequence[int], beginning: int = 0) -> int:
        """How many records of a partition are not done.

        Args:
            offsets: Of all records from `first` on, in order; of earlier ones any.
            beginning: Of the log: what retention has deleted is not to be done any more.
        """
        known = len(self.left) - bisect_left(self.left, beginning)
        return known + len(offsets) - bisect_left(offsets, self.reach)


def _read(position: int, metadata: str) -> tuple[int, tuple[int, ...]]:
    """How far a commit's metadata reaches, and the unfinished offsets below that, in order.

    Nothing, if it is no metadata of ours, as after an offset was set by hand.
    """
    try:
        form, reach, listed = metadata.split(";")
        distances = [int(distance) for distance in listed.split(",") if distance]
        covered = position + int(reach)
    except ValueError:
        return position, ()
    if form != FORM or distances != sorted(set(distances)):
        return position, ()
    return covered, tuple(position + distance for distance in distances)
