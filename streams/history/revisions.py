"""The chosen batches with the rewards of a revision."""

import re
from contextlib import aclosing
from typing import Final

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings, RecordLookup, passed_over
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, Episode
from odradek.schemas.revisions import FIRST, LATEST, RevisionBook, revised_batch
from odradek.schemas.topics import REVISIONS
from odradek.streams.errors import HistoryGone, ReplayRefused
from odradek.streams.history import pointers as following
from odradek.streams.history.batches import BatchChoice

USED: Final = "used"
OFFSET: Final = re.compile(r"[0-9]{1,18}")


async def revised_batches(
    bus: BusSettings, choice: BatchChoice, revision: str, archive: Archive | None = None
) -> dict[int, Batch]:
    """By offset, the chosen batches whose rewards late ones change.

    Args:
        bus: Where Kafka is.
        choice: The batches.
        revision: `used`: each has the rewards that a step used it with, its own where no steps were
            chosen. `first`: none is changed. `latest`: all late rewards count that there are. Or an
            offset on `rl.revisions.v1`: those before it.
        archive: Read what the log no longer has.

    Raises:
        ReplayRefused: There is no such revision.
        HistoryGone: Retention has deleted an episode that has a late reward.
        NotRevisable: The reward of such an episode cannot be made anew.
    """
    if revision == FIRST or not choice.taken:
        return {}
    used = choice.revisions if revision == USED else {}
    if revision == USED and not any(used.values()):
        return {}
    offsets = {batch.offset for batch in choice.taken}
    span = {"start": min(offsets), "end": max(offsets) + 1}
    revised: dict[int, Batch] = {}
    async with looking_back(bus, archive) as lookup:
        last = str(max(used.values())) if used else revision
        book, until = await late_rewards(lookup, last)
        async with aclosing(lookup.span(choice.source, 0, **span)) as records:
            async for record in records:
                if record.offset not in offsets:
                    continue
                batch: Batch = codec.decode(record.value, Batch)
                before = used.get(record.offset, 0) if used else until
                episodes = await _judged_late(lookup, batch, set(book.concerns(batch, before)))
                now = revised_batch(batch, episodes, book, before)
                if now != batch:
                    revised[record.offset] = now
    return revised


async def _judged_late(lookup: RecordLookup, batch: Batch, names: set[str]) -> dict[str, Episode]:
    """The episodes of a batch that late rewards name. Raises HistoryGone."""
    pointers = [pointer for pointer in batch.episodes if pointer.episode_id in names]
    episodes: dict[str, Episode] = {}
    for found in (await following.episodes(lookup, pointers)).values() if pointers else ():
        if not isinstance(found, Episode):
            raise HistoryGone(
                f"episode {found.episode_id} has a late reward, and is gone ({found.why}): choose "
                "newer batches, or --revision first"
            )
        episodes[found.episode_id] = found
    return episodes


async def late_rewards(lookup: RecordLookup, revision: str) -> tuple[RevisionBook, int]:
    """The late rewards up to a revision, `latest` or an offset, and its offset.

    Raises ReplayRefused where there is no such revision.
    """
    bounds = await lookup.bounds(REVISIONS.name)
    begin, end = bounds[0] if bounds else (0, 0)
    until = end if revision == LATEST else -1
    if OFFSET.fullmatch(revision):
        until = int(revision)
    if not begin <= until <= end:
        raise ReplayRefused(
            f"{revision!r} is no revision: say first, latest, or an offset on {REVISIONS.name}, "
            f"which holds {begin} to {end}"
        )
    book = RevisionBook()
    if begin < until:
        async with aclosing(lookup.span(REVISIONS.name, 0, start=begin, end=until)) as records:
            async for record in records:
                try:
                    book.read(record.offset, record.value, record.headers)
                except InvalidRecord as error:
                    passed_over(record, error)
    return book, until
