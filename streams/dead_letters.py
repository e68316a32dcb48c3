"""Dead letters: what could not be used, why, and sending it again once the cause is gone."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    Record,
    admin,
    at_offsets,
    consumer,
    partitions_of,
    running,
    to_end,
)
from odradek.infra.bus.dead_letters import PREFIX, attempts_of
from odradek.schemas.codec import header
from odradek.schemas.ids import key_shown
from odradek.schemas.topics import DLQ
from odradek.streams.errors import ReplayRefused

FIELDS: Final = {
    "topic": "topic", "partition": "partition", "offset": "offset", "reason": "reason",
    "detail": "detail", "consumer": "consumer", "attempts": "attempts", "left": "value-bytes",
}  # fmt: skip
"""Keys of `odradek dlq list --json`, and the header that each is read from."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A selection of dead letters; an empty field selects all."""

    reason: str = ""
    topic: str = ""
    since: float | None = None
    """Unix seconds: letters written at this time or later."""
    until: float | None = None
    """Unix seconds: letters written before this time."""

    def takes(self, letter: Record) -> bool:
        """Whether a letter is meant."""
        if self.reason and header(letter.headers, f"{PREFIX}reason") != self.reason:
            return False
        if self.topic and header(letter.headers, f"{PREFIX}topic") != self.topic:
            return False
        if self.since is not None and letter.timestamp < self.since:
            return False
        return self.until is None or letter.timestamp < self.until


def described(letter: Record) -> dict[str, Any]:
    """A dead letter without its content: its place, its origin and its reason."""
    fields = {key: header(letter.headers, PREFIX + name) for key, name in FIELDS.items()}
    return {
        "at": f"{letter.partition}:{letter.offset}",
        "key": key_shown(letter.key),
        "bytes": int(fields["left"] or 0) or len(letter.value or b""),
        "time": letter.timestamp,
        **{name: value for name, value in fields.items() if value},
    }


async def letters(
    bus: BusSettings, *, dlq: str = DLQ.name, only: Filter | None = None, **words: Any
) -> AsyncIterator[Record]:
    """All dead letters, or those that a Filter (or its fields as keywords) takes."""
    selection = only or Filter(**words)
    async for letter in to_end(bus, dlq):
        if selection.takes(letter):
            yield letter


def place(text: str) -> tuple[int, int]:
    """PARTITION:OFFSET as numbers. Raises ReplayRefused."""
    partition, _, offset = text.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise ReplayRefused(f"{text!r} is no place: write PARTITION:OFFSET, as `dlq list` does")
    return int(partition), int(offset)


async def find(bus: BusSettings, at: str, *, dlq: str = DLQ.name) -> Record:
    """The dead letter at PARTITION:OFFSET. Raises ReplayRefused where there is none."""
    letter = await _at(bus, dlq, *place(at))
    if letter is None:
        raise ReplayRefused(f"{dlq} holds no letter at {at}")
    return letter


async def _at(bus: BusSettings, topic: str, partition: int, offset: int) -> Record | None:
    async for record in to_end(bus, topic, start=at_offsets(bus, {(topic, partition): offset})):
        if (record.partition, record.offset) == (partition, offset):
            return record
    return None


async def original(bus: BusSettings, letter: Record) -> Record:
    """The record that a letter was made of: its bytes, key, headers and place.

    Raises ReplayRefused for a letter that names no place. Raises it also where the value was too
    large for a letter and the record has been deleted since.
    """
    topic = header(letter.headers, f"{PREFIX}topic")
    numbers = [header(letter.headers, PREFIX + name) or "" for name in ("partition", "offset")]
    if not topic or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ReplayRefused(f"the letter at {letter.partition}:{letter.offset} names no place")
    partition, offset = map(int, numbers)
    headers = tuple(
        pair
        for pair in letter.headers
        if not pair[0].startswith(PREFIX) or pair[0] == f"{PREFIX}attempts"
    )
    value = letter.value
    if header(letter.headers, f"{PREFIX}value-bytes"):
        record = await _at(bus, topic, partition, offset)
        if record is None:
            raise ReplayRefused(f"{topic}[{partition}]@{offset} was left there and is deleted")
        value = record.value
    return Record(topic, partition, offset, letter.key, value, headers, letter.timestamp)


async def send_again(
    appender: KafkaAppender,
    letter: Record,
    bus: BusSettings,
    renew: Callable[[Record], Record] | None = None,
) -> str:
    """Append a letter's original bytes to the topic that they came from; return its name.

    The count of attempts stays with them. Where the record had no key it goes back to its
    partition; else to the one where its key belongs, which is the same unless the letter says
    `wrong_partition`. The letter itself stays: the topic is a log. `renew` may give it other
    headers.
    """
    record = await original(bus, letter)
    if renew is not None:
        record = renew(record)
    await appender.append(
        record.topic,
        key=record.key,
        value=record.value,
        headers=record.headers,
        partition=record.partition if record.key is None else None,
    )
    return record.topic


def worn(letter: Record, most: int) -> bool:
    """Whether a record has been a dead letter too often to be sent again."""
    return most > 0 and attempts_of(letter.headers) >= most


async def drop(bus: BusSettings, before: Mapping[int, int], *, dlq: str = DLQ.name) -> None:
    """Delete letters for good: per partition, all below an offset."""
    async with running(admin(bus), bus) as client:
        await client.delete_records(
            {
                TopicPartition(bus.topic(dlq), partition): RecordsToDelete(offset)
                for partition, offset in before.items()
            }
        )


async def older_than(bus: BusSettings, until: float, *, dlq: str = DLQ.name) -> dict[int, int]:
    """Per partition that holds any, the offset below which all letters are older than a time."""
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, bus.topic(dlq))
        begins = await reader.beginning_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        positions = await reader.offsets_for_times(dict.fromkeys(partitions, int(until * 1000)))
    below = {
        partition: positions[partition].offset if positions.get(partition) else ends[partition]
        for partition in partitions
    }
    return {
        partition.partition: offset
        for partition, offset in below.items()
        if offset > begins[partition]
    }
