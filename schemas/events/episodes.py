"""What the assembler makes of a story: an episode of tokens, and its group."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from odradek.schemas.events.event import Count, Event, Name, Outcome, Purpose, Seconds, Size
from odradek.schemas.events.turns import Usage, VersionSpan


class Span(Struct, frozen=True, array_like=True):
    """Positions [start, end) of sampled tokens: one reply, and how it was sampled."""

    start: Count
    end: Count
    temperature: float | None = None
    """None where no proxy recorded it."""
    altered_by: str = ""
    """Name of the request field that altered the distribution (`top_p`, ...): the tokens were not
    drawn from all of the policy's distribution at that temperature. Empty where they were."""
    truncated: bool = False
    """Whether it ended at a limit of tokens."""


class GroupOpened(Event, frozen=True, tag="group_opened", kw_only=True):
    """A group begins. The only event that makes the grouper keep state."""

    task_id: Name
    agent: str = ""
    group_size: Size
    group_s: Seconds = 1800.0
    purpose: Purpose = "train"
    item: str = ""


class Sequence(Event, frozen=True, kw_only=True):
    """A linear run of tokens: prompts, sampled tokens and what came between them."""

    ids: bytes = b""
    spans: tuple[Span, ...] = ()
    """Where `ids` was sampled and is to be trained on."""
    logprobs: bytes = b""
    """Of the tokens in the spans only, in their order."""
    versions: tuple[VersionSpan, ...] = ()
    """Over positions of `ids`."""
    turn_ids: tuple[str, ...] = ()
    child: str = ""
    """The child that sampled it; empty: the episode itself."""


class ChildEpisode(Event, frozen=True, kw_only=True):
    """An episode that another one's agent asked for: its sequences are in that one's record."""

    episode_id: Name
    parent: Name
    agent: str
    attempt: Annotated[int, Meta(ge=1)] = 1
    retry: bool = False
    """Another attempt at the same message followed; its turns are not trained on."""
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    reward: float | None = None
    """What its sequences are worth; None where they are not trained on."""
    own: float = 0.0
    """Weight of its own reward in that."""
    share: float = 1.0
    """Weight of the sample's reward in that."""
    components: dict[str, float] = {}
    n_turns: Count = 0
    opened_at: float = 0.0
    closed_at: float = 0.0


class Break(Event, frozen=True, kw_only=True):
    """Where and why a turn did not continue an earlier one."""

    turn_id: str
    reason: Literal["branch", "rewritten", "retokenized", "no_tokens", "unknown_base"]
    index: Count = 0
    """The first position at which the prompt differs from every sequence that was there."""


class EpisodeHead(Event, frozen=True, tag="episode", kw_only=True):
    """An Episode without its tokens, for readers that only count and compare."""

    episode_id: Name
    task_id: Name
    agent: str
    sample: Count
    group_size: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    retry: bool = False
    """Another attempt follows, so this is no end of the sample."""
    purpose: Purpose = "train"
    item: str = ""
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    reward: float | None = None
    """Weighted sum of the components; the failure reward where the outcome says so."""
    components: dict[str, float] = {}
    weights: dict[str, float] = {}
    """Of the components in the reward, as its task names them. Empty: "reward" alone, weight 1."""
    n_turns: Count = 0
    opened_at: float = 0.0
    """Append times of EpisodeOpened and of the event that closed the episode."""
    closed_at: float = 0.0
    revision: Count = 0
    """0 is live. Late rewards make no record of this kind: see `odradek.schemas.revisions`."""
    unattributed: bool = False
    imported_from: str = ""
    """Of an episode that `odradek import` wrote: the format that it was recorded in. Nobody here
    knows which weights sampled it, so it is in no group and no batch, and is not trained on."""
    children: tuple[ChildEpisode, ...] = ()
    """In the order of their opening, those of children among them."""


class Episode(EpisodeHead, frozen=True, tag="episode", kw_only=True):
    """One (task, sample, attempt) with its tokens and its reward."""

    sequences: tuple[Sequence, ...] = ()
    breaks: tuple[Break, ...] = ()
    untrained_turns: dict[str, str] = {}
    """turn_id -> why it is not trained on (disconnected, superseded, error, no_token_ids, ...)."""
    usage: Usage = Usage()
