"""Archiving again and again, over outages of the broker or the store."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

import msgspec

from odradek.infra.archive.writer import ArchivedRun, LostRange, Moved
from odradek.infra.errors import InfraError

log = logging.getLogger("odradek")


class ArchivesOnce(Protocol):
    """The part of an `Archiver` that is needed here."""

    async def run(self, *, dry_run: bool = False, moved: Moved | None = None) -> ArchivedRun:
        """See `Archiver`."""
        ...


async def runs(
    archiver: ArchivesOnce,
    pause: Callable[[], Awaitable[object]] | None,
    *,
    dry_run: bool = False,
    moved: Moved | None = None,
) -> AsyncGenerator[ArchivedRun, None]:
    """Archive, and yield what came of it.

    Args:
        archiver: Archives once.
        pause: Waits between two runs; None for a single run.
        dry_run: See `Archiver`.
        moved: See `Archiver`.

    Yields:
        The result of each run that did not fail. What is lost is in it once, however often it is
        seen.

    Raises:
        InfraError: In a single run any; else one that is not retriable.
    """
    told: set[LostRange] = set()
    while True:
        try:
            ended = await archiver.run(dry_run=dry_run, moved=moved)
        except InfraError as error:
            if pause is None or not error.retriable:
                raise
            log.warning("archiving again later: %s", error)
        else:
            fresh = tuple(each for each in ended.lost if each not in told)
            told.update(fresh)
            yield msgspec.structs.replace(ended, lost=fresh)
        if pause is None:
            return
        await pause()
