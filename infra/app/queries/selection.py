"""Which rows the filters of a query take. Pure.

Filters are those of `odradek replay`, and mean batches. A row is taken where it is of one of their
episodes, of one of their tasks, or, for a step, where the step used one of them.
"""

from typing import Any

from msgspec import Struct

from odradek.infra.app.queries.tables import QueryTable
from odradek.infra.bus import Record, RecordAddress
from odradek.schemas.events import Step
from odradek.streams.history.batches import BatchChoice
from odradek.streams.history.pointers import address_of


class MeantRows(Struct, frozen=True):
    """The batches of a choice, as rows of tables are held against them."""

    source: str
    """The topic of the batches."""
    batches: frozenset[int]
    """Their offsets."""
    tasks: frozenset[str]
    episodes: dict[str, RecordAddress]
    """Where each of their episodes stands."""

    @classmethod
    def of(cls, choice: BatchChoice) -> "MeantRows":
        """What a choice takes; it has kept its pointers."""
        pointers = [pointer for batch in choice.taken for pointer in batch.pointers]
        return cls(
            choice.source,
            frozenset(batch.offset for batch in choice.taken),
            frozenset(batch.task_id for batch in choice.taken),
            {pointer.episode_id: address_of(pointer) for pointer in pointers},
        )

    def takes(self, table: QueryTable, record: Record, event: Any) -> bool:
        """Whether a row is meant."""
        match table.filtered:
            case "episode":
                return event.episode_id in self.episodes
            case "task":
                return event.task_id in self.tasks
            case "batch":
                return record.topic == self.source and record.offset in self.batches
            case "step":
                return self._used(event)
            case "key":
                return record.key in self.episodes or record.key in self.tasks
            case _:
                return True

    def _used(self, step: Step) -> bool:
        return step.topic == self.source and any(use.offset in self.batches for use in step.used)

    def addresses(self, table: QueryTable) -> list[RecordAddress] | None:
        """Where all rows of a table stand, in order; None where that is not known."""
        if table.name == "batches":
            return [RecordAddress(self.source, 0, offset) for offset in sorted(self.batches)]
        if table.name == "episodes":
            return sorted(
                self.episodes.values(), key=lambda at: (at.topic, at.partition, at.offset)
            )
        return None
