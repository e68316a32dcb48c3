"""Searching the past: a pattern's topic is read, and what was found names its place."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import BusSettings
from odradek.streams.history.batches import BatchChoice
from odradek.streams.history.patterns import Hit, Pattern
from odradek.streams.history.pointers import shown


class Finding(Struct, frozen=True):
    """Something that was found."""

    at: str
    """The record's place."""
    episode_id: str
    task_id: str
    agent: str
    hit: Hit


class _Named(Struct):
    """What all events that are searched have."""

    episode_id: str = ""
    task_id: str = ""
    agent: str = ""


_NAMES = msgspec.json.Decoder(_Named)


async def findings(
    bus: BusSettings,
    pattern: Pattern,
    choice: BatchChoice | None = None,
    archive: Archive | None = None,
) -> AsyncGenerator[Finding, None]:
    """All that is found, partition by partition, each in its order.

    Args:
        bus: Where Kafka is.
        pattern: What is searched for.
        choice: Only episodes to which these batches point; by default all, also those that are in
            no batch.
        archive: Read what the log no longer has.
    """
    meant = None
    if choice is not None:
        meant = {pointer.episode_id for batch in choice.taken for pointer in batch.pointers}
    async with (
        looking_back(bus, archive) as lookup,
        aclosing(lookup.whole(pattern.topic, stall_s=None)) as records,
    ):
        async for record in records:
            for hit in pattern.hits(record.value or b""):
                names = _NAMES.decode(record.value or b"")
                if meant is None or names.episode_id in meant:
                    yield Finding(
                        shown(record.address), names.episode_id, names.task_id, names.agent, hit
                    )
