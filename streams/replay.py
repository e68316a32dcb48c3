"""Replay: a past run's batches written again, as pointers, to a topic of their own.

No token is copied. A trainer on the new topic sees the same groups in the same order, so its
batches have the same digests.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec import Struct

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import (
    BusSettings,
    FencedWriter,
    OutgoingRecord,
    Record,
    RecordLookup,
    at_end,
    consumer,
    ensure_topics,
    partitions_of,
    require_current,
    running,
    to_end,
)
from odradek.infra.errors import LogUnavailable
from odradek.schemas import codec
from odradek.schemas.events import Batch
from odradek.schemas.topics import BATCHES, EPISODES, NAME, TOPICS
from odradek.streams.errors import ReplayRefused
from odradek.streams.history.batches import BatchChoice, Progress, choose
from odradek.streams.history.pace import FULL_SPEED, Pace
from odradek.streams.history.revisions import USED, revised_batches
from odradek.streams.history.selection import Selection

AT_ONCE: Final = 256
"""Batches of one transaction, at full speed."""
SEEN_S: Final = 30.0
"""How long what is committed may be out of sight."""
LOOK_S: Final = 0.02


class Replayed(Struct, frozen=True):
    """The result of a replay."""

    batches: int
    episodes: int
    digests: tuple[str, ...]
    """The digest of each batch, in order."""
    read: int = 0
    """How many batches were looked at."""
    left_out: tuple[str, ...] = ()
    """A line for each batch that was left out, because one of its episodes is gone."""
    dry: bool = False
    """Whether nothing was written."""
    revised: int = 0
    """Of the batches, those whose rewards late ones changed."""


def repeated(record: Record, revised: Batch | None = None) -> Batch:
    """The batch of a record as it is written again: the same pointers, and where it came from.

    Args:
        record: Of the batch.
        revised: The same batch with late rewards, where they change it.

    Raises InvalidRecord if the record is no batch.
    """
    batch: Batch = revised or codec.decode(record.value, Batch)
    origin = batch.origin or f"{record.topic}/{record.partition}/{record.offset}"
    return msgspec.structs.replace(batch, origin=origin)


async def replay(
    bus: BusSettings,
    selection: Selection,
    to: str,
    *,
    source: str = "",
    append: bool = False,
    dry_run: bool = False,
    skip_missing: bool = False,
    revision: str = USED,
    archive: Archive | None = None,
    pace: Pace = FULL_SPEED,
    looking: Progress = lambda _done, _all: None,
    writing: Progress = lambda _done, _all: None,
) -> Replayed:
    """Write past batches again.

    All batches that are meant are looked at before the first is written, so what cannot be
    repeated whole is refused while the target is untouched.

    Args:
        bus: Where Kafka is.
        selection: Which batches.
        to: Name of the target topic, without prefix; made with one partition if it is missing.
        source: Where the batches stand; by default where the steps read them, or the live topic.
        append: Also write to a target that already holds records.
        dry_run: Count, and write nothing.
        skip_missing: Leave out whole batches of which an episode is gone.
        revision: Which rewards the batches get: `used`, those that the chosen steps used them with;
            `first`, their own; `latest`, all late rewards that there are; or those before an offset
            on `rl.revisions.v1`.
        archive: Read what the log no longer has.
        pace: When each batch is written.
        looking: Called with how many offsets were looked at.
        writing: Called with how many batches were written.

    Raises:
        ReplayRefused: The selection or the target cannot be used, or a record is no batch.
        HistoryGone: Retention has deleted an episode of a batch that is meant, or a batch.
        HistoryUnknown: A step that is asked for was not made.
        NotRevisable: An episode's reward cannot be made anew.
        LogUnavailable: All is written, but readers do not see it yet.
    """
    if not all(NAME.fullmatch(part) for part in to.split(".")):
        raise ReplayRefused(f"{to!r} cannot name a topic: use letters, digits, '.', '-' and '_'")
    if any(to == row.name for row in TOPICS) and to != BATCHES.name:
        raise ReplayRefused(f"{to} is a topic of its own kind: name one for the replay")
    if to == (source or BATCHES.name):
        raise ReplayRefused(f"{to} is what is replayed: name another topic")
    await require_current(bus, (source or BATCHES.name, EPISODES.name))
    choice = await choose(
        bus,
        selection,
        source=source,
        skip_missing=skip_missing,
        archive=archive,
        progress=looking,
    )
    if to == choice.source:
        raise ReplayRefused(f"{to} is what is replayed: name another topic")
    if not choice.taken:
        raise ReplayRefused(
            f"{choice.source} holds no batch that is meant; {choice.read} were read"
        )
    revised = await revised_batches(bus, choice, revision, archive)
    if not dry_run:
        await _prepare(bus, to, append=append)
        async with looking_back(bus, archive) as lookup:
            await _write(bus, _chosen(lookup, choice), choice, to, revised, pace, writing)
    return Replayed(
        batches=len(choice.taken),
        episodes=sum(batch.episodes for batch in choice.taken),
        digests=tuple(
            revised[batch.offset].digest() if batch.offset in revised else batch.digest
            for batch in choice.taken
        ),
        revised=len(revised),
        read=choice.read,
        left_out=tuple(
            f"{choice.source}/0/{lost.offset}: episode {lost.episode_id} is gone ({lost.why})"
            for lost in choice.left_out
        ),
        dry=dry_run,
    )


async def _prepare(bus: BusSettings, to: str, *, append: bool) -> None:
    await ensure_topics(bus, [(to, msgspec.structs.replace(BATCHES, name=to))])
    if append:
        return
    async for record in to_end(bus, to):
        raise ReplayRefused(
            f"{to} holds records already (offset {record.offset}): name a fresh topic, or say "
            "--append"
        )


async def _write(
    bus: BusSettings,
    chosen: AsyncGenerator[Record, None],
    choice: BatchChoice,
    to: str,
    revised: Mapping[int, Batch],
    pace: Pace,
    progress: Progress,
) -> None:
    """Copy the chosen batches: together at full speed, else one by one when each is due.

    Their order is the training order, and a transaction keeps it. If we die above a commit, none of
    its batches is there; below it all are. A second replay to the same topic fences this one.
    """
    end = await _end(bus, to)
    writer = FencedWriter(bus, f"replay.{to}", 0)
    await writer.start()
    try:
        done, commits, began, first = 0, 0, time.monotonic(), None
        part: list[OutgoingRecord] = []
        async with aclosing(chosen) as records:
            async for record in records:
                first = record.timestamp if first is None else first
                due = began + pace.due(done, record.timestamp, first) - time.monotonic()
                if due > 0:
                    await asyncio.sleep(due)
                part.append(_outgoing(record, to, revised.get(record.offset)))
                done += 1
                if len(part) == (AT_ONCE if pace.is_full else 1):
                    await writer.write(*part)
                    part.clear()
                    commits += 1
                    progress(done, len(choice.taken))
        if part:
            await writer.write(*part)
            commits += 1
            progress(done, len(choice.taken))
    finally:
        await writer.aclose()
    await _await_end(bus, to, end + done + commits)  # each has an offset of its own


async def _await_end(bus: BusSettings, to: str, end: int) -> None:
    """Return once readers of what is committed see all of it.

    A broker answers a commit a moment before. A trainer that ends at the topic's end must not be
    started in between. Raises LogUnavailable.
    """
    try:
        async with asyncio.timeout(SEEN_S):
            while True:
                if await _end(bus, to) >= end:
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise LogUnavailable(
            f"the batches are committed to {to}, but readers do not see them after {SEEN_S:g} s: "
            "somebody's transaction is open there. It ends by itself; start no trainer with "
            f"--until-end before `odradek tail {to}` shows them all, and do not replay again"
        ) from None


async def _end(bus: BusSettings, topic: str) -> int:
    """The offset behind the last record that readers of what is committed see."""
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, bus.topic(topic))
        return sum((await at_end(reader, partitions)).values())


async def _chosen(lookup: RecordLookup, choice: BatchChoice) -> AsyncGenerator[Record, None]:
    offsets = {batch.offset for batch in choice.taken}
    span = {"start": min(offsets), "end": max(offsets) + 1}
    async with aclosing(lookup.span(choice.source, 0, **span)) as records:
        async for record in records:
            if record.offset in offsets:
                yield record


def _outgoing(record: Record, to: str, revised: Batch | None) -> OutgoingRecord:
    batch = repeated(record, revised)
    return OutgoingRecord(
        topic=to,
        key=batch.task_id,
        value=codec.encode(batch),
        headers=codec.headers(
            batch, source="/replay", subject=batch.task_id, event_id=f"{to}/{batch.origin}"
        ),
    )
