"""How far a process is behind, once offsets and records are known: pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from aiokafka import TopicPartition
from msgspec import Struct

from odradek.infra.app.backlog.processes import Reading
from odradek.infra.bus import DoneOffsets

NEAR: Final = 10_000
"""Offsets of a partition up to which its records are counted."""


class PartitionLag(Struct, frozen=True):
    """How far a process is behind on a partition."""

    partition: int
    lag: int
    """Records that it has not done."""
    exact: bool
    """False where they are too many to be counted: then it is their offsets, the most it can be."""
    left: int
    """Those of them that it has taken: they are under way, or wait at the process."""
    done: int
    """It has done all before this offset, but for `left`."""
    end: int
    """The partition's end, as committed readers see it."""


class ProcessLag(Struct, frozen=True):
    """How far a process is behind on a topic."""

    process: str
    topic: str
    group: str
    """Its consumer group; empty of a trainer, whose position is in the ledger."""
    lag: int
    exact: bool
    partitions: tuple[PartitionLag, ...]

    @property
    def shown(self) -> str:
        """For people: a number, marked where it is the most that it can be."""
        return f"{self.lag:,}" if self.exact else f"≤ {self.lag:,}"


class Stretch(Struct, frozen=True):
    """What is there of a partition, and how much of it is to be counted.

    Attributes:
        beginning: The first offset that retention has left.
        end: The offset behind the last record.
        near: Offsets up to which records are counted; None to count any number.
    """

    beginning: int
    end: int
    near: int | None = NEAR

    def first(self, done: DoneOffsets) -> int | None:
        """From where on records are to be counted, None if none are."""
        first = done.first(self.beginning)
        if first >= self.end or (self.near is not None and self.end - first > self.near):
            return None
        return first

    def lag(self, partition: int, done: DoneOffsets, offsets: Sequence[int]) -> PartitionLag:
        """How far a process is behind that has done this much.

        Args:
            partition: Which.
            done: What it has done.
            offsets: Of all records from `first` on, in order; earlier ones do not matter.
        """
        first = done.first(self.beginning)
        counted = self.first(done) is not None
        left = done.undone((), self.beginning)
        lag = done.undone(offsets, self.beginning) if counted else left
        far = 0 if counted else max(0, self.end - first)
        return PartitionLag(partition, lag + far, not far, left, first, self.end)


def lag_of(
    reading: Reading,
    done: Mapping[TopicPartition, DoneOffsets],
    stretches: Mapping[TopicPartition, Stretch],
    offsets: Callable[[TopicPartition], Sequence[int]],
) -> ProcessLag:
    """How far a process is behind on all partitions of a topic."""
    partitions = tuple(
        stretches[where].lag(where.partition, each, offsets(where))
        for where, each in sorted(done.items())
    )
    return ProcessLag(
        reading.process,
        reading.topic,
        reading.group,
        sum(each.lag for each in partitions),
        all(each.exact for each in partitions),
        partitions,
    )


def behind(lags: Iterable[ProcessLag]) -> dict[str, int]:
    """By process, how many records it is behind on all its topics."""
    found: dict[str, int] = {}
    for each in lags:
        found[each.process] = found.get(each.process, 0) + each.lag
    return found
