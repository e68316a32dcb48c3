"""The batches that a selection takes, read by offset, with the episodes that it asks for."""

import math
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final

from msgspec import Struct

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, Record, RecordLookup
from odradek.infra.errors import TopicMissing
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode, Pointer
from odradek.schemas.topics import BATCHES
from odradek.streams.errors import HistoryGone, HistoryUnknown, ReplayRefused
from odradek.streams.history import ledger_reader
from odradek.streams.history import pointers as following
from odradek.streams.history.pointers import LostEpisode, address_of
from odradek.streams.history.selection import Selection
from odradek.streams.history.spans import CountSpan

AT_ONCE: Final = 64
"""Batches whose episodes are looked up together."""
Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""


class TakenBatch(Struct, frozen=True):
    """A batch that a selection takes."""

    offset: int
    digest: str
    episodes: int
    task_id: str = ""
    pointers: tuple[Pointer, ...] = ()
    """To the episodes that pass the filters of episodes, where they are asked for."""


class LeftOutBatch(Struct, frozen=True):
    """A batch that is left out whole, because one of its episodes is gone."""

    offset: int
    episode_id: str
    why: str


class UsedBatches(Struct, frozen=True):
    """The batches that steps used."""

    topic: str
    offsets: frozenset[int]
    revisions: dict[int, int] = {}
    """By offset, up to where late rewards counted for the first step that used the batch."""


class BatchChoice(Struct, frozen=True):
    """What a selection takes of a topic."""

    source: str
    read: int
    """How many batches were looked at."""
    taken: tuple[TakenBatch, ...]
    left_out: tuple[LeftOutBatch, ...] = ()
    revisions: dict[int, int] = {}
    """By offset, the revision that each batch was used with, where steps were chosen."""


async def choose(
    bus: BusSettings,
    selection: Selection,
    *,
    source: str = "",
    skip_missing: bool = False,
    pointers: bool = False,
    archive: Archive | None = None,
    progress: Progress = lambda _done, _all: None,
) -> BatchChoice:
    """Go through the batches and take those that are meant. Nothing is written.

    Args:
        bus: Where Kafka is.
        selection: Which batches.
        source: Where they stand, a topic of one partition; by default where the steps read them,
            or the live topic.
        skip_missing: Leave out whole batches of which an episode is gone, and list them.
        pointers: Keep those to the episodes that are meant.
        archive: Read what the log no longer has.
        progress: Called with offsets.

    Raises:
        HistoryGone: Retention has deleted a batch that is meant, or an episode of such a batch.
        HistoryUnknown: A step that is asked for was not made.
        ReplayRefused: A record is no batch, or the steps read another topic than the source.
        TopicMissing: There is no such source.
    """
    async with looking_back(bus, archive) as lookup:
        used = None if selection.steps is None else await _used_by(lookup, selection)
        if used is not None and source not in {"", used.topic}:
            raise ReplayRefused(
                f"run {selection.run!r} trained on {used.topic}, not on {source}: leave out --from"
            )
        source = source or (used.topic if used else BATCHES.name)
        span = await _stretch(lookup, source, selection, used)
        choosing = _Choosing(lookup, source, selection, skip_missing=skip_missing, keep=pointers)
        offsets = None if used is None else used.offsets
        async with aclosing(_records(lookup, source, span)) as records:
            async for record in records:
                await choosing.feed(record, offsets)
                progress(record.offset + 1 - span[0], span[1] - span[0])
        await choosing.finish()
    return BatchChoice(
        source,
        choosing.read,
        tuple(choosing.taken),
        tuple(choosing.left_out),
        {} if used is None else used.revisions,
    )


def _batch_of(record: Record) -> Batch:
    """The batch in a record. Raises ReplayRefused."""
    try:
        batch: Batch = codec.decode(record.value, Batch)
    except InvalidRecord as error:
        raise ReplayRefused(
            f"{record.topic} holds no batch at offset {record.offset}: {error}"
        ) from error
    return batch


async def _used_by(lookup: RecordLookup, selection: Selection) -> UsedBatches:
    """The batches that the steps of a selection used. Raises HistoryUnknown, ReplayRefused."""
    span = selection.steps or CountSpan()
    search = await ledger_reader.search(lookup, selection.run)
    newest = await search.last_step()
    if not newest:
        raise HistoryUnknown(f"the ledger knows no step of run {selection.run!r}")
    last = newest + 1 if span.last is None else span.last
    if (span.first or 1) > newest:
        raise HistoryUnknown(
            f"run {selection.run!r} has made no step {span.first}: its last one is {newest}"
        )
    offsets: set[int] = set()
    revisions: dict[int, int] = {}
    topics: set[str] = set()
    for number in range(span.first or 1, last):
        found = await search.step(number)
        if found is None or found.cut_off_by is not None:
            raise HistoryUnknown(
                f"run {selection.run!r} has made no step {number}: its last one is {newest}"
            )
        topics.add(found.entry.step.topic)
        for use in found.entry.step.used:
            offsets.add(use.offset)
            revisions.setdefault(use.offset, use.revision)
    if len(topics) > 1:
        raise ReplayRefused(
            f"the steps {span} of run {selection.run!r} used batches of several topics: "
            f"{', '.join(sorted(topics))}"
        )
    return UsedBatches(topics.pop() if topics else BATCHES.name, frozenset(offsets), revisions)


