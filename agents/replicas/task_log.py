"""An agent's tasks as their events say, followed by each replica of its server.

The log decides who wrote first: of all events of one task with one generation, the first in its
partition counts, and the others are left, by these readers as by all of the binding.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
from a2a.types import Task
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from google.protobuf.json_format import ParseError

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import read_event, read_mark, read_snapshot, read_stream
from odradek.agents.errors import BadRequestHeader
from odradek.agents.host.tasks.replay import apply
from odradek.infra.bus import (
    BusSettings,
    Record,
    at_offsets,
    consumer,
    partitions_of,
    record_of,
    running,
    to_end,
)
from odradek.infra.errors import BusError, LogUnavailable
from odradek.schemas.codec import header
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import A2A_EVENTS

POLL_MS: Final = 200
PAUSE_S: Final = 0.5
WAIT_S: Final = 30.0


class LoggedTask(msgspec.Struct):
    """A task as its events have it."""

    task: Task
    generation: int
    principal: str
    offset: int
    """No event after its generation stands before it."""
    snapshot: int = 0
    """The generation of its newest snapshot."""
    saved_state: int = 0
    """The state that this snapshot says."""


class TaskFold:
    """What an agent's records say of its tasks. Pure.

    Attributes:
        tasks: By id.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, LoggedTask] = {}

    def take_snapshot(self, record: Record) -> None:
        """A snapshot, read before all events; a tombstone ends its task."""
        if record.value is None:
            self.tasks.pop(record.key or "", None)
            return
        with suppress(BadRequestHeader, KeyError, ValueError, ParseError):
            mark = read_mark(record.headers)
            task = read_snapshot(record.value)
            newest = self.tasks.get(task.id)
            if newest is None or newest.generation <= mark.generation:
                newest = LoggedTask(task, mark.generation, mark.principal, 0)
                self.tasks[task.id] = newest
            newest.snapshot, newest.saved_state = mark.generation, mark.state

    def take(self, record: Record) -> bool:
        """An event; whether it is the first of its generation, and so counts."""
        try:
            generation = read_event(record.headers).generation
            event = read_stream(record.value or b"")
        except (BadRequestHeader, ValueError, ParseError):
            return False  # no event of ours
        task_id = record.key or ""
        held = self.tasks.get(task_id)
        whole = event.WhichOneof("payload") == "task"
        if held is None:
            if not whole:
                return False  # retention has deleted its beginning
            principal = header(record.headers, names.PRINCIPAL) or ""
            held = self.tasks[task_id] = LoggedTask(Task(), generation - 1, principal, 0)
        if generation != held.generation + 1 and not (whole and generation > held.generation):
            return False
        apply(held.task, event)
        held.generation = generation
        held.offset = record.offset + 1
        return True


class TaskLog:
    """Follows an agent's events from their beginning on.

    Args:
        bus: Where Kafka is.
        events: Their topic, without prefix.
        snapshots: That of the snapshots.
    """

    def __init__(self, bus: BusSettings, events: str, snapshots: str) -> None:
        self.fold: Final = TaskFold()
        self._bus = bus
        self._events = events
        self._snapshots = snapshots
        self._partitions = bus.partitions(A2A_EVENTS)
        self._read: dict[tuple[str, int], int] = {}
        self._writing: dict[str, list[dict[int, bool]]] = defaultdict(list)
        """Of tasks that this process writes: which events counted since, by offset."""
        self._reader: AIOKafkaConsumer | None = None
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once everything that is in the log now has been read. Raises BusError."""
        async for record in to_end(self._bus, self._snapshots):
            self.fold.take_snapshot(record)
        self._task = asyncio.create_task(self._follow_for_ever())
        for partition in range(self._partitions):
            await self.current(partition)

    async def aclose(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def partition(self, task_id: str) -> int:
        """Where a task's events are."""
        return partition_for(task_id, self._partitions)

    async def current(self, partition: int) -> None:
        """Return once whatever is in a partition now has been read. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(WAIT_S):
                while self._reader is None:
                    await self._moved.wait()
                where = TopicPartition(self._bus.topic(self._events), partition)
                end = (await self._reader.end_offsets([where]))[where]
                await self._until(partition, end)
        except (TimeoutError, KafkaError) as error:
            raise LogUnavailable(f"{self._events} cannot be read: {error!r}") from error

    @contextmanager
    def writing(self, task_id: str) -> Iterator[dict[int, bool]]:
        """Inside, which events of a task counted since, by offset."""
        counted: dict[int, bool] = {}
        self._writing[task_id].append(counted)
        try:
            yield counted
        finally:
            self._writing[task_id].remove(counted)
            if not self._writing[task_id]:
                del self._writing[task_id]

    async def heard(self, partition: int, offset: int) -> None:
        """Return once the event at an offset has been read. Raises LogUnavailable."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._until(partition, offset + 1)
        except TimeoutError as error:
            raise LogUnavailable(f"{self._events} cannot be read") from error

    async def _until(self, partition: int, offset: int) -> None:
        while self._read.get((self._events, partition), -1) < offset:
            await self._moved.wait()

    async def _follow_for_ever(self) -> None:
        while True:
            with suppress(BusError, KafkaError):
                await self._follow()
            self._reader = None
            await asyncio.sleep(PAUSE_S)  # who waits does so for WAIT_S at most

    async def _follow(self) -> None:
        async with running(consumer(self._bus), self._bus) as reader:
            partitions = await partitions_of(reader, self._bus.topic(self._events))
            reader.assign(partitions)
            begins = await at_offsets(self._bus, self._read)(reader, partitions)
            for where, offset in begins.items():
                reader.seek(where, offset)
                self._read[self._events, where.partition] = offset
            self._reader = reader
            self._move()
            while True:
                fetched = await reader.getmany(timeout_ms=POLL_MS)
                for messages in fetched.values():
                    for message in messages:
                        self._hear(record_of(message, self._bus))
                for where in partitions:
                    # The position also moves over markers of transactions.
                    self._read[self._events, where.partition] = await reader.position(where)
                self._move()

    def _hear(self, record: Record) -> None:
        counts = self.fold.take(record)
        for counted in self._writing.get(record.key or "", ()):
            counted[record.offset] = counts
        self._read[self._events, record.partition] = record.offset + 1

    def _move(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
