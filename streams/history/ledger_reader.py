"""The trainer's ledger as `StepSearch` asks for it: read in stretches, and each of them once."""

from bisect import bisect_left, bisect_right
from contextlib import suppress
from typing import Final

from odradek.infra.bus import RecordLookup
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Step
from odradek.schemas.topics import STEPS
from odradek.streams.errors import HistoryUnknown
from odradek.streams.history.ledger import LedgerEntry, StepSearch

AT_ONCE: Final = 32
"""Entries that are read where one is looked for."""


class LedgerReader:
    """Implements `Ledger` over `rl.steps.v1`; made by `of`.

    Args:
        lookup: A connection.
        run: Whose entries are wanted.
        first: The oldest offset.
        end: The offset behind the newest one.
    """

    def __init__(self, lookup: RecordLookup, run: str, first: int, end: int) -> None:
        self.first = first
        self.end = end
        self.fetches = 0
        """How many stretches were fetched."""
        self._lookup = lookup
        self._run = run
        self._begins: list[int] = []
        """Where stretches that were read begin, in order."""
        self._stretches: dict[int, tuple[int, list[LedgerEntry]]] = {}
        """By where it begins: where it ends, and the run's entries in it."""

    @classmethod
    async def of(cls, lookup: RecordLookup, run: str) -> "LedgerReader":
        """The ledger up to its end of now. Raises HistoryUnknown where there is none."""
        bounds = await lookup.bounds(STEPS.name)
        if not bounds:
            raise HistoryUnknown(f"there is no topic {STEPS.name}, so no step is known")
        return cls(lookup, run, *bounds[0])

    async def after(self, offset: int) -> LedgerEntry | None:
        """See `Ledger`."""
        offset = max(offset, self.first)
        while offset < self.end:
            end, entries = await self._stretch(offset)
            at = bisect_left(entries, offset, key=lambda entry: entry.offset)
            if at < len(entries):
                return entries[at]
            offset = end
        return None

    async def _stretch(self, offset: int) -> tuple[int, list[LedgerEntry]]:
        """What was read around an offset, or is read from it on, up to what was read before."""
        at = bisect_right(self._begins, offset)
        if at:
            known = self._stretches[self._begins[at - 1]]
            if offset < known[0]:
                return known
        records, reached = await self._lookup.stretch(STEPS.name, 0, offset, most=AT_ONCE)
        self.fetches += 1
        limit = self._begins[at] if at < len(self._begins) else self.end
        entries = []
        for record in records:
            if record.key != self._run or record.offset >= limit:
                continue
            with suppress(InvalidRecord):
                step = codec.decode(record.value, Step)
                entries.append(LedgerEntry(record.offset, record.timestamp, step))
        self._begins.insert(at, offset)
        self._stretches[offset] = found = (min(max(reached, offset + 1), limit), entries)
        return found


async def search(lookup: RecordLookup, run: str) -> StepSearch:
    """A search in a run's ledger. Raises HistoryUnknown where there is none."""
    return StepSearch(await LedgerReader.of(lookup, run))
