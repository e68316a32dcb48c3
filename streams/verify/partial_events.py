"""The parts of events that count, decoded without the rest."""

from typing import Final

from msgspec import Struct

from odradek.schemas.events import (
    Aborted,
    Opened,
    Outcome,
    Purpose,
    Reward,
    Sealed,
    Span,
    Tick,
    Turn,
)

TurnsEvent: Final = Opened | Turn | Reward | Sealed | Aborted | Tick


class Run(Struct, frozen=True):
    """The part of a Sequence that counts."""

    turn_ids: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether it makes a row: something is sampled behind its first token."""
        return any(span.end > max(span.start, 1) for span in self.spans)


class Ended(Struct, frozen=True, tag="episode", kw_only=True):
    """The part of an Episode that counts."""

    episode_id: str
    task_id: str
    sample: int
    purpose: Purpose = "train"
    retry: bool = False
    outcome: Outcome = Outcome.COMPLETED
    revision: int = 0
    unattributed: bool = False
    sequences: tuple[Run, ...] = ()
    left_out: dict[str, str] = {}


class Told(Struct, frozen=True):
    """An Expected or an Opened, and until when it may stay open."""

    purpose: Purpose
    size: int
    deadline: float


class Place(Struct, frozen=True):
    """What stands at an offset of the episodes."""

    episode_id: str
    digest: str
    rows: int
    """Rows that a trainer makes of it."""
