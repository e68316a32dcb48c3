"""The bus: settings, clients, topics, appending, dead letters. Kafka is used only through here."""

from odradek.infra.bus.appender import (
    PATIENT_S,
    Appender,
    KafkaAppender,
    MemoryAppender,
    Record,
    RecordAddress,
)
from odradek.infra.bus.clients import (
    admin,
    away,
    check_position,
    close,
    consumer,
    gone,
    partitions_of,
    producer,
    running,
    standings,
    start,
    topic_names,
    topic_partitions,
)
from odradek.infra.bus.dead_letters import check_place, dead_letter, letter, passed_over, record_of
from odradek.infra.bus.offsets import OffsetTracker
from odradek.infra.bus.settings import BusSettings
from odradek.infra.bus.topics import delete_topics, ensure_topics, require_topics, rows

__all__ = [
    "PATIENT_S",
    "Appender",
    "BusSettings",
    "KafkaAppender",
    "MemoryAppender",
    "OffsetTracker",
    "Record",
    "RecordAddress",
    "admin",
    "away",
    "check_place",
    "check_position",
    "close",
    "consumer",
    "dead_letter",
    "delete_topics",
    "ensure_topics",
    "gone",
    "letter",
    "partitions_of",
    "passed_over",
    "producer",
    "record_of",
    "require_topics",
    "rows",
    "running",
    "standings",
    "start",
    "topic_names",
    "topic_partitions",
]
