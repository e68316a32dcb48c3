"""Ranges of offsets: what an archive has of a partition, what it lacks, and what is lost. Pure."""

from collections.abc import Iterable

from msgspec import Struct


class OffsetRange(Struct, frozen=True, order=True):
    """Offsets [first, end) that were read, whether or not a record stands at each of them."""

    first: int
    end: int

    def __contains__(self, offset: int) -> bool:
        """Whether an offset lies in it."""
        return self.first <= offset < self.end

    def __len__(self) -> int:
        """How many offsets it has."""
        return max(0, self.end - self.first)

    def __str__(self) -> str:
        """First and last offset, as people read them."""
        return f"{self.first} to {self.end - 1}"


class PartitionPlan(Struct, frozen=True):
    """What is to be done for a partition."""

    missing: tuple[OffsetRange, ...]
    """What the log has and the archive lacks: to be copied."""
    lost: tuple[OffsetRange, ...]
    """What lies behind the archive's first offset, and neither has."""


def merged(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The same offsets in as few ranges as possible, in order."""
    parts: list[OffsetRange] = []
    for each in sorted(ranges):
        if not len(each):
            continue
        if parts and each.first <= parts[-1].end:
            parts[-1] = OffsetRange(parts[-1].first, max(parts[-1].end, each.end))
        else:
            parts.append(each)
    return parts


def without(whole: OffsetRange, taken: Iterable[OffsetRange]) -> list[OffsetRange]:
    """The parts of a range that no other covers, in order."""
    left, at = [], whole.first
    for each in merged(taken):
        if each.first > at:
            left.append(OffsetRange(at, min(each.first, whole.end)))
        at = max(at, each.end)
        if at >= whole.end:
            break
    if at < whole.end:
        left.append(OffsetRange(at, whole.end))
    return [part for part in left if len(part)]


def planned(held: Iterable[OffsetRange], log: OffsetRange) -> PartitionPlan:
    """What to copy, and what is lost for ever.

    What was gone before the archive began is no loss of the archive's.

    Args:
        held: What the archive has.
        log: What the log has: from its beginning to its last stable offset.
    """
    has = merged(held)
    behind = OffsetRange(has[0].first, max(log.first, has[-1].end)) if has else OffsetRange(0, 0)
    return PartitionPlan(missing=tuple(without(log, has)), lost=tuple(without(behind, [*has, log])))


def joined(log: OffsetRange, held: Iterable[OffsetRange]) -> OffsetRange | None:
    """From the first offset that can be read to the end, in archive and log together.

    Holes may lie between: whoever reads there hears of it.

    Args:
        log: What the log has.
        held: What the archive has.

    Returns:
        None where the log ends before the archive does, and is not empty: it is another log.
    """
    has = merged(held)
    if not has:
        return log
    if has[-1].end > log.end:
        return None if len(log) else OffsetRange(has[0].first, has[-1].end)
    return OffsetRange(min(has[0].first, log.first), log.end)


def holder(ranges: Iterable[OffsetRange], offset: int) -> OffsetRange | None:
    """Of the ranges that an offset lies in, the one that reaches farthest."""
    return max((each for each in ranges if offset in each), key=lambda each: each.end, default=None)
