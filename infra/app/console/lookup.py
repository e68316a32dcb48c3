"""Looking up what a page shows, on the log or in an archive of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from odradek.infra.app.console.addresses import PageAddress, row_of
from odradek.infra.app.console.run.curves import RunCurves
from odradek.infra.app.console.run.ledger import LedgerCurves
from odradek.infra.app.console.views import RecordView, RowOnLog
from odradek.infra.app.history.credentials import HIDDEN, SECRET, masked
from odradek.infra.app.history.episodes import episode_view, task_view, turn_view, used_batch
from odradek.infra.app.history.sections import Shown
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.app.history.views import RowView
from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, Record
from odradek.infra.errors import PageRefused
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Step
from odradek.schemas.ids import key_shown
from odradek.schemas.topics import DLQ
from odradek.streams.errors import HistoryUnknown
from odradek.streams.history import names
from odradek.streams.history.pointers import shown

AT_ONCE: Final = 4
"""Look-ups at once: each has a connection of its own, and others wait for their turn."""
LONGEST_S: Final = 60.0
"""Of a look-up; the search for a turn's id reads a whole topic."""
BY_PLACE: Final[dict[str, Shown]] = {
    f"odradek.{what}.v1": what for what in ("batch", "episode", "task", "turn")
}
"""Types of records that have a page of their own, which takes their place for a name."""


class LogViews:
    """Looks things up, each through a connection of its own, so each sees the log's end of now.

    Args:
        bus: Where Kafka is.
        archive: What the log no longer has is read there.
        tokenizer: Folder of a model; by default that with which a run began.
    """

    def __init__(
        self, bus: BusSettings, archive: Archive | None = None, tokenizer: str = ""
    ) -> None:
        self._bus = bus
        self._archive = archive
        self._tokenizer = tokenizer
        self._ledger = LedgerCurves()
        self._free = asyncio.Semaphore(AT_ONCE)

    async def runs(self) -> dict[str, RunCurves]:
        """The curves of all runs, up to the ledger's end of now. Raises as `view` does."""
        async with (
            self._free,
            asyncio.timeout(LONGEST_S),
            looking_back(self._bus, self._archive) as lookup,
        ):
            return await self._ledger.update(lookup)

    async def view(self, address: PageAddress) -> Any:
        """What an address names, or another address that shows it better.

        Raises:
            HistoryUnknown: Nothing of that name is on the log.
            HistoryGone: Retention has deleted it.
            PageRefused: It is no name of such a thing.
            BusError: The log does not answer.
            TimeoutError: It took too long.
        """
        async with (
            self._free,
            asyncio.timeout(LONGEST_S),
            looking_back(self._bus, self._archive) as lookup,
        ):
            return await looked_up(LogHistory(lookup, address.run, self._tokenizer), address)


async def looked_up(past: LogHistory, address: PageAddress) -> Any:
    """What an address names, through a connection; see `LogViews.view`."""
    return await LOOKS[address.what](past, address)


async def _step(past: LogHistory, address: PageAddress) -> Any:
    return await past.step(int(address.name))


async def _row(past: LogHistory, address: PageAddress) -> RowOnLog:
    place, number = row_of(address.name)
    rows: tuple[RowView, ...] = ()
    if address.step:
        step = await past.step(address.step)
        rows = next((batch.rows for batch in step.batches if batch.at == place), ())
    else:
        record = await names.record_at(past.lookup, _place(place))
        if header(record.headers, "ce_type") == "odradek.episode.v1":
            rows = (await episode_view(past, place)).rows
        else:
            rows = (await used_batch(past, place)).batch.rows
    found = next((row for row in rows if row.row == number), None)
    if found is None:
        of = f"step {address.step} has none of {place}" if address.step else f"{place} has none"
        numbers = f": it has {rows[0].row} to {rows[-1].row}" if rows else ""
        raise HistoryUnknown(f"there is no row {number}: {of} of that number{numbers}")
    return RowOnLog(place, found, address.step)


async def _record(past: LogHistory, address: PageAddress) -> Any:
    record = await names.record_at(past.lookup, _place(address.name))
    better = None if address.raw else _better_address(record, address)
    return better or _record_view(record)


def _better_address(record: Record, address: PageAddress) -> PageAddress | None:
    """The page of its own that a record has, None where it has none. Pure."""
    if record.topic == DLQ.name:
        return None  # its headers are the letter's
    kind = header(record.headers, "ce_type") or ""
    if kind == "odradek.step.v1":
        try:
            step = codec.decode(record.value, Step)
        except InvalidRecord:
            return None
        if not (step.optimized or step.skipped):
            return None
        return PageAddress(what="step", name=str(step.step), run=step.run)
    if kind not in BY_PLACE:
        return None
    return PageAddress(what=BY_PLACE[kind], name=address.name, run=address.run)


def _record_view(record: Record) -> RecordView:
    """A record as it stands, without what looks like a credential. Pure."""
    value = record.value or b""
    try:
        codec.check_depth(value)
        text = msgspec.json.format(
            msgspec.json.encode(masked(msgspec.json.decode(value))), indent=1
        )
    except (InvalidRecord, msgspec.DecodeError, UnicodeDecodeError):
        text = value
    return RecordView(
        at=shown(record.address),
        key=key_shown(record.key) or "",
        timestamp=record.timestamp,
        headers={
            name: HIDDEN
            if SECRET.search(name)
            else (value or b"").decode(errors="backslashreplace")
            for name, value in record.headers
        },
        text=text.decode(errors="backslashreplace"),
    )


def _place(name: str) -> Any:
    at = names.address(name)
    if at is None:
        raise PageRefused(f"{name!r} is no place: write TOPIC/PARTITION/OFFSET")
    return at


LOOKS: Final[dict[Shown, Callable[[LogHistory, PageAddress], Awaitable[Any]]]] = {
    "step": _step,
    "batch": lambda past, address: used_batch(past, address.name),
    "episode": lambda past, address: episode_view(past, address.name),
    "task": lambda past, address: task_view(past, address.name),
    "turn": lambda past, address: turn_view(past, address.name),
    "row": _row,
    "record": _record,
}
