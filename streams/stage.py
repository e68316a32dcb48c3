"""A stage of the streams: a pure fold over one partition, and the topics of its results.

A fold has no I/O and no clock. It gets the records of one partition in their order, and time only
as the append time of the records themselves. So the same log gives the same results, whoever
folds and whenever. Drivers (`odradek.streams.drivers`) do everything else.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from odradek.infra.bus import Record
from odradek.infra.runtime.telemetry import parent_of
from odradek.schemas.codec import header
from odradek.schemas.events import Event, Reward
from odradek.schemas.topics import Topic


class Emit(Struct, frozen=True):
    """An event to be written because of the record that was fed."""

    topic: Topic
    key: str
    event: Event
    event_id: str
    """Derived from what the event is about, so that a repeat has the same id."""
    trace: str | None = None
    """W3C traceparent of what began the story."""
    at: float = 0.0
    """Unix seconds: append time of the record that caused it."""
    source: str = ""
    """CloudEvents source, where it is not the stage itself."""


def passed_on(topic: Topic, record: Record, reward: Reward) -> Emit:
    """A reward as it came, to another topic: with the id and the source that its writer gave it."""
    return Emit(
        topic=topic,
        key=reward.episode_id,
        event=reward,
        event_id=header(record.headers, "ce_id")
        or f"{reward.episode_id}/{record.partition}/{record.offset}",
        trace=parent_of(record.headers),
        at=record.timestamp,
        source=header(record.headers, "ce_source") or reward.source,
    )


class DeadLetter(Struct, frozen=True):
    """The record that was fed is a dead letter."""

    reason: str
    detail: str = ""


Output = Emit | DeadLetter
NOTHING: tuple[Output, ...] = ()


class Fold(Protocol):
    """A stage's state over one partition."""

    dropped: Counter[str]
    """Repeats that changed nothing, by kind."""

    def feed(self, record: Record, event: Any) -> Sequence[Output]:
        """Take the next record of the partition and its event; return the outputs."""
        ...

    def low_water(self, position: int) -> int:
        """The offset from which a new owner must read, if `position` is the next to be read."""
        ...

    def overdue(self, now: float) -> bool:
        """Whether at Unix time `now` a Tick would change something."""
        ...

    def open(self) -> int:
        """How many stories are open."""
        ...


class StatelessFold:
    """A fold that keeps nothing between two records; implements `Fold` but for `feed`."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()

    def low_water(self, position: int) -> int:
        """See `Fold`."""
        return position

    def overdue(self, now: float) -> bool:  # noqa: ARG002 - nothing waits here
        """See `Fold`."""
        return False

    def open(self) -> int:
        """See `Fold`."""
        return 0


class Stage(Struct, frozen=True, kw_only=True):
    """A named fold with the topic that it reads and those that it writes."""

    name: str
    """Also names the consumer group, the transactional ids and the CloudEvents source."""
    source: Topic
    kind: Any
    """The union of event types to decode from `source`."""
    sinks: tuple[Topic, ...]
    fold: Callable[[], Fold]
    """Makes the empty state of one partition."""
    ticks: bool = True
    """Whether time matters to the fold."""
