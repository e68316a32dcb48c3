"""The search for a step in the trainer's ledger, without reading all of it.

Within one start of a trainer the numbers of its steps rise, and so do positions and versions. A
start that goes on from a checkpoint makes later steps again, so its numbers fall once, at its first
entry. The search finds where starts begin, by halves, and then looks for the step in the last start
that made it, by halves as well. It asks a `Ledger` for entries and has no I/O of its own.
"""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from odradek.schemas.events import Step


class LedgerEntry(Struct, frozen=True):
    """An entry of one run, and where it stands on `rl.steps.v1`."""

    offset: int
    timestamp: float
    step: Step

    @property
    def is_step(self) -> bool:
        """Whether it is of a step that was made, skipped ones among them."""
        return self.step.optimized or self.step.skipped


class Ledger(Protocol):
    """One run's entries, by offset."""

    first: int
    """The oldest offset of the topic."""
    end: int
    """The offset behind the newest one."""

    async def after(self, offset: int) -> LedgerEntry | None:
        """The run's first entry at `offset` or behind it."""
        ...


class RunStart(Struct, frozen=True):
    """The entries of one start of a trainer: offsets [first.offset, end)."""

    first: LedgerEntry
    end: int

    @property
    def resumed(self) -> int:
        """The last step that was made before it."""
        return self.first.step.step


class FoundStep(Struct, frozen=True):
    """A step as the ledger has it."""

    entry: LedgerEntry
    start: RunStart
    """The start that made it."""
    cut_off_by: RunStart | None = None
    """A later start that went on from before this step, and has not made it again."""


class StepSearch:
    """Looks for entries of one run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._starts: list[RunStart] | None = None

    async def starts(self) -> list[RunStart]:
        """All starts that the ledger still has, oldest first."""
        if self._starts is None:
            oldest = await self._ledger.after(self._ledger.first)
            firsts = [] if oldest is None else await self._begun_from(oldest)
            ends = [entry.offset for entry in firsts[1:]] + [self._ledger.end]
            self._starts = [RunStart(first, ends[n]) for n, first in enumerate(firsts)]
        return self._starts

    async def _begun_from(self, oldest: LedgerEntry) -> list[LedgerEntry]:
        """First entries of all starts, from that of the oldest one on."""
        found = [oldest]
        while True:
            later = _started_after(found[-1].step.incarnation)
            following = await self._first(found[-1].offset + 1, self._ledger.end, later)
            if following is None:
                return found
            found.append(following)

    async def _first(
        self, low: int, high: int, is_behind: Callable[[LedgerEntry], bool], *, steps: bool = False
    ) -> LedgerEntry | None:
        """The first entry in [low, high) of which something holds that holds of all behind it.

        Args:
            low: Offset.
            high: Offset.
            is_behind: What holds from some entry on.
            steps: Look at entries of steps only.
        """
        found = None
        while low < high:
            middle = (low + high) // 2
            entry = await self._after(middle, high, steps=steps)
            if entry is None:
                high = middle
            elif is_behind(entry):
                found, high = entry, middle
            else:
                low = entry.offset + 1
        return found

    async def _after(self, offset: int, end: int, *, steps: bool) -> LedgerEntry | None:
        while (entry := await self._ledger.after(offset)) is not None and entry.offset < end:
            if entry.is_step or not steps:
                return entry
            offset = entry.offset + 1
        return None

    async def step(self, number: int) -> FoundStep | None:
        """The step of this number that counts, else one that was cut off, else None."""
        cut_off_by = None
        for start in reversed(await self.starts()):
            if start.resumed > number:
                continue
            entry = await self._step_of(start, number)
            if entry is not None:
                return FoundStep(entry, start, cut_off_by)
            if start.resumed < number and cut_off_by is None:
                cut_off_by = start
        return None

    async def before(self, found: FoundStep) -> LedgerEntry | None:
        """The entry that holds the position at which a step began, None where it was deleted.

        That is the step before it in the same start, or that start's first entry. A start begins by
        telling of a step that an earlier one has made, if that one died too early to tell.
        """
        number = found.entry.step.step
        for start in reversed(await self.starts()):
            if start.first.offset > found.entry.offset:
                continue
            entry = await self._step_of(start, number - 1)
            if entry is not None:
                return entry
            if start.resumed == number - 1 and not start.first.is_step:
                return start.first
        return None

    async def _step_of(self, start: RunStart, number: int) -> LedgerEntry | None:
        """The entry of a step that a start made."""
        entry = await self._first(
            start.first.offset, start.end, lambda entry: entry.step.step >= number, steps=True
        )
        return entry if entry is not None and entry.step.step == number else None

    async def between(self, low: int, high: int) -> list[LedgerEntry]:
        """All entries of the run with offsets in (low, high]."""
        entries = []
        while (entry := await self._ledger.after(low + 1)) is not None and entry.offset <= high:
            entries.append(entry)
            low = entry.offset
        return entries

    async def last_step(self) -> int:
        """The highest number of a step that counts; 0 where none was made."""
        starts = await self.starts()
        if not starts:
            return 0
        last = starts[-1]
        seen = [last.resumed]

        def note(entry: LedgerEntry) -> bool:
            seen.append(entry.step.step)
            return False  # of no entry: the search ends at the last one

        await self._first(last.first.offset, last.end, note, steps=True)
        return max(seen)

    async def users(self, topic: str, offset: int) -> list[FoundStep]:
        """The steps that count and used rows of a batch, in order."""
        found: list[FoundStep] = []
        kept = None
        for start in reversed(await self.starts()):
            if start.first.step.topic == topic:
                made = await self._users_of(start, offset)
                found = [
                    step for step in made if kept is None or step.entry.step.step <= kept
                ] + found
            kept = start.resumed if kept is None else min(kept, start.resumed)
        return found

    async def _users_of(self, start: RunStart, offset: int) -> list[FoundStep]:
        entry = await self._first(
            start.first.offset,
            start.end,
            lambda entry: (
                entry.step.position > offset
                or (entry.step.position == offset and entry.step.row > 0)
            ),
            steps=True,
        )
        found = []
        while entry is not None and entry.offset < start.end:
            if any(use.offset == offset for use in entry.step.used):
                found.append(FoundStep(entry, start))
            if entry.step.position > offset:
                break
            entry = await self._after(entry.offset + 1, start.end, steps=True)
        return found

    async def named(self, version: int) -> LedgerEntry | None:
        """The entry that took a policy version, if the ledger still has it."""
        entry = await self._first(
            self._ledger.first, self._ledger.end, lambda entry: entry.step.version >= version
        )
        return entry if entry is not None and entry.step.version == version else None


def _started_after(incarnation: int) -> Callable[[LedgerEntry], bool]:
    return lambda entry: entry.step.incarnation > incarnation
