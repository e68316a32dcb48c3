"""The SDK's stream of a task's events on Kafka, at whichever replica of an A2A server."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from a2a.server.cluster.event_stream import TaskEventStream, VersionedEvent
from a2a.server.cluster.version import TaskVersion
from a2a.types import Task

from odradek.agents.attempt.task_store import TaskGeneration
from odradek.agents.client.event_tail import EventTail
from odradek.agents.replicas.task_store import KafkaTaskStore


class KafkaTaskEventStream(TaskEventStream):
    """Reads the events of a store's tasks, once for all streams of a process.

    Args:
        store: Writes them.
    """

    def __init__(self, store: KafkaTaskStore) -> None:
        self._store = store
        self._tail: EventTail | None = None

    async def publish(self, task_id: str, event: VersionedEvent) -> None:
        """See the SDK. The store has written it with the change itself."""

    async def subscribe(
        self, task_id: str, *, after: TaskVersion
    ) -> AsyncGenerator[VersionedEvent, None]:
        """See the SDK: no event is left out, and none comes twice. Raises BusError."""
        if self._tail is None:
            self._tail = EventTail(self._store.bus, self._store.agent)
        await self._tail.ready()
        partition = self._store.log.partition(task_id)
        held = self._store.log.fold.tasks.get(task_id)
        seen = after.number if isinstance(after, TaskGeneration) else 0
        # Read before the yield: while its caller is busy, the task moves on.
        offset = 0 if held is None else held.offset
        if held is not None and seen < held.generation:
            # What is between is in the task: one event that replaces all that was shown.
            seen = held.generation
            task = Task()
            task.CopyFrom(held.task)
            yield VersionedEvent(event=task, version=TaskGeneration(seen))
        events = self._tail.stream(task_id, generation=seen, partition=partition, offset=offset)
        async with aclosing(events):
            async for event in events:
                response = event.response()
                yield VersionedEvent(
                    event=getattr(response, str(response.WhichOneof("payload"))),
                    version=TaskGeneration(event.headers.generation),
                )

    async def destroy(self, task_id: str) -> None:
        """See the SDK. Retention deletes the events."""

    async def aclose(self) -> None:
        """Stop reading; streams that are open end with BusError."""
        if self._tail is not None:
            await self._tail.aclose()
