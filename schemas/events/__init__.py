"""Every event that crosses a topic, as msgspec types.

Rules of evolution: readers ignore unknown fields, new fields have defaults, a breaking change is
a new topic version. Times are seconds; `*_at` is Unix time, `*_s` a duration, `*_ms` milliseconds.
Fields of type `bytes` are arrays (see `odradek.schemas.arrays`). Fields of type `Raw` are JSON
that passes through without being parsed.
"""

from odradek.schemas.events.conversations import Conversation, Said
from odradek.schemas.events.episodes import Break, Episode, EpisodeHead, Expected, Sequence, Span
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
from odradek.schemas.events.task import Reward, Task, Timeouts
from odradek.schemas.events.training import Batch, Exclusion, Pointer, Policy, Refusal, Step, Used
from odradek.schemas.events.turns import (
    UNTOLD,
    Aborted,
    Completion,
    Continuation,
    Opened,
    Prompt,
    Reply,
    Request,
    Sealed,
    Tick,
    Timing,
    Turn,
    Upstream,
    Usage,
    VersionSpan,
)

TurnsEvent = Opened | Turn | Reward | Sealed | Aborted | Tick
EpisodesEvent = Expected | Episode | Tick
GroupsEvent = Expected | EpisodeHead | Tick
"""What the grouper reads of `rl.episodes.v1`: the same records, without the tokens."""
AnyEvent = (
    Task
    | Reward
    | Opened
    | Turn
    | Sealed
    | Aborted
    | Tick
    | Expected
    | Episode
    | Conversation
    | Batch
    | Step
    | Policy
)

__all__ = [
    "UNTOLD",
    "Aborted",
    "AnyEvent",
    "Batch",
    "Break",
    "Completion",
    "Continuation",
    "Conversation",
    "Count",
    "Episode",
    "EpisodeHead",
    "EpisodesEvent",
    "Event",
    "Exclusion",
    "Expected",
    "GroupsEvent",
    "Name",
    "Opened",
    "Outcome",
    "Pointer",
    "Policy",
    "Prompt",
    "Purpose",
    "Refusal",
    "Reply",
    "Request",
    "Reward",
    "Said",
    "Sealed",
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
    "Used",
    "VersionSpan",
    "null",
    "parsed",
    "raw",
]
