"""Dead letters: the original bytes, and in the headers from where they came and why."""

from typing import Any

from odradek.infra.bus.appender import Appender, Record
from odradek.infra.bus.settings import BusSettings
from odradek.schemas.codec import Headers, header
from odradek.schemas.topics import DLQ

PREFIX = "dlq-"


def record_of(message: Any, bus: BusSettings) -> Record:
    """An aiokafka message as a Record of ours; its key is None where it is no UTF-8."""
    try:
        key = message.key.decode() if message.key is not None else None
    except UnicodeDecodeError:
        key = None
    return Record(
        topic=bus.bare(message.topic),
        partition=message.partition,
        offset=message.offset,
        key=key,
        value=message.value,
        headers=tuple(message.headers or ()),
        timestamp=(message.timestamp or 0) / 1000,
    )


def letter_headers(record: Record, reason: str, detail: str = "", *, consumer: str = "") -> Headers:
    """Headers of the dead letter of a record: its own, and why it is one.

    `attempts` counts how often the record became a dead letter.
    """
    attempts = int(header(record.headers, PREFIX + "attempts") or 0) + 1
    own = tuple(pair for pair in record.headers if not pair[0].startswith(PREFIX))
    told = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "reason": reason,
        "detail": detail[:500],
        "consumer": consumer,
        "attempts": str(attempts),
    }
    return (*own, *((PREFIX + name, text.encode()) for name, text in told.items() if text))


async def dead_letter(
    appender: Appender, record: Record, reason: str, detail: str = "", *, consumer: str = ""
) -> None:
    """Append the dead letter of a record to `rl.dlq.v1`."""
    await appender.append(
        DLQ.name,
        key=record.key,
        value=record.value,
        headers=letter_headers(record, reason, detail, consumer=consumer),
    )
