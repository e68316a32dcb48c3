"""Dead letters: what could not be used, why, and sending it again once the cause is gone."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete

from odradek.infra.bus import BusSettings, KafkaAppender, Record, admin, running
from odradek.infra.bus.deadletter import PREFIX
from odradek.schemas.codec import header
from odradek.schemas.topics import DLQ
from odradek.streams.errors import ReplayRefused
from odradek.streams.reading import to_end

FIELDS = ("topic", "partition", "offset", "reason", "detail", "consumer", "attempts")


def described(letter: Record) -> dict[str, Any]:
    """A dead letter without its content: where it stands, whence it came, and why."""
    told = {name: header(letter.headers, PREFIX + name) for name in FIELDS}
    return {
        "at": f"{letter.partition}:{letter.offset}",
        "key": letter.key,
        "bytes": len(letter.value or b""),
        "time": letter.timestamp,
        **{name: value for name, value in told.items() if value},
    }


async def letters(
    bus: BusSettings, *, reason: str = "", topic: str = "", dlq: str = DLQ.name
) -> AsyncIterator[Record]:
    """All dead letters, or those with this reason or from this topic."""
    async for letter in to_end(bus, dlq):
        if reason and header(letter.headers, f"{PREFIX}reason") != reason:
            continue
        if topic and header(letter.headers, f"{PREFIX}topic") != topic:
            continue
        yield letter


def place(text: str) -> tuple[int, int]:
    """PARTITION:OFFSET as numbers. Raises ReplayRefused."""
    partition, _, offset = text.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise ReplayRefused(f"{text!r} is no place: write PARTITION:OFFSET, as `dlq list` does")
    return int(partition), int(offset)


async def find(bus: BusSettings, at: str, *, dlq: str = DLQ.name) -> Record:
    """The dead letter at PARTITION:OFFSET. Raises ReplayRefused where there is none."""
    partition, offset = place(at)
    async for letter in to_end(bus, dlq, begin={(dlq, partition): offset}):
        if (letter.partition, letter.offset) == (partition, offset):
            return letter
    raise ReplayRefused(f"{dlq} holds no letter at {at}")


async def send_again(appender: KafkaAppender, letter: Record) -> str:
    """Append a letter's original bytes to the topic that they came from; return its name.

    The count of attempts stays with it. The letter itself stays, too: the topic is a log.
    """
    topic = header(letter.headers, f"{PREFIX}topic")
    if not topic:
        raise ReplayRefused(f"the letter at {letter.partition}:{letter.offset} names no topic")
    kept = tuple(
        pair
        for pair in letter.headers
        if not pair[0].startswith(PREFIX) or pair[0] == f"{PREFIX}attempts"
    )
    partition = header(letter.headers, f"{PREFIX}partition")
    await appender.append(
        topic,
        key=letter.key,
        value=letter.value,
        headers=kept,
        partition=int(partition) if letter.key is None and partition else None,
    )
    return topic


async def drop(bus: BusSettings, before: Mapping[int, int], *, dlq: str = DLQ.name) -> None:
    """Delete letters for good: per partition, all below an offset."""
    async with running(admin(bus), bus) as client:
        await client.delete_records(
            {
                TopicPartition(bus.topic(dlq), partition): RecordsToDelete(offset)
                for partition, offset in before.items()
            }
        )
