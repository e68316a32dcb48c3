"""What crosses the topics: events, ids, arrays, the topic table and the codec."""

from odradek.schemas.codec import decode, encode
from odradek.schemas.errors import InvalidRecord, SchemaError, UnknownTopic
from odradek.schemas.events import (
    Aborted,
    Batch,
    Conversation,
    Episode,
    Event,
    Expected,
    Opened,
    Outcome,
    Policy,
    Reward,
    Sealed,
    Step,
    Task,
    Tick,
    Timeouts,
    Turn,
)

__all__ = [
    "Aborted",
    "Batch",
    "Conversation",
    "Episode",
    "Event",
    "Expected",
    "InvalidRecord",
    "Opened",
    "Outcome",
    "Policy",
    "Reward",
    "SchemaError",
    "Sealed",
    "Step",
    "Task",
    "Tick",
    "Timeouts",
    "Turn",
    "UnknownTopic",
    "decode",
    "encode",
]
