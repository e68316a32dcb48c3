"""An episode of an agent as introspection counts it, made of its events on the log. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from odradek.infra.app.introspection.failures import kind_of
from odradek.infra.app.introspection.lines import Loop, ReadTurn, longest_line, loops, read_turns
from odradek.infra.app.introspection.tools import CalledTool, tool_uses
from odradek.schemas.events import (
    EpisodeAborted,
    EpisodeHead,
    EpisodeOpened,
    EpisodeSealed,
    Outcome,
    Turn,
    VersionSpan,
)
from odradek.streams.stages.episode import SIDE_CALL, OpenEpisode


class PlacedEvent(Struct, frozen=True):
    """An event, and where it stands."""

    at: str
    """TOPIC/PARTITION/OFFSET, as `odradek show` takes it."""
    written: float
    """Append time, Unix seconds."""
    event: Any


class AgentCall(Struct, frozen=True, kw_only=True):
    """A model call."""

    at: str
    total_s: float
    ttft_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: str = ""
    """Its kind."""
    finish_reason: str = ""
    retry: bool = False
    """The client said that it sends the request again."""
    gone: bool = False
    """The client left before the end."""
    beside: bool = False
    """A side call."""


class AgentEpisode(Struct, frozen=True, kw_only=True):
    """An episode of the agent: its own, or as a child of another agent's."""

    episode_id: str
    at: str
    """Of the record on `rl.episodes.v1`: of a child its parent's."""
    task_id: str
    attempt: int = 1
    retry: bool = False
    """Another attempt followed, so this is no end of its sample."""
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    """Its kind."""
    reward: float | None = None
    components: dict[str, float] = {}
    opened_at: float = 0.0
    closed_at: float = 0.0
    whole: bool = False
    """Whether its opening and its turns were there: without them all below is empty."""
    run_s: float | None = None
    """From its opening to its seal, by the broker's clock."""
    model_s: float = 0.0
    """In which at least one model call was under way."""
    calls: tuple[AgentCall, ...] = ()
    prompts: tuple[int, ...] = ()
    """Tokens of the prompts of its longest conversation, turn by turn."""
    prompt_places: tuple[str, ...] = ()
    """Of the turns with the first of those prompts and the last."""
    tools: tuple[CalledTool, ...] = ()
    loops: tuple[Loop, ...] = ()
    versions: dict[int, int] = {}
    """Tokens that each policy version sampled."""


ENDS: Final = (EpisodeSealed, EpisodeAborted)


def agent_episode(
    head: EpisodeHead, at: str, events: Iterable[PlacedEvent], *, child: str = ""
) -> AgentEpisode:
    """An episode, of its record and of its events on `rl.turns.v1`.

    Args:
        head: The record; its reward counts as it is.
        at: Where that stands.
        events: Of the episode, in the order of the log; what follows its end does not count.
        child: The id of a child in the record, whose episode it is.
    """
    own = next((one for one in head.children if one.episode_id == child), head)
    facts: dict[str, Any] = {
        "episode_id": own.episode_id,
        "at": at,
        "task_id": head.task_id,
        "attempt": own.attempt,
        "retry": own.retry,
        "outcome": own.outcome,
        "error": kind_of(own.error),
        "reward": own.reward,
        "components": own.components,
        "opened_at": own.opened_at,
        "closed_at": own.closed_at,
    }
    opened, turns, end = _parted(events)
    if opened is None or (own.n_turns and not turns):
        return AgentEpisode(**facts)
    read = read_turns(_ordered(opened, turns))
    line = longest_line([one for one in read if not _beside(one.turn)])
    ended = own.closed_at if end is None else end.written
    return AgentEpisode(
        **facts,
        whole=True,
        run_s=max(0.0, ended - opened.written) if ended else None,
        model_s=_covered(read),
        calls=tuple(_call(one) for one in read if one.turn.choice == 0),
        prompts=tuple(one.turn.usage.prompt_tokens for one in line if not one.turn.error),
        prompt_places=(line[0].at, line[-1].at) if line else (),
        tools=tool_uses(read),
        loops=loops(line),
        versions=_versions(span for one in read for span in one.turn.versions),
    )


def _parted(
    events: Iterable[PlacedEvent],
) -> tuple[PlacedEvent | None, list[PlacedEvent], PlacedEvent | None]:
    """The opening, the turns and the end."""
    opened, turns = None, []
    for one in events:
        if isinstance(one.event, EpisodeOpened):
            opened = one if opened is None or opened.event.unattributed else opened
        elif isinstance(one.event, Turn):
            turns.append(one)
        elif isinstance(one.event, ENDS):
            return opened, turns, one
    return opened, turns, None


def _ordered(opened: PlacedEvent, turns: Sequence[PlacedEvent]) -> list[tuple[str, Turn]]:
    """Places and turns in the order in which they were sent, each once."""
    story = OpenEpisode(opened.event, 0, opened.written, None)
    places: dict[str, str] = {}
    for one in turns:
        if not story.add(one.event):
            places[one.event.turn_id] = one.at
    return [(places[turn.turn_id], turn) for turn in story.ordered()]


def _beside(turn: Turn) -> bool:
    return turn.untrainable == SIDE_CALL


def _call(one: ReadTurn) -> AgentCall:
    turn = one.turn
    return AgentCall(
        at=one.at,
        total_s=turn.timing.total_ms / 1000,
        ttft_s=None if turn.timing.ttft_ms is None else turn.timing.ttft_ms / 1000,
        prompt_tokens=turn.usage.prompt_tokens,
        completion_tokens=turn.usage.completion_tokens,
        cached_tokens=turn.usage.cached_tokens,
        error=kind_of(turn.error),
        finish_reason=turn.reply.finish_reason or "",
        retry=turn.retry_count > 0,
        gone=turn.disconnected,
        beside=_beside(turn),
    )


def _covered(turns: Iterable[ReadTurn]) -> float:
    """Seconds in which a call was under way; calls at the same time count once."""
    covered, reached = 0.0, 0.0
    spans = sorted(
        (one.turn.timing.started_at, one.turn.timing.total_ms / 1000)
        for one in turns
        if one.turn.choice == 0
    )
    for start, total in spans:
        end = start + total
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _versions(spans: Iterable[VersionSpan]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for span in spans:
        counts[span.version] += span.end - span.start
    return dict(sorted(counts.items()))
