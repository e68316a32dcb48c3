"""Re-scoring: a reward function over all conversations that there are, as late rewards.

At least once: verdicts are appended before the position behind their conversations is committed. A
verdict that is written twice is the same verdict, and a repeat changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from msgspec import Struct

from odradek.infra.archive import Archive, looking_back
from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    Record,
    RecordLookup,
    consumer,
    dead_letter,
    event_of,
    partitions_of,
    require_topics,
    running,
)
from odradek.infra.errors import BusError
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.reward_signatures import JudgeSettings, signed
from odradek.schemas import codec
from odradek.schemas.events import Outcome, Reward
from odradek.schemas.topics import CONVERSATIONS, DLQ, REVISIONS
from odradek.streams.errors import RewardFailed
from odradek.streams.judges.named import NamedJudge
from odradek.streams.judges.verdicts import FAILED

CHUNK: Final = 64
"""Conversations that a worker gets at once."""
WINDOW: Final = 1024
"""Conversations between two commits."""
VERDICTS: Final = 50_000
"""After so many a worker is replaced. To begin one costs as much as judging some thousands."""


Moved = Callable[[int, int], None]
"""Called with the records behind us, and with all that there are."""


class Heard(Struct, frozen=True, tag="conversation"):
    """The part of a Conversation that says whether it is to be judged."""

    episode_id: str
    agent: str = ""
    task_id: str = ""
    outcome: Outcome = Outcome.COMPLETED
    parent: str = ""
    reward_components: tuple[str, ...] = ()


class Rescored(Struct, frozen=True):
    """The result of a re-scoring."""

    judged: int
    """Verdicts that were written."""
    passed: int
    """Conversations that nobody asked to judge: of other agents, of children, not completed."""
    failed: int
    """Conversations for which the function gave no number: dead letters."""


class RescoreFilter(Struct, frozen=True):
    """Which conversations are judged anew.

    A child's is not: what it is worth is a matter of its parent's record.
    """

    component: str
    agent: str = ""
    """Only this agent's; "" for all."""
    everything: bool = False
    """Also those whose task does not ask for the component."""

    def wants(self, heard: Heard) -> bool:
        """Whether a conversation is to be judged."""
        if heard.parent or heard.outcome is not Outcome.COMPLETED:
            return False
        if self.agent and heard.agent != self.agent:
            return False
        return self.everything or self.component in (heard.reward_components or ("reward",))


async def rescore(
    bus: BusSettings,
    judge: NamedJudge,
    wanted: RescoreFilter,
    *,
    name: str,
    concurrency: int,
    again: bool = False,
    archive: Archive | None = None,
    moved: Moved | None = None,
) -> Rescored:
    """Judge every conversation up to the end of now, and write the verdicts as late rewards.

    Args:
        bus: Where Kafka is.
        judge: Gives the numbers; it has started.
        wanted: Which conversations.
        name: Of this re-scoring: one that was stopped goes on under the same name.
        concurrency: Chunks of conversations that are judged at once.
        again: Begin anew, however far the name has come.
        archive: Read what the log no longer has.
        moved: Hears of progress.

    Raises:
        BusError: Kafka cannot be reached or used.
        NoWorker: The judge cannot be asked.
    """
    await require_topics(bus, [CONVERSATIONS.name, REVISIONS.name, DLQ.name])
    appender = await KafkaAppender.connect(bus, linger_ms=5)
    try:
        async with (
            running(consumer(bus, group=f"rescore-{name}"), bus) as reader,
            looking_back(bus, archive) as lookup,
        ):
            place = await _Place.of(reader, bus, lookup, again=again)
            verdicts = _Verdicts(appender, judge, wanted, name, concurrency)
            await _all(lookup, place, verdicts, moved or _nobody)
            return Rescored(verdicts.judged, verdicts.passed, verdicts.failed)
    finally:
        await appender.aclose()


def _nobody(done: int, of: int) -> None:
    """Who hears of no progress."""


async def _all(lookup: RecordLookup, place: "_Place", verdicts: "_Verdicts", moved: Moved) -> None:
    """Judge one window while the next is read."""
    begun, done = sum(place.positions.values()), 0
    total = sum(place.ends.values()) - begun
    moved(0, total)
    under_way: asyncio.Task[None] | None = None
    since = {at.partition: offset for at, offset in place.positions.items()}
    records = lookup.whole(CONVERSATIONS.name, since)
    try:
        async for window in _windows(records):
            if under_way is not None:
                await under_way
                done = sum(place.positions.values()) - begun
                moved(min(done, total), total)
            under_way = asyncio.create_task(_judged(window, place, verdicts))
        if under_way is not None:
            await under_way
    finally:
        if under_way is not None and not under_way.done():
            under_way.cancel()
            await asyncio.wait({under_way})
    moved(total, total)


