"""A long past, written in a short time: episodes, conversations, batches and the trainer's steps.

Records go out in whole batches of records, without transactions, so that offsets follow from the
order alone. Each is what the stages write for a small episode: one turn of four sampled tokens.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from msgspec import Struct, structs

from odradek.infra.bus import BusSettings, ensure_topics, producer, start
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import (
    Batch,
    BatchUse,
    Conversation,
    ConversationTurn,
    Episode,
    Event,
    Pointer,
    Sequence,
    Span,
    Step,
    VersionSpan,
)
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import BATCHES, CONVERSATIONS, EPISODES, STEPS, Topic

GROUP: Final = 8
"""Episodes of a batch."""
BATCHES_PER_STEP: Final = 4
NEEDLE: Final = "a word that few have said"
"""Said in one conversation of NEEDLE_EVERY."""
NEEDLE_EVERY: Final = 1000
NEEDLE_IDS: Final = (901, 902, 903)
"""Sampled in as many episodes."""
EPISODE_NAME: Final = "episode-00000000"
TASK_NAME: Final = "task-00000000"
VERSION: Final = 987_654_321
"""Stands for the policy version that sampled an episode: that of the step before its own."""
IN_FLIGHT: Final = 64
"""Batches of records that are under way at once."""
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class PastRun(Struct, frozen=True):
    """What was written."""

    episodes: int
    batches: int
    steps: int
    seconds: float


class EventTemplate:
    """An event whose names are filled in: to encode each anew would take most of the time."""

    def __init__(self, event: Event, topic: str) -> None:
        self.value = codec.encode(event)
        self.headers = list(
            codec.headers(
                event, source="/bench", subject=TASK_NAME, event_id=topic, traceparent=TRACE
            )
        )

    def of(self, number: int) -> bytes:
        """The value of the n-th episode."""
        group = number // GROUP
        value = self.value.replace(EPISODE_NAME.encode(), b"episode-%08d" % number)
        value = value.replace(TASK_NAME.encode(), b"task-%08d" % group)
        return value.replace(b"%d" % VERSION, b"%d" % max(1, group // BATCHES_PER_STEP))


class TopicFiller:
    """Appends to one topic, partition by partition."""

    def __init__(self, client: AIOKafkaProducer, bus: BusSettings, topic: Topic) -> None:
        self._client = client
        self._topic = bus.topic(topic.name)
        self._open = [client.create_batch() for _ in range(bus.partitions(topic))]
        self._sent: set[asyncio.Future[Any]] = set()
        self.offsets = [0] * len(self._open)

    async def add(self, key: bytes, value: bytes, headers: Any, partition: int = 0) -> int:
        """Append a record; returns its offset, where nobody else writes there."""
        if self._append(key, value, headers, partition) is None:
            await self._send(partition)
            if self._append(key, value, headers, partition) is None:
                raise BusError(f"a record of {len(value)} bytes fits into no batch")
        offset = self.offsets[partition]
        self.offsets[partition] += 1
        return offset

    def _append(self, key: bytes, value: bytes, headers: Any, partition: int) -> Any:
        return self._open[partition].append(key=key, value=value, timestamp=None, headers=headers)

    async def _send(self, partition: int) -> None:
        full, self._open[partition] = self._open[partition], self._client.create_batch()
        full.close()
        while len(self._sent) >= IN_FLIGHT:
            done, self._sent = await asyncio.wait(self._sent, return_when=asyncio.FIRST_COMPLETED)
            for sent in done:
                sent.result()
        self._sent.add(await self._client.send_batch(full, self._topic, partition=partition))

    async def flush(self) -> None:
        """Return once all is acknowledged."""
        for partition, batch in enumerate(self._open):
            if batch.record_count():
                await self._send(partition)
        await asyncio.gather(*self._sent)
        self._sent.clear()


class EpisodeTemplates:
    """The episodes and conversations of a past: by sample, and whether the needle is in them."""

    def __init__(self) -> None:
        kinds = [(sample, needle) for sample in range(GROUP) for needle in (False, True)]
        self.episodes = {kind: EventTemplate(_episode(*kind), EPISODES.name) for kind in kinds}
        self.conversations = {
            kind: EventTemplate(_conversation(*kind), CONVERSATIONS.name) for kind in kinds
        }

    @staticmethod
    def kind(number: int) -> tuple[int, bool]:
        """Which of them the n-th episode is."""
        return number % GROUP, number % NEEDLE_EVERY == 0


def _episode(sample: int, needle: bool) -> Episode:
    """A small episode: 16 ids, of which the last four were sampled."""
    sampled = [*NEEDLE_IDS, 200] if needle else [200, 201, 202, 203]
    return Episode(
        episode_id=EPISODE_NAME,
        task_id=TASK_NAME,
        agent="bench",
        sample=sample,
        group_size=GROUP,
        reward=float(sample % 2),
        components={"game": float(sample % 2)},
        weights={"game": 1.0},
        n_turns=1,
        opened_at=1.7e9,
        closed_at=1.7e9,
        sequences=(
            Sequence(
                ids=pack_ids([*range(100, 112), *sampled]),
                spans=(Span(12, 16, 1.0),),
                logprobs=pack_floats([-0.5] * 4),
                versions=(VersionSpan(VERSION, 12, 16),),
                turn_ids=(f"{EPISODE_NAME}-0",),
            ),
        ),
    )


def _conversation(sample: int, needle: bool) -> Conversation:
    """The same in words."""
    turn = ConversationTurn(
        turn_id=f"{EPISODE_NAME}-0",
        messages=[{"role": "user", "content": "Which number is it? Say one from 1 to 3."}],
        reply={"role": "assistant", "content": NEEDLE if needle else f"It is {sample}."},
    )
    return Conversation(
        episode_id=EPISODE_NAME,
        task_id=TASK_NAME,
        agent="bench",
        sample=sample,
        reward_components=("game",),
        turns=(turn,),
    )


async def write_past(bus: BusSettings, episodes: int) -> PastRun:
    """Write so many episodes in words, too, their batches and steps; see `opened_past`."""
    async with opened_past(bus) as past:
        return await past.write(episodes)


@asynccontextmanager
async def opened_past(bus: BusSettings, *, words: bool = True) -> AsyncIterator["PastWriter"]:
    """A past that can be written on until the block ends.

    Args:
        bus: Where Kafka is; its topics hold no such records, and nobody else writes there.
        words: Whether conversations are written, too.
    """
    await ensure_topics(bus)
    client = producer(bus, linger_ms=0)
    await start(client, bus)
    try:
        yield PastWriter(client, bus, words=words)
    finally:
        await client.stop()


class PastWriter:
    """A past that is being written."""

    def __init__(self, client: AIOKafkaProducer, bus: BusSettings, *, words: bool) -> None:
        self._episodes = TopicFiller(client, bus, EPISODES)
        self._conversations = TopicFiller(client, bus, CONVERSATIONS) if words else None
        self._batches = TopicFiller(client, bus, BATCHES)
        self._steps = TopicFiller(client, bus, STEPS)
        self._partitions = bus.partitions(EPISODES)
        self._templates = EpisodeTemplates()
        self._used: list[BatchUse] = []
        self._groups = 0

    async def write(self, episodes: int) -> PastRun:
        """Write so many more, with their batches and steps; returns once all is acknowledged."""
        began = time.perf_counter()
        groups = range(self._groups, self._groups + episodes // GROUP)
        for group in groups:
            await self._group(group)
        self._groups = groups.stop
        await self._flush()
        return PastRun(
            len(groups) * GROUP, len(groups), len(groups) // BATCHES_PER_STEP,
            time.perf_counter() - began,
        )  # fmt: skip

    async def _group(self, number: int) -> None:
        """A group of episodes and its batch; every few of them a step."""
        task = f"task-{number:08d}"
        partition = partition_for(task, self._partitions)
        pointers = [
            await self._episode(number * GROUP + at, task, partition) for at in range(GROUP)
        ]
        batch = Batch(task_id=task, agent="bench", group_size=GROUP, episodes=tuple(pointers))
        headers = _headers(batch, task)
        at = await self._batches.add(task.encode(), codec.encode(batch), headers)
        self._used.append(BatchUse(offset=at, rows=GROUP, digest=batch.digest()))
        if len(self._used) == BATCHES_PER_STEP:
            await self._step(number // BATCHES_PER_STEP + 1, at + 1)

    async def _episode(self, number: int, task: str, partition: int) -> Pointer:
        kind = self._templates.kind(number)
        template = self._templates.episodes[kind]
        value = template.of(number)
        name = f"episode-{number:08d}"
        at = await self._episodes.add(task.encode(), value, template.headers, partition)
        if self._conversations is not None:
            said = self._templates.conversations[kind]
            await self._conversations.add(name.encode(), said.of(number), said.headers, partition)
        return Pointer(
            episode_id=name, sample=kind[0], topic=EPISODES.name, partition=partition, offset=at,
            digest=codec.digest(value), reward=float(kind[0] % 2),
        )  # fmt: skip

    async def _step(self, number: int, position: int) -> None:
        """The two entries of a step: its version is taken, and then it is made."""
        used, self._used = tuple(self._used), []
        settings = {"rows_per_step": GROUP * BATCHES_PER_STEP, "max_staleness": 10**9}
        made = Step(
            run="main", incarnation=1, step=number, position=position, used=used,
            version=number + 1, policy="policy", weights=f"{number:064x}",
            metrics={"loss": 0.1, "rows": float(GROUP * BATCHES_PER_STEP)},
        )  # fmt: skip
        taken = Step(
            run="main", incarnation=1, step=number, position=position, optimized=False,
            version=number + 1, policy="policy", settings=settings if number == 1 else {},
        )  # fmt: skip
        if number == 1:
            begun = structs.replace(taken, step=0, position=0, version=1)
            await self._steps.add(b"main", codec.encode(begun), _headers(begun, "main"))
            taken = structs.replace(taken, settings={})
        for entry in (taken, made):
            await self._steps.add(b"main", codec.encode(entry), _headers(entry, "main"))

    async def _flush(self) -> None:
        for filler in (self._episodes, self._conversations, self._batches, self._steps):
            if filler is not None:
                await filler.flush()


def _headers(event: Event, key: str) -> list[tuple[str, bytes]]:
    return list(codec.headers(event, source="/bench", subject=key, event_id=key))
