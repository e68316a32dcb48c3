"""The record of one episode: how it opened, each model call, how it ended."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from odradek.schemas.events.event import Count, Event, Name, Outcome, Purpose, null
from odradek.schemas.events.task import Timeouts


class EpisodeOpened(Event, frozen=True, tag="episode_opened", kw_only=True):
    """An attempt begins. The only event that makes the assembler keep state."""

    episode_id: Name
    task_id: Name
    agent: Name
    sample: Count
    group_size: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    last_attempt: bool = True
    """Whether no further attempt would follow this one."""
    purpose: Purpose = "train"
    rewards: dict[str, float] = {}
    failure_reward: float = 0.0
    timeouts: Timeouts = Timeouts()
    item: str = ""
    input: Raw = msgspec.field(default_factory=null)
    unattributed: bool = False
    """A call came for an episode that no host had opened: recorded, never grouped."""
    parent: str = ""
    """The episode whose agent asked for this one: this is its child, and part of its sample."""
    message_id: str = ""
    """Of the message by which the parent asked; all attempts at it have it."""
    own_weight: float = 0.0
    """Of a child: what its own reward counts in its worth. 0: none is waited for."""
    parent_weight: float = 1.0
    """Of a child: what its parent's reward counts in it."""


class VersionSpan(Struct, frozen=True, array_like=True):
    """Which policy version sampled tokens [start, end)."""

    version: Count
    start: Count
    end: Count


class Request(Event, frozen=True, kw_only=True):
    """What the agent asked, as a delta on the turn `base`."""

    base: str = ""
    """turn_id of an acked turn of the same writer and episode whose messages come first."""
    prefix_len: Count = 0
    """How many messages of the base's history (its messages and its reply) come first."""
    messages: tuple[Raw, ...] = ()
    """Messages after those, as the agent sent them."""
    tools: tuple[Raw, ...] = ()
    tools_digest: str = ""
    """Digest of the tools; the tools themselves are written once per writer and episode."""
    sampling: dict[str, Any] = {}
    """How it was sampled, with what the proxy wrote for the client (`odradek.schemas.sampling`);
    empty where that is as in `base`."""
    digest: str = ""
    """Of the request as the agent sent it; equal requests of an episode have equal ones."""
    dropped: tuple[str, ...] = ()
    """What of the request the engine did not get, by its type: tools, and items of such tools, that
    only a vendor's own servers have; `tool_choice` where the choice named one of them."""


class Reply(Event, frozen=True, kw_only=True):
    """What the model answered."""

    message: Raw = msgspec.field(default_factory=null)
    finish_reason: str | None = None


class Prompt(Event, frozen=True, kw_only=True):
    """Token ids of the prompt, as a delta on the turn `base`."""

    base: str = ""
    prefix_len: Count = 0
    """How many ids of the base's prompt + completion come first."""
    ids: bytes = b""


class Completion(Event, frozen=True, kw_only=True):
    """Sampled ids and, for each, its log probability in nats."""

    ids: bytes = b""
    logprobs: bytes = b""


class Usage(Event, frozen=True, kw_only=True):
    """Tokens as the engine counts them."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cached_tokens: Count = 0


class Timing(Event, frozen=True, kw_only=True):
    """When a call began and how long its parts took."""

    started_at: float = 0.0
    ttft_ms: Annotated[float, Meta(ge=0)] | None = None
    total_ms: Annotated[float, Meta(ge=0)] = 0.0


class Upstream(Event, frozen=True, kw_only=True):
    """How the engine answered."""

    status: Count = 0
    id: str = ""


class Continuation(Event, frozen=True, kw_only=True):
    """How the engine came by a prompt, where the proxy carries ids on (`continuation=bridge`)."""

    mode: Literal["", "bridge", "render"] = ""
    """`bridge`: an earlier turn's ids verbatim, then what is new, sent as ids; `render`: the chat
    template's rendering of all messages; empty where ids are never carried on."""
    reason: str = ""
    """Why it was rendered."""
    index: Count | None = None
    """The first position at which two renderings, or what was sent and what was used, differ."""


NO_CONTINUATION: Final = Continuation()
"""The default itself: an equal one would be written."""


class Turn(Event, frozen=True, tag="turn", kw_only=True):
    """One model call, durable before the agent sees its end."""

    episode_id: Name
    turn_id: Name
    writer: Name
    """The proxy's boot id."""
    seq: Count
    """Counts a writer's turns of an episode without gaps, given at send, from 0."""
    dialect: str = "chat"
    agent: str = ""
    model: str = ""
    request: Request = Request()
    reply: Reply = msgspec.field(default_factory=Reply)
    prompt: Prompt = Prompt()
    completion: Completion = Completion()
    versions: tuple[VersionSpan, ...] = ()
    """Over the completion's ids."""
    versions_from: Literal["", "engine", "inferred"] = ""
    cache_salt: Count | None = None
    """The policy version that the engine's prefix cache was salted with (vLLM's `cache_salt`). The
    engine served that version or a newer one. The keys and values behind these tokens may be of
    either, so a token counts as no newer. None where the engine takes no salt."""
    usage: Usage = Usage()
    timing: Timing = Timing()
    upstream: Upstream = Upstream()
    choice: Count = 0
    """Which of a call's parallel samples (`n` > 1) this is: each is a turn with the same digest."""
    retry_count: Count = 0
    """The client's own count (`x-stainless-retry-count`)."""
    equal_calls: Count = 1
    """Calls with this digest that the writer had accepted by now, this one included. It separates a
    request that is sent twice on purpose from a request and its retry."""
    streamed: bool = False
    disconnected: bool = False
    """The client left before the end; recorded, not trained."""
    supersedes: str = ""
    """turn_id of an equal call that was acked but never released to the client."""
    error: str = ""
    untrainable: str = ""
    """Why this turn cannot be trained on although it succeeded, such as `no_token_ids`."""
    without_tools: bool = False
    """The call had no tools. Set only where that makes it a side call once its episode has some."""
    continuation: Continuation = NO_CONTINUATION


class EpisodeSealed(Event, frozen=True, tag="episode_sealed", kw_only=True):
    """No turn of `writer` follows. Written behind the episode's last turn."""

    episode_id: Name
    writer: str = ""
    n_turns: Count = 0
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    children: tuple[str, ...] = ()
    """Episodes of other agents whose replies its agent had: each must be in the log."""


class EpisodeAborted(Event, frozen=True, tag="episode_aborted", kw_only=True):
    """The attempt is given up."""

    episode_id: Name
    reason: Outcome = Outcome.HOST_LOST
    retry: bool = False
    """Whether another attempt follows."""
    error: str = ""


class Tick(Event, frozen=True, tag="tick", kw_only=True):
    """The time, written to the log: something on this partition may be overdue."""

    writer: str = ""
