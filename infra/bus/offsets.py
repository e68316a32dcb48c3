"""Which records of a partition are finished, and so where a successor must begin: pure."""

from collections.abc import Iterator
from typing import Final

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
