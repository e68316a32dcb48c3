"""What crosses the topics: events, ids, arrays, the topic table and the codec."""

from odradek.schemas.codec import decode, encode
from odradek.schemas.errors import InvalidRecord, SchemaError, UnknownTopic
from odradek.schemas.events import (
    Batch,
    Conversation,
    Episode,
    EpisodeAborted,
    EpisodeOpened,
    EpisodeSealed,
    Event,
    GroupOpened,
    Outcome,
    Policy,
    Reward,
    Step,
    Task,
    Tick,
    Timeouts,
    Turn,
)

__all__ = [
    "Batch",
    "Conversation",
    "Episode",
    "EpisodeAborted",
    "EpisodeOpened",
    "EpisodeSealed",
    "Event",
    "GroupOpened",
    "InvalidRecord",
    "Outcome",
    "Policy",
    "Reward",
    "SchemaError",
    "Step",
    "Task",
    "Tick",
    "Timeouts",
    "Turn",
    "UnknownTopic",
    "decode",
    "encode",
]
