"""Where a reader is in all partitions of a topic: pure, and a short text for those who keep it."""

import re
from collections.abc import Mapping
from typing import Final

from odradek.agents.errors import InvalidPosition

TEXT: Final = re.compile(r"p(\d{1,5}\.\d{1,19}(-\d{1,5}\.\d{1,19})*)?")


class EventPosition:
    """The next offset of each partition.

    Args:
        offsets: By partition. One that is not there is read from its beginning.
    """

    def __init__(self, offsets: Mapping[int, int]) -> None:
        self.offsets: Final = dict(offsets)

    def after(self, partition: int, offset: int) -> "EventPosition":
        """Where a reader is behind one record more."""
        return EventPosition({**self.offsets, partition: offset + 1})

    def __eq__(self, other: object) -> bool:
        """Whether it is the same place."""
        return isinstance(other, EventPosition) and self.offsets == other.offsets

    def __hash__(self) -> int:
        """By its place."""
        return hash(str(self))

    def __str__(self) -> str:
        """Such as `p0.12-1.40`."""
        return "p" + "-".join(f"{part}.{offset}" for part, offset in sorted(self.offsets.items()))

    __repr__ = __str__

    @classmethod
    def parse(cls, text: str) -> "EventPosition":
        """The position that a text names. Raises InvalidPosition."""
        if not TEXT.fullmatch(text):
            raise InvalidPosition(f"{text[:80]!r} is no position: it looks like p0.12-1.40")
        pairs = (entry.split(".") for entry in text[1:].split("-") if entry)
        return cls({int(part): int(offset) for part, offset in pairs})
