"""Offsets of the records of stretches of partitions, each record read once at most."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct

from odradek.infra.bus import BusSettings, Record, read_below
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord

STALL_S: Final = 30.0

Positions = Mapping[TopicPartition, int]


class PurposeHead(Struct, frozen=True):
    """What a batch is for."""

    purpose: str = "train"


HEAD: Final = codec.head_reader(PurposeHead)


class CountedSpan(Struct, frozen=True):
    """Offsets of the records of a stretch [first, end) of a partition."""

    first: int
    end: int
    offsets: tuple[int, ...] = ()

    def since(self, first: int) -> "CountedSpan":
        """What of it need not be read again, where it is wanted from `first` on."""
        if not self.first <= first <= self.end:
            return CountedSpan(first, first)
        return CountedSpan(first, self.end, tuple(at for at in self.offsets if at >= first))


class RecordSpans:
    """Remembers what was wanted the last time.

    Args:
        bus: Where Kafka is.
        reader: Reads, and is given to nobody else.
    """

    def __init__(self, bus: BusSettings, reader: AIOKafkaConsumer) -> None:
        self._bus = bus
        self._reader = reader
        self._spans: dict[str, dict[TopicPartition, CountedSpan]] = {}

    async def read(self, start: Positions, ends: Positions) -> AsyncIterator[Record]:
        """Records from `start` on, of partitions that have any before their ends."""
        left = {where: ends[where] for where, offset in start.items() if offset < ends[where]}
        if not left:
            return
        self._reader.assign(list(left))
        for where in left:
            self._reader.seek(where, start[where])
        async for record in read_below(self._bus, self._reader, start, left, stall_s=STALL_S):
            yield record

    async def want(self, purpose: str, first: Positions, ends: Positions) -> None:
        """Know the records of partitions from `first` on.

        Args:
            purpose: Only of batches for this purpose; "" for all records.
            first: Where they are wanted from; other partitions are forgotten.
            ends: Where the log ends.
        """
        before = self._spans.get(purpose, {})
        kept = {
            where: before.get(where, CountedSpan(0, 0)).since(offset)
            for where, offset in first.items()
        }
        fresh: dict[TopicPartition, list[int]] = {where: [] for where in first}
        start = {where: span.end for where, span in kept.items()}
        async for record in self.read(start, ends):
            if not purpose or _purpose(record) == purpose:
                where = TopicPartition(self._bus.topic(record.topic), record.partition)
                fresh[where].append(record.offset)
        self._spans[purpose] = {
            where: CountedSpan(
                span.first, max(span.end, ends[where]), (*span.offsets, *fresh[where])
            )
            for where, span in kept.items()
        }

    def offsets(self, purpose: str, where: TopicPartition) -> tuple[int, ...]:
        """What was wanted of a partition, in order."""
        span = self._spans.get(purpose, {}).get(where)
        return () if span is None else span.offsets


def _purpose(record: Record) -> str:
    try:
        purpose: str = HEAD(record.value).purpose
    except InvalidRecord:
        return ""
    return purpose
