"""Reading the topics into a tally, and how far each process is behind."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from odradek.infra.app.backlog import BacklogCount, BacklogMetrics, behind
from odradek.infra.app.session.stats import RunStats
from odradek.infra.bus import BusSettings, Record, at_beginning, at_end, follow
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, EpisodeHead, GroupsEvent, Step
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, STEPS

WATCHED: Final = (EPISODES.name, BATCHES.name, STEPS.name, DLQ.name)
LAGS_S: Final = 2.0

log = logging.getLogger("odradek")


class RunFollower:
    """Follows a run from its topics' beginnings.

    Args:
        bus: Where Kafka is.
        tally: What is counted into.
        since: Offsets are taken from the beginning, or from the `end` there is now.
    """

    def __init__(self, bus: BusSettings, tally: RunStats, *, since: str = "beginning") -> None:
        self.tally = tally
        self.lags: dict[str, int] = {}
        """By process, how many records it has still to do."""
        self.changed = asyncio.Event()
        """Set after every record; whoever waits for it clears it."""
        self._bus = bus
        self._since = since

    async def run(self) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.read())
            tasks.create_task(self._measure())

    async def read(self, ready: Callable[[], None] | None = None) -> None:
        """Read into the tally until cancelled; lags are not measured.

        Args:
            ready: Called once what is published later will be seen.
        """
        start = at_end if self._since == "end" else at_beginning
        async for record in follow(self._bus, *WATCHED, start=start, ready=ready):
            self._feed(record)
            self.changed.set()

    def _feed(self, record: Record) -> None:
        if record.topic == DLQ.name:
            self.tally.letters[codec.header(record.headers, "dlq-reason") or "unknown"] += 1
            return
        try:
            if record.topic == EPISODES.name:
                head = codec.decode(record.value, GroupsEvent)
                if isinstance(head, EpisodeHead) and not head.imported_from:
                    self.tally.episode(head, record.timestamp)
            elif record.topic == BATCHES.name:
                self.tally.batch(codec.decode(record.value, Batch))
            else:
                self.tally.step(codec.decode(record.value, Step), record.timestamp)
        except InvalidRecord as error:
            log.warning("%s@%d: %s", record.topic, record.offset, error.reason)

    async def _measure(self) -> None:
        shown = BacklogMetrics()
        async with BacklogCount.connect(self._bus) as count:
            while True:
                try:
                    lags = await count.take()
                    self.lags = behind(lags)
                    shown.show(lags)
                except BusError as error:  # a rebalance or a moved coordinator: ask again
                    log.debug("lags: %r", error)
                await asyncio.sleep(LAGS_S)
