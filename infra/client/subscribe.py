"""Reading a topic from anywhere: a typed subscription, from an offset, a time or the start."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from odradek.infra.bus import BusSettings, Record, event_of, reader, require_current
from odradek.infra.bus.reader import Positions, Start, at_beginning, at_end
from odradek.infra.client.times import parse_time
from odradek.infra.errors import InvalidTime
from odradek.schemas import codec
from odradek.schemas.numbers import is_number, number, single
from odradek.schemas.topics import find

Since = str | int | float
"""`beginning`, `end`, `-1h` (s, m, h, d), an ISO time, an offset (int), or Unix seconds (float)."""


def start_at(since: Since, now: float) -> Start:
    """Where reading begins that begins at `since`, which is now `now`. Raises InvalidTime."""
    since = single(since)
    if since == "beginning":
        return at_beginning
    if since == "end":
        return at_end
    offset = since if isinstance(since, int) else None
    stamp = int(_moment(since, now) * 1000) if offset is None else 0

    async def start(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Positions:
        ends = await at_end(reader, partitions)
        if offset is not None:
            first = await at_beginning(reader, partitions)
            return {at: min(max(offset, first[at]), ends[at]) for at in partitions}
        offsets = await reader.offsets_for_times(dict.fromkeys(partitions, stamp))
        return {at: offsets[at].offset if offsets.get(at) else ends[at] for at in partitions}

    return start


def _moment(since: Since, now: float) -> float:
    if is_number(since):
        return number(since, "the time to begin at")
    try:
        return parse_time(str(since), now)
    except InvalidTime as error:
        raise InvalidTime(f"{error}, or beginning, end or an offset") from None


async def records(
    topic: str,
    *,
    since: Since = "end",
    follow: bool = True,
    bus: BusSettings | None = None,
    ready: Callable[[], None] | None = None,
) -> AsyncGenerator[Record, None]:
    """Records of a topic (name without prefix), of all partitions, committed ones only.

    Args:
        topic: A topic of the table, or any other.
        since: Where to begin; see `Since`.
        follow: Go on for ever; else end where the topic ended when reading began.
        bus: Where Kafka is.
        ready: Called once the position is fixed: what is published later will be seen.
    """
    bus = bus or BusSettings()
    start = start_at(since, time.time())
    if follow:
        stream = reader.follow(bus, topic, start=start, ready=ready)
    else:
        stream = reader.to_end(bus, topic, start=start, ready=ready, stall_s=None)
    async with aclosing(stream):  # whoever leaves us closes the consumer, too
        async for record in stream:
            yield record


async def subscribe(
    topic: str,
    *,
    since: Since = "end",
    where: Mapping[str, Any] | None = None,
    follow: bool = True,
    bus: BusSettings | None = None,
    ready: Callable[[], None] | None = None,
) -> AsyncGenerator[Any, None]:
    """Events of a topic of the table, such as `Episode`s of `rl.episodes.v1`.

    Args:
        topic: The topic's name without prefix.
        since: Where to begin; see `Since`.
        where: Fields that must be equal, such as {"agent": "hilo"}; an event without such a field
            is left out.
        follow: Go on for ever; else end where the topic ended when reading began.
        bus: Where Kafka is.
        ready: Called once the position is fixed.

    Records that are no valid event are skipped, counted and logged: each has its dead letter.
    A topic of an unreleased earlier format is refused: FormatRefused.
    """
    kind = codec.union(find(topic))
    bus = bus or BusSettings()
    await require_current(bus, [topic])
    stream = records(topic, since=since, follow=follow, bus=bus, ready=ready)
    async with aclosing(stream):  # whoever leaves us closes the consumer, too
        async for record in stream:
            event = event_of(record, kind)
            if event is None:
                continue
            if all(getattr(event, name, None) == value for name, value in (where or {}).items()):
                yield event
