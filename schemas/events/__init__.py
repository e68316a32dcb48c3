"""Every event that crosses a topic, as msgspec types.

Rules of evolution: readers ignore unknown fields, new fields have defaults, a breaking change is
a new topic version. Times are seconds; `*_at` is Unix time, `*_s` a duration, `*_ms` milliseconds.
Fields of type `bytes` are arrays (see `odradek.schemas.arrays`). Fields of type `Raw` are JSON
that passes through without being parsed.
"""

from odradek.schemas.events.conversations import Conversation, ConversationTurn
from odradek.schemas.events.episodes import (
    Break,
    ChildEpisode,
    Episode,
    EpisodeHead,
    GroupOpened,
    Sequence,
    Span,
)
from odradek.schemas.events.event import (
    Count,
    Event,
    Name,
    Outcome,
    Purpose,
    Seconds,
    null,
    parsed,
    raw,
)
from odradek.schemas.events.task import ChildReward, Reward, Task, Timeouts
from odradek.schemas.events.training import (
    LORA,
    Batch,
    BatchUse,
    Exclusion,
    Mixed,
    Pointer,
    Policy,
    Refusal,
    Step,
)
from odradek.schemas.events.turns import (
    NO_CONTINUATION,
    Completion,
    Continuation,
    EpisodeAborted,
    EpisodeOpened,
    EpisodeSealed,
    Prompt,
    Reply,
    Request,
    Tick,
    Timing,
    Turn,
    Upstream,
    Usage,
    VersionSpan,
)

TurnsEvent = EpisodeOpened | Turn | Reward | EpisodeSealed | EpisodeAborted | Tick
EpisodesEvent = GroupOpened | Episode | Tick
GroupsEvent = GroupOpened | EpisodeHead | Tick
"""What the grouper reads of `rl.episodes.v1`: the same records, without the tokens."""
AnyEvent = (
    Task
    | Reward
    | EpisodeOpened
    | Turn
    | EpisodeSealed
    | EpisodeAborted
    | Tick
    | GroupOpened
    | Episode
    | Conversation
    | Batch
    | Step
    | Policy
)

__all__ = [
    "LORA",
    "NO_CONTINUATION",
    "AnyEvent",
    "Batch",
    "BatchUse",
    "Break",
    "ChildEpisode",
    "ChildReward",
    "Completion",
    "Continuation",
    "Conversation",
    "ConversationTurn",
    "Count",
    "Episode",
    "EpisodeAborted",
    "EpisodeHead",
    "EpisodeOpened",
    "EpisodeSealed",
    "EpisodesEvent",
    "Event",
    "Exclusion",
    "GroupOpened",
    "GroupsEvent",
    "Mixed",
    "Name",
    "Outcome",
    "Pointer",
    "Policy",
    "Prompt",
    "Purpose",
    "Refusal",
    "Reply",
    "Request",
    "Reward",
    "Seconds",
    "Sequence",
    "Span",
    "Step",
    "Task",
    "Tick",
    "Timeouts",
    "Timing",
    "Turn",
    "TurnsEvent",
    "Upstream",
    "Usage",
    "VersionSpan",
    "null",
    "parsed",
    "raw",
]
