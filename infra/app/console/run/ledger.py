"""The trainers' ledger, read on from where it last ended."""

import asyncio
from contextlib import aclosing

from odradek.infra.app.console.run.curves import RunCurves
from odradek.infra.bus import Record, RecordLookup, event_of
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS


class LedgerCurves:
    """The curves of all runs. They are made of the ledger alone, and may be lost at any time."""

    def __init__(self) -> None:
        self.curves: dict[str, RunCurves] = {}
        """By run, in the order in which the ledger has them first."""
        self._offset = 0
        self._reading = asyncio.Lock()

    async def update(self, lookup: RecordLookup) -> dict[str, RunCurves]:
        """Read what the ledger has got since, up to its end of now. Raises BusError."""
        async with self._reading:
            bounds = await lookup.bounds(STEPS.name)
            if not bounds:
                return self.curves
            first, end = bounds[0]
            if end < self._offset:  # the topic was made anew
                self.curves, self._offset = {}, 0
            start = max(first, self._offset)
            if start < end:
                records = lookup.span(STEPS.name, 0, start=start, end=end)
                async with aclosing(records):
                    async for record in records:
                        self.feed(record)
                self._offset = end
            return self.curves

    def feed(self, record: Record) -> None:
        """Take the ledger's next record. An interrupted reading goes on behind it."""
        self._offset = record.offset + 1
        entry: Step | None = event_of(record, Step)
        if entry is None:
            return
        self.curves.setdefault(entry.run, RunCurves(entry.run)).feed(entry, record.timestamp)
