"""Verify: conservation counted from the topics, and nothing else."""

from contextlib import suppress
from typing import Any

from msgspec import Struct

from odradek.infra.bus import BusSettings, require_current, to_end
from odradek.infra.errors import TopicMissing
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Step
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, MIXED, POLICIES, REVISIONS, STEPS, TURNS
from odradek.streams.verify import Conservation
from odradek.streams.verify.findings import NEXT


class Report(Struct, frozen=True):
    """The counts; `as_dict` has the keys of `odradek verify --json`."""

    conservation: dict[str, Any]
    """tasks, samples, turns, episodes, batches, exclusions {reason: n}, closed: of training.
    Children are counted apart: opened, held by parents' episodes, refused, turns."""
    eval: dict[str, Any]
    """The same of evaluation."""
    closed: bool
    """Whether all sums close and nothing is lost, duplicated or still open."""
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    open: tuple[str, ...]
    """Within their deadlines: a run that is still going on."""
    problems: tuple[str, ...]
    trainers: tuple[dict[str, Any], ...]
    """Each run of a trainer: its steps, what it used and refused, how far it has come."""
    unattributed: int
    imported: int
    """Episodes that were recorded elsewhere: no sum counts them."""
    repeats: int
    """Episodes written again in the same bytes, as the Faust driver does after a crash."""
    revisions: dict[str, int]
    """Late rewards: rewards, the episodes that they are of, and those of unknown episodes."""
    dead_letters: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def lines(self) -> list[str]:
        """The sums that do not match, one line each."""
        lines = [f"lost: {name}" for name in self.lost]
        lines += [f"duplicated: {name}" for name in self.duplicated]
        lines += [f"still open: {name}" for name in self.open]
        return lines + [f"wrong: {problem}" for problem in self.problems]

    def advice(self) -> list[str]:
        """What to do next, for each kind of line that there is."""
        return [advice for name, advice in NEXT.items() if getattr(self, name)]


async def verify(bus: BusSettings) -> Report:
    """Read all topics, as committed, to their ends of now, and count.

    The trainers' ledger is read first: it names the topics of replays, and what it says was used
    was there before it said so.

    Raises TopicMissing, FormatRefused or BusError.
    """
    await require_current(
        bus, (STEPS.name, TURNS.name, EPISODES.name, BATCHES.name, REVISIONS.name)
    )
    ledger = Conservation()
    replays: set[str] = set()
    async for record in to_end(bus, STEPS.name):
        ledger.feed(record)
        with suppress(InvalidRecord):
            replays.add(codec.decode(record.value, Step).topic)
    for topic in sorted((replays | {MIXED.name}) - {BATCHES.name}):
        with suppress(TopicMissing):  # a replay's topic is deleted when nobody needs it any more
            async for record in to_end(bus, topic):
                ledger.feed(record)
    async for record in to_end(
        bus, TURNS.name, EPISODES.name, BATCHES.name, REVISIONS.name, POLICIES.name, DLQ.name
    ):
        ledger.feed(record)
    counted = ledger.report()
    lists = ("lost", "duplicated", "open", "problems", "trainers")
    return Report(**(counted | {name: tuple(counted[name]) for name in lists}))
