"""Names of objects: topic, partition of how many, first and last offset. Pure.

Names are all that must be listed to know what an archive has.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from odradek.infra.archive.range import OffsetRange

NAME: Final = re.compile(
    r"(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>\d{5})-of-(?P<partitions>\d{5})/"
    r"(?P<first>\d{20})-(?P<last>\d{20})\.parquet"
)


class ObjectName(Struct, frozen=True, order=True):
    """What an object holds: one range of one partition."""

    topic: str
    """Without prefix."""
    partition: int
    partitions: int
    """How many the topic has; that never changes."""
    range: OffsetRange
    """The offsets that were read. Where no record stands, the log had none."""

    def __str__(self) -> str:
        """Its path below the archive's root."""
        folder = f"{self.topic}/{self.partition:05d}-of-{self.partitions:05d}"
        return f"{folder}/{self.range.first:020d}-{self.range.end - 1:020d}.parquet"

    @classmethod
    def parse(cls, path: str) -> "ObjectName | None":
        """The name that a path is, None where it is none of ours."""
        match = NAME.fullmatch(path)
        if match is None:
            return None
        numbers = {key: int(match[key]) for key in ("partition", "partitions", "first", "last")}
        if numbers["partition"] >= numbers["partitions"] or numbers["last"] < numbers["first"]:
            return None
        return cls(
            match["topic"],
            numbers["partition"],
            numbers["partitions"],
            OffsetRange(numbers["first"], numbers["last"] + 1),
        )


def by_partition(names: Iterable[ObjectName]) -> dict[tuple[str, int], list[ObjectName]]:
    """Names by the topic and the partition that they are of."""
    parts: dict[tuple[str, int], list[ObjectName]] = defaultdict(list)
    for name in names:
        parts[name.topic, name.partition].append(name)
    return dict(parts)
