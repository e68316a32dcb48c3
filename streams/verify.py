"""Verify: conservation counted from the topics, and nothing else."""

from typing import Any

from msgspec import Struct

from odradek.infra.bus import BusSettings
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TURNS
from odradek.streams.ledger import Ledger
from odradek.streams.reading import to_end


class Report(Struct, frozen=True):
    """What was counted; `as_dict` has the keys of `odradek verify --json`."""

    conservation: dict[str, Any]
    """tasks, samples, turns, episodes, batches, exclusions {reason: n}, closed: of training."""
    eval: dict[str, Any]
    """The same of evaluation."""
    closed: bool
    """Whether all sums close and nothing is lost, duplicated or still open."""
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    open: tuple[str, ...]
    """Within their deadlines: a run that is still going on."""
    problems: tuple[str, ...]
    unattributed: int
    repeats: int
    """Episodes written again in the same bytes, as the Faust driver does after a crash."""
    dead_letters: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def lines(self) -> list[str]:
        """What does not close, one line each."""
        found = [f"lost: {one}" for one in self.lost]
        found += [f"duplicated: {one}" for one in self.duplicated]
        found += [f"still open: {one}" for one in self.open]
        return found + [f"wrong: {one}" for one in self.problems]


async def verify(bus: BusSettings) -> Report:
    """Read all topics, as committed, to their ends of now, and count.

    Raises TopicMissing or BusError.
    """
    ledger = Ledger()
    async for record in to_end(bus, TURNS.name, EPISODES.name, BATCHES.name, DLQ.name):
        ledger.feed(record)
    counted = ledger.report()
    lists = ("lost", "duplicated", "open", "problems")
    return Report(**(counted | {name: tuple(counted[name]) for name in lists}))
