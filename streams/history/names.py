"""From a name to its place: batches by task or episode, an episode's turns, a turn.

Ids say nothing of when they were made, so these searches read one topic, or one partition of it,
from some time on. They compare bytes, and decode what they have found.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from odradek.infra.bus import Record, RecordAddress, RecordLookup
from odradek.schemas.codec import header
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import BATCHES, EPISODES, TASKS, TURNS
from odradek.streams.errors import HistoryUnknown

PLACE: Final = re.compile(r"([A-Za-z0-9._-]+)/(\d{1,6})/(\d{1,18})")
CLOCKS_S: Final = 900.0
"""How far the clocks of two writers may lie apart."""
ENDS: Final = ("odradek.episode_sealed.v1", "odradek.episode_aborted.v1")


def address(text: str) -> RecordAddress | None:
    """TOPIC/PARTITION/OFFSET as an address, None where a text is none."""
    match = PLACE.fullmatch(text)
    return RecordAddress(match[1], int(match[2]), int(match[3])) if match else None


async def record_at(lookup: RecordLookup, at: RecordAddress) -> Record:
    """The record at an address. Raises HistoryUnknown, naming what the log does hold."""
    found = (await lookup.records([at])).get(at)
    if found is not None:
        return found
    bounds = await lookup.bounds(at.topic)
    if at.partition >= len(bounds):
        raise HistoryUnknown(f"there is no {at.topic}/{at.partition}")
    first, end = bounds[at.partition]
    raise HistoryUnknown(
        f"{at.topic}/{at.partition} holds no record at {at.offset}: it holds {first} to {end - 1}"
    )


async def batch_naming(
    lookup: RecordLookup, name: str, *, since: float | None = None
) -> Record | None:
    """The first batch of the live topic that names a task or an episode.

    Args:
        lookup: A connection.
        name: The id.
        since: Unix seconds before which it was not written; clocks may be wrong.
    """
    needle = _written(name)
    start = 0 if since is None else await lookup.at_time(BATCHES.name, 0, since - CLOCKS_S)
    return await _first(lookup, BATCHES.name, 0, start, needle)


async def task(lookup: RecordLookup, task_id: str) -> Record | None:
    """The record of a task."""
    partition = await _home(lookup, TASKS.name, task_id)
    return await _first(lookup, TASKS.name, partition, 0, _written(task_id), key=task_id)


async def episode(
    lookup: RecordLookup, episode_id: str, task_id: str, since: float
) -> Record | None:
    """The record of an episode that no batch points at, such as an attempt that was repeated."""
    partition = await _home(lookup, EPISODES.name, task_id)
    start = await lookup.at_time(EPISODES.name, partition, since - CLOCKS_S)
    needle = b'"episode_id":' + _written(episode_id)
    return await _first(lookup, EPISODES.name, partition, start, needle, key=task_id)


async def imported_episode(lookup: RecordLookup, episode_id: str) -> Record | None:
    """The record of an episode by its id alone: all of its topic is read until it is there."""
    needle = b'"episode_id":' + _written(episode_id)
    async with aclosing(lookup.whole(EPISODES.name, stall_s=None)) as records:
        async for record in records:
            if needle in (record.value or b"") and b'"imported_from":' in (record.value or b""):
                return record
    return None


async def story(
    lookup: RecordLookup, episode_id: str, *, since: float | None = None
) -> list[Record]:
    """The records of an episode on `rl.turns.v1`, up to its end."""
    partition = await _home(lookup, TURNS.name, episode_id)
    start = 0 if since is None else await lookup.at_time(TURNS.name, partition, since - CLOCKS_S)
    found: list[Record] = []
    async with aclosing(_from(lookup, TURNS.name, partition, start)) as records:
        async for record in records:
            if record.key == episode_id:
                found.append(record)
                if header(record.headers, "ce_type") in ENDS:
                    break
    return found


async def turn(lookup: RecordLookup, turn_id: str) -> Record | None:
    """The record of a turn: all partitions of its topic are read until it is there."""
    needle = b'"turn_id":' + _written(turn_id)
    async with aclosing(lookup.whole(TURNS.name, stall_s=None)) as records:
        async for record in records:
            if needle in (record.value or b""):
                return record
    return None


def _written(name: str) -> bytes:
    """A name as our writers have it in JSON."""
    return msgspec.json.encode(name)


async def _home(lookup: RecordLookup, topic: str, key: str) -> int:
    bounds = await lookup.bounds(topic)
    if not bounds:
        raise HistoryUnknown(f"there is no topic {topic}")
    return partition_for(key, len(bounds))


async def _first(
    lookup: RecordLookup,
    topic: str,
    partition: int,
    start: int,
    needle: bytes,
    *,
    key: str | None = None,
) -> Record | None:
    async with aclosing(_from(lookup, topic, partition, start)) as records:
        async for record in records:
            if (key is None or record.key == key) and needle in (record.value or b""):
                return record
    return None


async def _from(
    lookup: RecordLookup, topic: str, partition: int, start: int
) -> AsyncGenerator[Record, None]:
    """Records of a partition from an offset on, or from its beginning where that is later."""
    bounds = await lookup.bounds(topic)
    if not bounds:
        raise HistoryUnknown(f"there is no topic {topic}")
    first, end = bounds[partition]
    start = max(start, first)
    if start < end:
        async with aclosing(lookup.span(topic, partition, start=start, end=end)) as records:
            async for record in records:
                yield record
