"""The ledger as it grows: what other trainers have written since it was looked at last."""

import logging
import time
from collections.abc import Iterable
from typing import Final

from odradek.infra.bus import BusSettings, passed_over
from odradek.infra.client import records
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS
from odradek.trainer.errors import BadSettings

log = logging.getLogger("odradek")

LEADER_S: Final = 120.0
"""How long a trainer that does not lead waits for the first word of the run that does."""
LOOK_S: Final = 0.5


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
        self.run = run
        self._thread = thread
        self._bus = bus
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
        return [entry for entry in entries if self.run in {"", entry.run}]


def first_of(tail: LedgerTail) -> list[Step]:
    """A run's entries, once there are any: its trainer may be starting, too.

    Raises BadSettings where none has come in time.
    """
    deadline, waiting = time.monotonic() + LEADER_S, False
    while not (entries := tail.more()):
        if time.monotonic() > deadline:
            raise BadSettings(
                f"the run that leads is {tail.run!r}, and the ledger knows no such run: start that "
                "trainer first, or name another run (--sampled-by)"
            )
        if not waiting:
            log.info("waiting for run %s, which leads", tail.run)
        waiting = True
        time.sleep(LOOK_S)
    return entries


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
