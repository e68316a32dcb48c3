"""What a live view is, and the stage that feeds it. No I/O, no clock."""

from typing import Any, ClassVar, Protocol

from odradek.infra.bus import Record
from odradek.schemas.topics import Topic
from odradek.streams.stage import NOTHING, Output, Stage, StatelessFold


class LiveView(Protocol):
    """Something that is counted over a topic, and shown again and again."""

    source: ClassVar[Topic]
    """The topic."""
    kind: ClassVar[Any]
    """The union of event types to decode from it."""

    def add(self, record: Record, event: Any) -> None:
        """Count an event; its record has the time at which it was appended."""
        ...

    def snapshot(self, now: float) -> Any:
        """What is to be shown at Unix time `now`: anything that JSON has a form for."""
        ...


def stage_of(name: str, view: LiveView) -> Stage:
    """The stage that feeds a view, from all partitions of its topic. It writes nothing.

    Args:
        name: Names the consumer group as well: two with one name share the partitions.
        view: What counts.
    """

    class ViewFold(StatelessFold):
        def feed(self, record: Record, event: Any) -> tuple[Output, ...]:
            view.add(record, event)
            return NOTHING

    return Stage(
        name=name, source=view.source, kind=view.kind, sinks=(), fold=ViewFold, ticks=False
    )
