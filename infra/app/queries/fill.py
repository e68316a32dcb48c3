"""From the topics that a query names into its tables."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Final

from msgspec import Struct

from odradek.infra.app.queries.database import QueryDatabase
from odradek.infra.app.queries.rows import RowBatch
from odradek.infra.app.queries.selection import MeantRows
from odradek.infra.app.queries.tables import QueryTable, event_reader
from odradek.infra.bus import (
    BusSettings,
    Record,
    RecordAddress,
    RecordLookup,
    looking_up,
    passed_over,
    require_topics,
)
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import BATCHES
from odradek.streams.history import Selection
from odradek.streams.history.batches import choose
from odradek.streams.history.imports import choose_imported

LOOKED_UP: Final = 256
"""Records that are looked up together."""
Progress = Callable[[str, int, int], None]
"""Called with a topic, how many offsets of it are read, and how many there are."""


class Filled(Struct):
    """What was read for a query."""

    records: int = 0
    rows: dict[str, int] = {}
    """By table."""
    unreadable: dict[str, int] = {}
    """By topic, records that hold no event of it."""
    left_out: int = 0
    """Batches that are left out, because an episode of theirs is gone."""


async def fill(
    bus: BusSettings | None,
    database: QueryDatabase,
    tables: Iterable[QueryTable],
    selection: Selection,
    *,
    source: str = "",
    skip_missing: bool = False,
    imported: bool = False,
    progress: Progress = lambda _topic, _done, _all: None,
) -> Filled:
    """Read the topics of tables to their ends of now. A topic is read once, whatever asks for it.

    Args:
        bus: Where Kafka is; None where no table is named.
        database: Takes the rows.
        tables: Those that the query names; without any, nothing is read.
        selection: Which rows; empty for all.
        source: The topic of the table `batches`, and of the filters; see `choose`.
        skip_missing: See `choose`.
        imported: Rows of imported episodes alone; see `choose_imported`.
        progress: Hears how far it is.

    Raises:
        TopicMissing: A topic is not there.
        HistoryGone, HistoryUnknown, ReplayRefused: See `choose`.
    """
    tables = tuple(tables)
    database.begin(tables)
    filled = Filled()
    if bus is None or not tables:
        return filled
    meant = None
    if imported:
        meant = MeantRows.of(await choose_imported(bus, selection))
    elif not selection.is_empty:
        choice = await choose(
            bus, selection, source=source, skip_missing=skip_missing, pointers=True
        )
        meant = MeantRows.of(choice)
        filled.left_out = len(choice.left_out)
        source = choice.source
    by_topic: dict[str, list[QueryTable]] = {}
    for table in tables:
        topic = table.topic.name
        if table.name == "batches":
            topic = source or BATCHES.name
        by_topic.setdefault(topic, []).append(table)
    await require_topics(bus, by_topic)
    async with looking_up(bus) as lookup:
        for topic, own in by_topic.items():
            await _Reading(lookup, database, own, meant, filled).topic(topic, progress)
    return filled


class _Reading:
    """Reads one topic for one or more tables."""

    def __init__(
        self,
        lookup: RecordLookup,
        database: QueryDatabase,
        tables: Sequence[QueryTable],
        meant: MeantRows | None,
        filled: Filled,
    ) -> None:
        self._lookup = lookup
        self._database = database
        self._event = event_reader(tables[0].topic)
        self._batches = [RowBatch(table) for table in tables]
        self._meant = meant
        self._filled = filled
        self._unreadable: Counter[str] = Counter()

    async def topic(self, topic: str, progress: Progress) -> None:
        async with aclosing(self._records(topic, progress)) as records:
            async for record in records:
                self._take(record)
        for batch in self._batches:
            self._flush(batch)
        self._filled.unreadable |= self._unreadable

    async def _records(self, topic: str, progress: Progress) -> AsyncGenerator[Record, None]:
        places = self._places()
        if places is not None:
            for at in range(0, len(places), LOOKED_UP):
                part = places[at : at + LOOKED_UP]
                found = await self._lookup.records(part)
                for address in filter(found.__contains__, part):
                    yield found[address]
                progress(topic, at + len(part), len(places))
            return
        total = sum(end - first for first, end in await self._lookup.bounds(topic))
        done = 0
        async with aclosing(self._lookup.whole(topic)) as records:
            async for record in records:
                yield record
                done += 1
                if done % 1000 == 0:
                    progress(topic, done, total)

    def _places(self) -> list[RecordAddress] | None:
        """Where all rows stand, where the filters say so and one table asks."""
        if self._meant is None or len(self._batches) > 1:
            return None
        return self._meant.addresses(self._batches[0].table)

    def _take(self, record: Record) -> None:
        self._filled.records += 1
        try:
            event = self._event(record)
        except InvalidRecord as error:
            passed_over(record, error)
            self._unreadable[record.topic] += 1
            return
        for batch in self._batches:
            table = batch.table
            if not isinstance(event, table.kind) or (
                self._meant is not None and not self._meant.takes(table, record, event)
            ):
                continue
            batch.add(record, event)
            if batch.is_full:
                self._flush(batch)

    def _flush(self, batch: RowBatch) -> None:
        if not batch.rows:
            return
        rows, name = batch.rows, batch.table.name
        self._filled.rows[name] = self._filled.rows.get(name, 0) + rows
        self._database.add(batch.table, batch.take())
