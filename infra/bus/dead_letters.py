"""Dead letters: the original bytes, and in the headers from where they came and why."""

import logging
from typing import Any, Final

from odradek.infra.bus.appender import Appender, Record
from odradek.infra.bus.settings import BusSettings
from odradek.infra.runtime import metrics
from odradek.schemas import codec
from odradek.schemas.codec import Headers, header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.ids import key_text, partition_for
from odradek.schemas.topics import DLQ

log = logging.getLogger("odradek")

PREFIX: Final = "dlq-"
APPEND_TIME: Final = 1
"""The timestamp type of records that the broker stamps (Kafka's `LogAppendTime`)."""
NEVER_KEPT: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that no letter carries on, in lower case."""

UNMATCHED: Final = frozenset(
    {"closed_or_unknown", "orphan", "late_reward", "late_sample", "after_end"}
)
"""Reasons that say: there is no story, or no longer, that this record could belong to."""


def record_of(message: Any, bus: BusSettings) -> Record:
    """An aiokafka message as our Record; see `key_text` for keys that are not UTF-8."""
    return Record(
        topic=bus.bare(message.topic),
        partition=message.partition,
        offset=message.offset,
        key=key_text(message.key),
        value=message.value,
        headers=tuple(message.headers or ()),
        timestamp=(message.timestamp or 0) / 1000,
        appended=message.timestamp_type == APPEND_TIME,
    )


def check_place(record: Record, partitions: int) -> None:
    """Raise InvalidRecord if a record is not where murmur2 puts its key.

    The owner of the right partition would never see it, and records with its key would be read in
    another order, or twice. Records without a key are at home anywhere; 0 partitions: unknown.
    """
    if partitions > 1 and record.key is not None:
        home = partition_for(record.key, partitions)
        if home != record.partition:
            raise InvalidRecord(
                "wrong_partition",
                f"its key belongs on partition {home} of {partitions}: set partitioner=murmur2",
            )


def passed_over(record: Record, error: InvalidRecord) -> None:
    """Note a record that a mere reader cannot use: its topic's owner is who writes dead letters."""
    metrics.moved(metrics.SKIPPED, topic=record.topic, reason=error.reason)
    log.debug("%s[%d]@%d: %s", record.topic, record.partition, record.offset, error)


def event_of(record: Record, kind: Any, *, max_bytes: int = codec.MAX_BYTES) -> Any:
    """The event in a record for a mere reader; None, and the record is noted, where it holds none.

    Args:
        record: From the log.
        kind: See `codec.decode`.
        max_bytes: The same.
    """
    try:
        return codec.decode(record.value, kind, max_bytes=max_bytes)
    except InvalidRecord as error:
        passed_over(record, error)
        return None


def attempts_of(headers: Headers) -> int:
    """How often a record was a dead letter; 0 where its header is absent or no number."""
    text = header(headers, PREFIX + "attempts") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def letter(
    record: Record, reason: str, detail: str = "", *, consumer: str = ""
) -> tuple[bytes | None, Headers]:
    """Value and headers of the dead letter of a record: its own, and why it is one.

    `attempts` counts how often the record became a dead letter. A value beyond what the dead
    letters' topic takes (it was packed well) stays where it is: `dlq-value-bytes` gives its size,
    and `odradek dlq replay` fetches it there.
    """
    metrics.moved(metrics.DEAD_LETTERS, topic=record.topic, reason=reason)
    if reason in UNMATCHED:
        metrics.moved(metrics.UNMATCHED, topic=record.topic, reason=reason)
    size = len(record.value or b"")
    stays = size > DLQ.max_bytes
    own = tuple(
        pair
        for pair in record.headers
        if not pair[0].startswith(PREFIX) and pair[0].lower() not in NEVER_KEPT
    )
    fields = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "reason": reason,
        "detail": detail[:500],
        "consumer": consumer,
        "attempts": str(attempts_of(record.headers) + 1),
        "value-bytes": str(size) if stays else "",
    }
    why = ((PREFIX + name, text.encode(errors="replace")) for name, text in fields.items() if text)
    return (None if stays else record.value), (*own, *why)


async def dead_letter(
    appender: Appender, record: Record, reason: str, detail: str = "", *, consumer: str = ""
) -> None:
    """Append the dead letter of a record to `rl.dlq.v1`."""
    value, headers = letter(record, reason, detail, consumer=consumer)
    await appender.append(DLQ.name, key=record.key, value=value, headers=headers)
