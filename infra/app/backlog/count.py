"""Asking the broker how far each process is behind.

What was committed is asked for before the ends: a process that works on meanwhile seems to be
further behind than it is, and never less.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from odradek.infra.app.backlog.lag import NEAR, ProcessLag, Stretch, lag_of
from odradek.infra.app.backlog.offsets import done_offsets
from odradek.infra.app.backlog.processes import LedgerHead, Reading, Trainers, others, readings
from odradek.infra.app.backlog.spans import RecordSpans
from odradek.infra.bus import (
    BusSettings,
    DoneOffsets,
    admin,
    consumer,
    require_topics,
    running,
    topic_names,
    topic_partitions,
)
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import STEPS, TASKS
from odradek.streams.settings import StreamsSettings
from odradek.streams.stage import Stage
from odradek.streams.stages import STAGES

TAIL: Final = 200
"""Entries of the ledger in which those who train now are looked for."""
HEAD: Final = codec.head_reader(LedgerHead)

Committed = Mapping[TopicPartition, tuple[int, str]]
"""By partition, a group's committed offset and its metadata."""
Done = Mapping[TopicPartition, DoneOffsets]


class BacklogCount:
    """Counts again and again, over two connections.

    Args:
        bus: Where Kafka is.
        client: Asks for groups.
        reader: Reads, and is given to nobody else.
        near: See `NEAR`; None to count however many there are.
    """

    def __init__(
        self,
        bus: BusSettings,
        client: AIOKafkaAdminClient,
        reader: AIOKafkaConsumer,
        *,
        near: int | None = NEAR,
    ) -> None:
        self._bus = bus
        self._client = client
        self._reader = reader
        self._near = near
        self._stages = {entry.process: _stage(entry.load()) for entry in STAGES.values()}
        self._spans = RecordSpans(bus, reader)
        self._trainers = Trainers()
        self._heard = 0

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, bus: BusSettings, *, near: int | None = NEAR
    ) -> AsyncIterator["BacklogCount"]:
        """Inside, backlogs can be counted. Raises KafkaUnreachable, TopicMissing."""
        await require_topics(bus, [TASKS.name, STEPS.name])
        async with running(admin(bus), bus) as client, running(consumer(bus), bus) as reader:
            yield cls(bus, client, reader, near=near)

    async def take(self) -> list[ProcessLag]:
        """How far each process is behind now, in the order of the data. Raises BusError."""
        try:
            return await self._take()
        except KafkaError as error:
            raise BusError(f"backlogs cannot be counted: {error!r}") from error

    async def _take(self) -> list[ProcessLag]:
        done = await self._done()
        wanted = sorted({where for each in done.values() for where in each})
        beginnings = await self._reader.beginning_offsets(wanted)
        ends = await self._reader.end_offsets(wanted)
        stretches = {at: Stretch(beginnings[at], ends[at], self._near) for at in wanted}
        for purpose in sorted({reading.purpose for reading in done}):
            firsts = [each for reading, each in done.items() if reading.purpose == purpose]
            await self._spans.want(purpose, _first(firsts, stretches), ends)
        return [
            lag_of(reading, each, stretches, partial(self._spans.offsets, reading.purpose))
            for reading, each in done.items()
        ]

    async def _done(self) -> dict[Reading, Done]:
        """What each process has done of each partition that it reads."""
        prefix = self._bus.topic_prefix
        names = await topic_names(self._reader)
        topics = {self._bus.bare(name) for name in names if name.startswith(prefix)}
        committed = {group: await self._committed(group) for group in await self._groups()}
        known = readings(topics, committed, self._stages)
        known += [
            Reading(group, topic, group)
            for group in others(committed, known)
            for topic in sorted({self._bus.bare(where.topic) for where in committed[group]})
        ]
        await self._hear()
        known += self._trainers.readings()
        return {each: await self._done_by(each, committed.get(each.group, {})) for each in known}

    async def _groups(self) -> list[str]:
        prefix = self._bus.group("")
        names = [name for name, *_ in await self._client.list_consumer_groups()]
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    async def _committed(self, group: str) -> Committed:
        answer = await self._client.list_consumer_group_offsets(self._bus.group(group))
        return {
            where: (mark.offset, mark.metadata)
            for where, mark in answer.items()
            if mark.offset >= 0
        }

    async def _done_by(self, reading: Reading, committed: Committed) -> Done:
        """A partition of which nothing was committed is read from its beginning."""
        partitions = await topic_partitions(self._reader, self._bus.topic(reading.topic))
        if not reading.group:
            return dict.fromkeys(partitions, DoneOffsets(reading.position))
        return {where: done_offsets(*committed.get(where, (0, ""))) for where in partitions}

    async def _hear(self) -> None:
        """Read what is new at the end of the ledger."""
        partitions = await topic_partitions(self._reader, self._bus.topic(STEPS.name))
        ends = await self._reader.end_offsets(partitions)
        begin = await self._reader.beginning_offsets(partitions)
        start = {where: max(self._heard, end - TAIL, begin[where]) for where, end in ends.items()}
        async for record in self._spans.read(start, ends):
            try:
                self._trainers.hear(HEAD(record.value))
            except InvalidRecord:
                continue  # whoever reads the ledger for its own sake says so
        self._heard = max(ends.values(), default=0)


def _stage(entry: Stage | type) -> Stage:
    """A stage of the table, made by the settings where they decide about it."""
    return entry if isinstance(entry, Stage) else entry(StreamsSettings())


def _first(
    done: list[Done], stretches: Mapping[TopicPartition, Stretch]
) -> dict[TopicPartition, int]:
    """Of each partition that is to be counted, from where on."""
    first: dict[TopicPartition, int] = {}
    for partitions in done:
        for where, each in partitions.items():
            if (offset := stretches[where].first(each)) is not None:
                first[where] = min(first.get(where, offset), offset)
    return first
