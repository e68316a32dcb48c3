"""The parts of events that count, decoded without the rest."""

from typing import Final

from msgspec import Struct

from odradek.schemas.events import (
    EpisodeAborted,
    EpisodeOpened,
    EpisodeSealed,
    Outcome,
    Purpose,
    Reward,
    Span,
    Tick,
    Turn,
)

TurnsEvent: Final = EpisodeOpened | Turn | Reward | EpisodeSealed | EpisodeAborted | Tick


class CountedSequence(Struct, frozen=True):
    """The part of a Sequence that counts."""

    turn_ids: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether it makes a row: something is sampled behind its first token."""
        return any(span.end > max(span.start, 1) for span in self.spans)


class CountedChild(Struct, frozen=True):
    """The part of a ChildEpisode that counts."""

    episode_id: str


class CountedEpisode(Struct, frozen=True, tag="episode", kw_only=True):
    """The part of an Episode that counts."""

    episode_id: str
    task_id: str
    sample: int
    purpose: Purpose = "train"
    retry: bool = False
    outcome: Outcome = Outcome.COMPLETED
    revision: int = 0
    unattributed: bool = False
    imported_from: str = ""
    reward: float | None = None
    components: dict[str, float] = {}
    weights: dict[str, float] = {}
    sequences: tuple[CountedSequence, ...] = ()
    untrained_turns: dict[str, str] = {}
    children: tuple[CountedChild, ...] = ()


class OpeningRecord(Struct, frozen=True):
    """A GroupOpened or an EpisodeOpened, and until when it may stay open."""

    purpose: Purpose
    size: int
    deadline: float
    parent: str = ""
    """Of a child: the episode whose agent asked for it."""


class RecordPlace(Struct, frozen=True):
    """The event at an offset of the episodes' topic."""

    episode_id: str
    digest: str
    rows: int
    """Rows that a trainer makes of it."""
