"""What stands out in how an agent plays, and the episodes that show it. Pure."""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from odradek.infra.app.introspection.episodes import AgentEpisode

SHOWN: Final = 5
"""Episodes that a suggestion names: those that show it best come first."""

SuggestionKind = Literal[
    "slow_tool", "repeated_failing_call", "loop", "ever_longer_prompts", "retries"
]


class Evidence(Struct, frozen=True, kw_only=True):
    """An episode that shows it."""

    episode_id: str
    at: str
    """Its record, TOPIC/PARTITION/OFFSET."""
    what: str
    """What is to be seen there, in a few words; quotes may be an agent's."""
    places: tuple[str, ...] = ()
    """Turns in it, on `rl.turns.v1`."""


class Suggestion(Struct, frozen=True, kw_only=True):
    """Something to mend, with its evidence."""

    kind: SuggestionKind
    subject: str = ""
    """Which tool, or what is retried."""
    text: str
    """What was seen."""
    advice: str
    episodes: int
    """How many episodes show it."""
    of: int
    """Of how many."""
    evidence: tuple[Evidence, ...]
    fresh: bool | None = None
    """Whether the other side of a comparison does without it; None: there is no other side."""


Shown = tuple[float, Evidence]
"""How strongly an episode shows something, and how."""


def strongest(shown: Iterable[Shown]) -> tuple[Evidence, ...]:
    """The episodes that show it best, at most `SHOWN` of them."""
    ranked = sorted(shown, key=lambda one: (-one[0], one[1].episode_id))
    return tuple(evidence for _, evidence in ranked[:SHOWN])


def evidence_of(of: AgentEpisode, what: str, *places: str) -> Evidence:
    """An episode as evidence; a place that is empty, or comes again, is left out."""
    unique = tuple(dict.fromkeys(place for place in places if place))
    return Evidence(episode_id=of.episode_id, at=of.at, what=what, places=unique)
