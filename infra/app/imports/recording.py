"""A recorded episode, whatever format it was recorded in. Pure."""

from typing import Any

from msgspec import Struct

from odradek.schemas.events import Episode, Outcome


class RecordedTokens(Struct, frozen=True):
    """The tokens of a model call, as arrays (see `odradek.schemas.arrays`)."""

    prompt: bytes
    sampled: bytes
    logprobs: bytes
    """Of the sampled tokens, in nats."""


class RecordedTurn(Struct, frozen=True, kw_only=True):
    """A model call, as a delta on an earlier one."""

    base: int = -1
    """Which turn's history comes first, by number; -1: none."""
    prefix_len: int = 0
    """How many messages of that history come first."""
    messages: tuple[Any, ...] = ()
    """Those after them."""
    reply: Any = None
    """None where the recording ends with what nobody answered."""
    finish_reason: str | None = None
    tools: Any = None
    tokens: RecordedTokens | None = None
    """None where ids or log probabilities were not recorded."""


class Recording(Struct, frozen=True, kw_only=True):
    """One episode as a file tells it."""

    episode_id: str = ""
    """Its own id; empty where it has none, and its content makes one."""
    task_id: str = ""
    """The same for its task: empty where the prompt makes one."""
    item: str = ""
    agent: str = ""
    input: Any = None
    turns: tuple[RecordedTurn, ...] = ()
    reward: float | None = None
    components: dict[str, float] = {}
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    opened_at: float = 0.0
    closed_at: float = 0.0
    episode: Episode | None = None
    """Where the format has the event itself: then there are no words."""