async def _stretch(
    lookup: RecordLookup, source: str, selection: Selection, used: UsedBatches | None
) -> tuple[int, int]:
    """The offsets [begin, end) outside which no batch is meant."""
    bounds = await lookup.bounds(source)
    if not bounds:
        raise TopicMissing(
            f"topic {source} does not exist: name one with batches, or run `odradek topics apply`"
        )
    if len(bounds) > 1:
        raise ReplayRefused(
            f"{source} has {len(bounds)} partitions; batches need exactly one, because their order "
            "is the training order"
        )
    first, end = bounds[0]
    begin, stop = first, end
    span = selection.offsets or CountSpan()
    wanted = [span.first] if span.first is not None else []
    if used is not None and used.offsets:
        wanted.append(min(used.offsets))
        stop = min(stop, max(used.offsets) + 1)
    if wanted and min(wanted) < first:
        raise HistoryGone(
            f"{source} begins at {first}: retention has deleted the batch at {min(wanted)}"
        )
    begin = max([begin, *wanted])
    if span.last is not None:
        stop = min(stop, span.last)
    if selection.since > -math.inf:
        begin = max(begin, await lookup.at_time(source, 0, selection.since))
    return begin, max(begin, stop)


async def _records(
    lookup: RecordLookup, source: str, span: tuple[int, int]
) -> AsyncGenerator[Record, None]:
    if span[0] < span[1]:
        async with aclosing(lookup.span(source, 0, start=span[0], end=span[1])) as records:
            async for record in records:
                yield record


class _Choosing:
    """Takes batches as they come, and looks up the episodes of several of them together."""

    def __init__(
        self,
        lookup: RecordLookup,
        source: str,
        selection: Selection,
        *,
        skip_missing: bool,
        keep: bool,
    ) -> None:
        self.read = 0
        self.taken: list[TakenBatch] = []
        self.left_out: list[LeftOutBatch] = []
        self._lookup = lookup
        self._source = source
        self._selection = selection
        self._skip_missing = skip_missing
        self._keep = keep
        self._waiting: list[tuple[int, Batch]] = []

    async def feed(self, record: Record, used: frozenset[int] | None) -> None:
        self.read += 1
        batch = _batch_of(record)
        at, when = record.offset, record.timestamp
        if not self._selection.takes_batch(batch, offset=at, timestamp=when, used=used):
            return
        lost = await following.deleted(self._lookup, batch)
        if lost is not None:
            self._lose(record.offset, lost)
            return
        self._waiting.append((record.offset, batch))
        if len(self._waiting) >= AT_ONCE:
            await self.finish()

    async def finish(self) -> None:
        """Decide on the batches that wait for their episodes."""
        waiting, self._waiting = self._waiting, []
        if not self._selection.reads_episodes:
            for offset, batch in waiting:
                self._take(offset, batch, filter(self._selection.takes_pointer, batch.episodes))
            return
        wanted = [pointer for _, batch in waiting for pointer in batch.episodes]
        found = await following.episodes(self._lookup, wanted)
        for offset, batch in waiting:
            episodes = [(pointer, found[address_of(pointer)]) for pointer in batch.episodes]
            lost = [episode for _, episode in episodes if isinstance(episode, LostEpisode)]
            if lost:
                self._lose(offset, lost[0])
                continue
            meant = [
                pointer
                for pointer, episode in episodes
                if isinstance(episode, Episode) and self._selection.takes_episode(pointer, episode)
            ]
            if meant:
                self._take(offset, batch, meant)

    def _take(self, offset: int, batch: Batch, meant: Iterable[Pointer]) -> None:
        kept = tuple(meant) if self._keep else ()
        self.taken.append(
            TakenBatch(offset, batch.digest(), len(batch.episodes), batch.task_id, kept)
        )

    def _lose(self, offset: int, lost: LostEpisode) -> None:
        if not self._skip_missing:
            raise HistoryGone(
                f"episode {lost.episode_id} of {self._source}/0/{offset} is gone ({lost.why}): "
                "choose newer batches, read it from an archive (--archive), or leave out such "
                "batches with --skip-missing"
            )
        self.left_out.append(LeftOutBatch(offset, lost.episode_id, lost.why))
