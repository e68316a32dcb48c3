"""Replay: a past run's batches written again, as pointers, to a topic of their own.

No token is copied. A trainer on the new topic sees the same groups in the same order, so its
batches have the same digests.
"""

from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct

from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    Record,
    at_offsets,
    ensure_topics,
    require_current,
    to_end,
)
from odradek.infra.bus.appender import Appender
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch
from odradek.schemas.topics import BATCHES, EPISODES, NAME
from odradek.streams.errors import ReplayRefused


class Replayed(Struct, frozen=True):
    """The result of a replay."""

    batches: int
    episodes: int
    digests: tuple[str, ...]
    """The digest of each batch, in order."""


def span(text: str) -> tuple[int, int | None]:
    """FROM:TO as offsets: TO is the first that is left out; either may be empty.

    Raises ReplayRefused where it is no span.
    """
    begin, colon, end = text.partition(":")
    try:
        first, last = int(begin or 0), int(end) if end else None
    except ValueError:
        first, last = -1, None
    if not colon or first < 0 or (last is not None and last <= first):
        raise ReplayRefused(f"{text!r} is no span of offsets: write FROM:TO, such as 0:40 or 12:")
    return first, last


def repeated(record: Record) -> Batch:
    """The batch of a record as it is written again: the same pointers, and where it came from.

    Raises InvalidRecord if the record is no batch.
    """
    batch: Batch = codec.decode(record.value, Batch)
    origin = batch.origin or f"{record.topic}/{record.partition}/{record.offset}"
    return msgspec.structs.replace(batch, origin=origin)


async def replay(
    bus: BusSettings, batches: str, to: str, *, source: str = BATCHES.name, append: bool = False
) -> Replayed:
    """Write past batches again.

    Args:
        bus: Where Kafka is.
        batches: Offsets on `source`, FROM:TO.
        to: Name of the target topic, without prefix; made with one partition if it is missing.
        source: Where the batches stand.
        append: Also write to a target that already holds records.

    Raises:
        ReplayRefused: The span or the target cannot be used, or a record is no batch.
    """
    first, last = span(batches)
    if to == source:
        raise ReplayRefused(f"{to} is what is replayed: name another topic")
    if not all(NAME.fullmatch(part) for part in to.split(".")):
        raise ReplayRefused(f"{to!r} cannot name a topic: use letters, digits, '.', '-' and '_'")
    await require_current(bus, (source, EPISODES.name))
    await ensure_topics(bus, [(to, msgspec.structs.replace(BATCHES, name=to))])
    if not append:
        async for record in to_end(bus, to):
            raise ReplayRefused(
                f"{to} holds records already (offset {record.offset}): name a fresh topic, or say "
                "--append"
            )
    appender = await KafkaAppender.connect(bus, linger_ms=5)
    try:
        written = await _copy(_between(bus, source, first, last), appender, to)
    finally:
        await appender.aclose()
    if not written.batches:
        raise ReplayRefused(f"{source} holds no batch at {batches}")
    return written


async def _between(
    bus: BusSettings, source: str, first: int, last: int | None
) -> AsyncIterator[Record]:
    async for record in to_end(bus, source, start=at_offsets(bus, {(source, 0): first})):
        if last is not None and record.offset >= last:
            return
        yield record


async def _copy(records: AsyncIterator[Record], appender: Appender, to: str) -> Replayed:
    digests: list[str] = []
    episodes = 0
    async for record in records:
        try:
            batch = repeated(record)
        except InvalidRecord as error:
            raise ReplayRefused(
                f"{record.topic} holds no batch at offset {record.offset}: {error}"
            ) from error
        # One after the other: their order is the training order.
        await appender.append(
            to,
            key=batch.task_id,
            value=codec.encode(batch),
            headers=codec.headers(
                batch, source="/replay", subject=batch.task_id, event_id=f"{to}/{batch.origin}"
            ),
        )
        digests.append(batch.digest())
        episodes += len(batch.episodes)
    return Replayed(len(digests), episodes, tuple(digests))
