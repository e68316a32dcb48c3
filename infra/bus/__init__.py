"""The bus: Kafka is used only through here.

`settings` says where Kafka is, `clients` makes aiokafka's clients, and `topics` makes and checks
topics. `appender` appends one record, `transactions` several together with a group's offset.
`group` follows a consumer group and hands its partitions to their owner, and `offsets` counts which
of a partition's records are finished. `reader` reads topics without a group, and `lookup` single
records by their addresses. `dead_letters` are records that nobody could use. `patches` mends
aiokafka, once, as `clients` is imported.
"""

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
from odradek.infra.bus.compatibility import require_current
from odradek.infra.bus.dead_letters import (
    check_place,
    dead_letter,
    event_of,
    letter,
    passed_over,
    record_of,
)
from odradek.infra.bus.group import PartitionGroup, PartitionOwner, commit_offsets
from odradek.infra.bus.lookup import RecordLookup, looking_up
from odradek.infra.bus.offsets import DoneOffsets, OffsetTracker
from odradek.infra.bus.reader import (
    Positions,
    Start,
    at_beginning,
    at_end,
    at_offsets,
    follow,
    following,
    read_below,
    read_range,
    to_end,
)
from odradek.infra.bus.settings import BusSettings
from odradek.infra.bus.topics import delete_topics, ensure_topics, require_topics, rows
from odradek.infra.bus.transactions import (
    FencedWriter,
    OutgoingRecord,
    PlainWriter,
    TransactionalWriter,
)

__all__ = [
    "PATIENT_S",
    "Appender",
    "BusSettings",
    "DoneOffsets",
    "FencedWriter",
    "KafkaAppender",
    "MemoryAppender",
    "OffsetTracker",
    "OutgoingRecord",
    "PartitionGroup",
    "PartitionOwner",
    "PlainWriter",
    "Positions",
    "Record",
    "RecordAddress",
    "RecordLookup",
    "Start",
    "TransactionalWriter",
    "admin",
    "at_beginning",
    "at_end",
    "at_offsets",
    "away",
    "check_place",
    "check_position",
    "close",
    "commit_offsets",
    "consumer",
    "dead_letter",
    "delete_topics",
    "ensure_topics",
    "event_of",
    "follow",
    "following",
    "gone",
    "letter",
    "looking_up",
    "partitions_of",
    "passed_over",
    "producer",
    "read_below",
    "read_range",
    "record_of",
    "require_current",
    "require_topics",
    "rows",
    "running",
    "standings",
    "start",
    "to_end",
    "topic_names",
    "topic_partitions",
]
