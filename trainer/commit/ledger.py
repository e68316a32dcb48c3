"""The ledger as it grows: what other trainers have written since it was looked at last."""

from collections.abc import Iterable

from odradek.infra.bus import BusSettings, passed_over
from odradek.infra.client import records
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS


class LedgerTail:
    """Reads `rl.steps.v1`, a part at a time.

    Args:
        thread: Where Kafka's clients run.
        bus: Where Kafka is.
        since: Offset to begin at.
        run: Whose entries are wanted; "" for all.
    """

    def __init__(
        self, thread: LoopThread, bus: BusSettings, *, since: int = 0, run: str = ""
    ) -> None:
        self._thread = thread
        self._bus = bus
        self._run = run
        self._next = since

    def more(self) -> list[Step]:
        """Entries between what was read before and the ledger's end of now."""
        return self._thread.call(self._read())

    async def _read(self) -> list[Step]:
        entries = []
        async for record in records(STEPS.name, since=self._next, follow=False, bus=self._bus):
            self._next = record.offset + 1
            try:
                entries.append(codec.decode(record.value, Step))
            except InvalidRecord as error:
                passed_over(record, error)
        return [entry for entry in entries if self._run in {"", entry.run}]


def rival(entries: Iterable[Step], taken: Step) -> Step | None:
    """An entry of another trainer that counts the same policy's versions, if there is one.

    Args:
        entries: Of the ledger, since this trainer has read how far they were counted.
        taken: Ours, which has taken a version.
    """
    for entry in entries:
        ours = (entry.run, entry.incarnation) == (taken.run, taken.incarnation)
        if not ours and entry.policy == taken.policy and entry.version >= taken.version:
            return entry
    return None