async def _judged(window: Sequence[Record], place: "_Place", verdicts: "_Verdicts") -> None:
    await verdicts.settle(window)
    # If we die above this line, these are judged again, and a repeat changes nothing. Below it, the
    # next start goes on behind them.
    crash_point("rescored_before_commit")
    await place.commit(window)
    crash_point("rescored_committed")


async def _windows(records: AsyncIterator[Record]) -> AsyncIterator[list[Record]]:
    window: list[Record] = []
    async for record in records:
        window.append(record)
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window


class _Place:
    """How far a re-scoring has come, by partition."""

    def __init__(
        self,
        reader: AIOKafkaConsumer,
        positions: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> None:
        self.positions = positions
        self.ends = ends
        self._reader = reader

    @classmethod
    async def of(
        cls, reader: AIOKafkaConsumer, bus: BusSettings, lookup: RecordLookup, *, again: bool
    ) -> "_Place":
        """Where the consumer's group has come to, or the beginning."""
        partitions = await partitions_of(reader, bus.topic(CONVERSATIONS.name))
        reader.assign(partitions)
        reader.pause(*partitions)
        bounds = await lookup.bounds(CONVERSATIONS.name)
        positions = {at: bounds[at.partition][0] for at in partitions}
        ends = {at: bounds[at.partition][1] for at in partitions}
        try:
            for at in () if again else partitions:
                positions[at] = max(positions[at], await reader.committed(at) or 0)
        except KafkaError as error:
            raise BusError(f"offsets cannot be read: {error!r}") from error
        return cls(reader, positions, {at: max(ends[at], positions[at]) for at in partitions})

    async def commit(self, window: Sequence[Record]) -> None:
        """A window is behind us."""
        where = {at.partition: at for at in self.positions}
        for record in window:
            self.positions[where[record.partition]] = record.offset + 1
        marks = {at: OffsetAndMetadata(offset, "") for at, offset in self.positions.items()}
        try:
            await self._reader.commit(marks)
        except KafkaError as error:
            raise BusError(f"the position cannot be committed: {error!r}") from error


class _Verdicts:
    """Has windows of conversations judged, and writes what comes of them."""

    def __init__(
        self,
        appender: KafkaAppender,
        judge: NamedJudge,
        wanted: RescoreFilter,
        name: str,
        concurrency: int,
    ) -> None:
        self.judged = self.passed = self.failed = 0
        self._appender = appender
        self._judge = judge
        self._wanted = wanted
        self._source = f"/rescore/{name}"
        self._consumer = f"rescore-{name}"
        self._places = asyncio.Semaphore(concurrency)
        self._keys = JudgeSettings().checked()

    async def settle(self, window: Sequence[Record]) -> None:
        """Write the verdicts on a window, and a dead letter for each that failed."""
        heard = [(record, self._heard(record)) for record in window]
        chosen = [(record, head) for record, head in heard if head is not None]
        self.passed += len(window) - len(chosen)
        chunks = [chosen[at : at + CHUNK] for at in range(0, len(chosen), CHUNK)]
        await asyncio.gather(*map(self._chunk, chunks))

    def _heard(self, record: Record) -> Heard | None:
        """The head of a conversation that is to be judged, else None."""
        head: Heard | None = event_of(record, Heard, max_bytes=CONVERSATIONS.max_bytes)
        if head is None:
            return None
        return head if record.key == head.episode_id and self._wanted.wants(head) else None

    async def _chunk(self, chunk: Sequence[tuple[Record, Heard]]) -> None:
        async with self._places:
            verdicts = await self._judge.judge_many([record.value or b"" for record, _ in chunk])
        await asyncio.gather(
            *(
                self._write(record, head, verdict)
                for (record, head), verdict in zip(chunk, verdicts, strict=True)
            )
        )

    async def _write(self, record: Record, head: Heard, verdict: float | RewardFailed) -> None:
        if isinstance(verdict, RewardFailed):
            self.failed += 1
            await dead_letter(self._appender, record, FAILED, str(verdict), consumer=self._consumer)
            return
        episode, component = head.episode_id, self._wanted.component
        reward = Reward(episode_id=episode, component=component, value=verdict, source=self._source)
        value = codec.encode(reward)
        headers = codec.headers(
            reward,
            source=self._source,
            subject=episode,
            event_id=f"{episode}/{component}{self._source}/{verdict!r}",
        )
        await self._appender.append(
            REVISIONS.name, key=episode, value=value, headers=signed(value, headers, self._keys)
        )
        self.judged += 1
