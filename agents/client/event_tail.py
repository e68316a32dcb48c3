"""One reader of an agent's events for all streams of its tasks."""

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import cached_property
from typing import Final

import msgspec
from a2a.types import StreamResponse

from odradek.agents.binding.responses import EventHeaders, read_event, read_stream
from odradek.agents.client.log_range import LogRanges
from odradek.agents.client.reader import SteadyReader
from odradek.agents.errors import BadRequestHeader
from odradek.infra.bus import BusSettings, Positions, Record
from odradek.infra.errors import BusError
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import A2A_EVENTS, agent_topic

PLACE: Final = re.compile(r"(\d{1,9})\.(\d{1,18})\.(\d{1,9})", re.ASCII)
RECENT: Final = 2000
"""Events of a partition that are kept for streams whose head is still on its way."""
WAITING: Final = 1000
"""Events that may wait for a stream's reader; one that falls further behind reads the log again."""

FAR: Final = 2**62
"""An offset behind every record."""
ALL: Final = "*"
"""Where the queues of those stand who want the events of all tasks; no task has this id."""


class EventPlace(msgspec.Struct, frozen=True):
    """How far a stream was read: enough to go on. As text `PARTITION.OFFSET.GENERATION`."""

    partition: int
    offset: int
    """Nothing that is still to be read stands before it."""
    generation: int
    """Of the last event that was read."""

    def __str__(self) -> str:
        return f"{self.partition}.{self.offset}.{self.generation}"

    @classmethod
    def read(cls, text: str) -> "EventPlace | None":
        """The place that a text names, None for any other text."""
        match = PLACE.fullmatch(text)
        return cls(*map(int, match.groups())) if match else None

    def precedes(self, head: "EventPlace") -> bool:
        """Whether it can be a place of the stream that has come to `head`."""
        return (
            self.partition == head.partition
            and self.offset <= head.offset
            and self.generation <= head.generation
        )


class TailedEvent:
    """An event as all streams of its task share it: its headers and its value are read once.

    Args:
        record: As the log has it.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    @cached_property
    def headers(self) -> EventHeaders:
        """Its task, its generation, and its task's state if it tells that."""
        return read_event(self.record.headers)

    @cached_property
    def readable(self) -> bool:
        """Whether it is an event of a host's."""
        try:
            return bool(self.headers.task_id)
        except (BadRequestHeader, ValueError):
            return False

    @cached_property
    def ends(self) -> bool:
        """Whether streams end with it."""
        return self.headers.ends

    @property
    def place(self) -> EventPlace:
        """How far a stream was read that ends with it."""
        return EventPlace(self.record.partition, self.record.offset, self.headers.generation)

    @property
    def value(self) -> bytes:
        """The StreamResponse as ProtoJSON."""
        return self.record.value or b"{}"

    def response(self) -> StreamResponse:
        """The StreamResponse, for one stream alone."""
        response = StreamResponse()
        response.CopyFrom(self._response)
        return response

    @cached_property
    def _response(self) -> StreamResponse:
        return read_stream(self.value)


class EventTail:
    """Reads an agent's events from now on, once for all streams.

    Args:
        bus: Where Kafka is.
        agent: Whose events.
    """

    def __init__(self, bus: BusSettings, agent: str) -> None:
        self._bus = bus
        self._topic = agent_topic(A2A_EVENTS, agent)
        self._recent: dict[int, deque[TailedEvent]] = defaultdict(deque)
        self._complete_from: dict[int, int] = {}
        """Per partition the offset from which `_recent` holds every event."""
        self._next: dict[int, int] = {}
        """Per partition the offset behind the last event that was read."""
        self._queues: dict[str, set[asyncio.Queue[TailedEvent | BusError | None]]] = {}
        self._ranges = LogRanges(bus, self._topic)
        self._reader = SteadyReader(
            bus, self._topic, self._hear, begin=self._begin, lost=self._fail
        )

    async def ready(self) -> None:
        """Return once whatever is appended from now on will be seen. Raises BusError."""
        await self._reader.ready()

    def holds(self, task_id: str, place: EventPlace) -> bool:
        """Whether a place can be one of a task's: its events stand on one partition."""
        return place.partition == partition_for(task_id, len(self._next))

    async def aclose(self) -> None:
        """Stop reading; streams that are open end with BusError."""
        await self._reader.aclose()
        await self._ranges.aclose()

    async def stream(
        self, task_id: str, *, generation: int, partition: int, offset: int
    ) -> AsyncGenerator[TailedEvent, None]:
        """A task's events after a generation, up to its end, or to where its agent asks a question.

        Args:
            task_id: Whose events.
            generation: What the caller has seen already.
            partition: Of the events.
            offset: No event after `generation` stands before it.

        Raises:
            BusError: The log cannot be read for the time being: subscribe again.
        """
        self._reader.check()
        with self._queue(task_id) as queue:
            async with aclosing(self._events(queue, task_id, partition, offset)) as events:
                async for event in events:
                    if not event.readable or event.headers.generation <= generation:
                        continue
                    generation = event.headers.generation
                    yield event
                    if event.ends:
                        return

    async def all_records(self, start: Mapping[int, int]) -> AsyncGenerator[Record, None]:
        """All of the agent's events, from an offset of each partition on.

        Args:
            start: By partition. One that is not there is read from now on.

        Raises:
            BusError: The log cannot be read any more, or no longer holds where to begin.
        """
        queue: asyncio.Queue[TailedEvent | BusError | None] = asyncio.Queue()
        self._queues.setdefault(ALL, set()).add(queue)
        try:
            # Nothing is awaited until here, so no event falls between what is kept and the queue.
            behind = {part: start.get(part, ends) for part, ends in self._next.items()}
            kept = {part: list(self._recent[part]) for part in behind}
            begins = dict(self._complete_from)
            while True:
                for part, next_offset in list(behind.items()):
                    logged = self._ranges.read(part, next_offset, begins[part])
                    async with aclosing(logged):
                        async for record in logged:
                            behind[part] = record.offset + 1
                            yield record
                    for event in kept.pop(part, ()):
                        if event.record.offset >= behind[part]:
                            behind[part] = event.record.offset + 1
                            yield event.record
                while (queued := await queue.get()) is not None:
                    if isinstance(queued, BusError):
                        raise queued
                    if queued.record.offset >= behind[queued.record.partition]:
                        behind[queued.record.partition] = queued.record.offset + 1
                        yield queued.record
                # Some were left out. The queue fills again behind this place.
                begins = dict(self._next)
        finally:
            self._queues[ALL].discard(queue)

    @property
    def ends(self) -> dict[int, int]:
        """By partition, the offset behind the last event that was read."""
        return dict(self._next)

    async def past(self, task_id: str, seen: EventPlace) -> AsyncGenerator[TailedEvent, None]:
        """What the log has of a task behind a place, up to now. Raises PositionLost, BusError."""
        generation = seen.generation
        records = self._ranges.read(seen.partition, seen.offset, FAR)
        async with aclosing(records):
            async for record in records:
                event = TailedEvent(record)
                if record.key != task_id or not event.readable:
                    continue
                if event.headers.generation > generation:
                    generation = event.headers.generation
                    yield event

    async def _events(
        self,
        queue: "asyncio.Queue[TailedEvent | BusError | None]",
        task_id: str,
        partition: int,
        offset: int,
    ) -> AsyncGenerator[TailedEvent, None]:
        """A task's events from an offset on: from the log, those kept, and as they come."""
        # Nothing is awaited until both are known, so no event falls between them and the queue.
        recent = [event for event in self._recent[partition] if event.record.offset >= offset]
        begins = self._complete_from.get(partition, 0)
        async with aclosing(self._logged(task_id, partition, offset, begins)) as logged:
            async for event in logged:
                yield event
        for event in recent:
            if event.record.key == task_id:
                offset = event.record.offset + 1
                yield event
        while True:
            queued = await queue.get()
            if isinstance(queued, BusError):
                raise queued
            if queued is not None:
                offset = queued.record.offset + 1
                yield queued
                continue
            # Some were left out. The queue is empty here, and fills again behind this place.
            ends = self._next[partition]
            async with aclosing(self._logged(task_id, partition, offset, ends)) as logged:
                async for event in logged:
                    offset = event.record.offset + 1
                    yield event

    async def _logged(
        self, task_id: str, partition: int, start: int, end: int
    ) -> AsyncGenerator[TailedEvent, None]:
        async with aclosing(self._ranges.read(partition, start, end)) as records:
            async for record in records:
                if record.key == task_id:
                    yield TailedEvent(record)

    @contextmanager
    def _queue(self, task_id: str) -> Iterator["asyncio.Queue[TailedEvent | BusError | None]"]:
        queue: asyncio.Queue[TailedEvent | BusError | None] = asyncio.Queue()
        self._queues.setdefault(task_id, set()).add(queue)
        try:
            yield queue
        finally:
            self._queues[task_id].discard(queue)
            if not self._queues[task_id]:
                del self._queues[task_id]

    def _fail(self, error: BusError) -> None:
        for queues in self._queues.values():
            for queue in queues:
                queue.put_nowait(BusError(f"events cannot be read: {error}"))

    def _begin(self, positions: Positions) -> None:
        """A reader begins; where it leaves something out, what was kept is not all any more."""
        for where, offset in positions.items():
            if self._next.get(where.partition) != offset:
                self._recent[where.partition].clear()
                self._complete_from[where.partition] = self._next[where.partition] = offset

    def _hear(self, record: Record) -> None:
        event = TailedEvent(record)
        recent = self._recent[record.partition]
        recent.append(event)
        self._next[record.partition] = record.offset + 1
        if len(recent) > RECENT:
            self._complete_from[record.partition] = recent.popleft().record.offset + 1
        for queue in (*self._queues.get(record.key or "", ()), *self._queues.get(ALL, ())):
            if queue.qsize() < WAITING:
                queue.put_nowait(event)
            elif queue.qsize() == WAITING:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
