"""Task snapshots on `a2a.tasks.<agent>`, for a host's successor."""

import asyncio
from typing import Any

import msgspec
from a2a.server.cluster.event_stream import TaskEventStream, VersionedEvent
from a2a.server.cluster.task_store import (
    ConcurrentTaskModificationError,
    StoredTask,
    VersionedTaskStore,
)
from a2a.server.cluster.version import TaskVersion
from a2a.types import ListTasksResponse, Task
from a2a.utils.errors import UnsupportedOperationError

from odradek.agents.attempt.attempt import Attempt, Fail
from odradek.agents.binding.responses import (
    TERMINAL,
    SnapshotHeaders,
    event_headers,
    snapshot_headers,
    snapshot_value,
    state_of,
    stream_value,
)
from odradek.infra.bus import Appender, OutgoingRecord, PlainWriter
from odradek.infra.errors import BusError
from odradek.schemas.topics import A2A_EVENTS, A2A_TASKS, agent_topic


class TaskGeneration(TaskVersion):
    """The SDK's version of a task: one more with each change, as A2A 1.1's `Task.generation`."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class HeldTask:
    """A task that this host runs, as its store holds it."""

    def __init__(self, run: Attempt, task: Task, mark: SnapshotHeaders) -> None:
        self.run = run
        self.task = task
        self.mark = mark
        self.value = snapshot_value(task)
        """The task as ProtoJSON, as it was written last."""
        self.published = asyncio.Event()
        """Set when subscribers have the terminal status."""


class KafkaTaskStore(VersionedTaskStore, TaskEventStream):
    """The SDK's store and event stream of the tasks that this host runs.

    A snapshot is written where the state changes, not at each save: 300 streamed chunks make 303
    saves. Events are written one by one, in the order in which they were applied.

    Args:
        appender: Writes snapshots and events of tasks that are open.
        agent: The agent's name.
        source: Of the events, for CloudEvents.
        fail: Called with an error of the log.
    """

    def __init__(
        self,
        appender: Appender,
        agent: str,
        *,
        source: str,
        fail: Fail,
    ) -> None:
        self._writer = PlainWriter(appender)
        self._tasks_topic = agent_topic(A2A_TASKS, agent)
        self._events_topic = agent_topic(A2A_EVENTS, agent)
        self._source = source
        self._fail = fail
        self._held: dict[str, HeldTask] = {}

    def open(self, run: Attempt, task: Task) -> tuple[OutgoingRecord, OutgoingRecord]:
        """Keep a new task; return the records of its first snapshot and of its first event."""
        mark = SnapshotHeaders(
            task_id=run.episode_id,
            message_id=run.send.message_id,
            attempt=run.attempt,
            offset=run.offset,
            state=task.status.state,
        )
        held = self._held[run.episode_id] = HeldTask(run, task, mark)
        return (
            self.snapshot(mark, held.value, run.partition),
            self.event(run, task, mark.generation, held.value),
        )

    def adopt(self, run: Attempt, task: Task, mark: SnapshotHeaders) -> None:
        """Keep a task that a predecessor left."""
        self._held[run.episode_id] = HeldTask(run, task, mark)

    def snapshot(self, mark: SnapshotHeaders, value: bytes, partition: int) -> OutgoingRecord:
        """The record of a snapshot."""
        return OutgoingRecord(
            topic=self._tasks_topic,
            key=mark.task_id,
            value=value,
            headers=snapshot_headers(mark),
            partition=partition,
        )

    def event(
        self, run: Attempt, event: Any, generation: int, value: bytes | None = None
    ) -> OutgoingRecord:
        """The record of an event; `value` is the ProtoJSON of a Task, where it is at hand."""
        return OutgoingRecord(
            topic=self._events_topic,
            key=run.episode_id,
            value=stream_value(event) if value is None else b'{"task": ' + value + b"}",
            headers=event_headers(
                event,
                task_id=run.episode_id,
                generation=generation,
                source=self._source,
                traceparent=run.called.traceparent,
            ),
            partition=run.partition,
        )

    async def ending(self, run: Attempt, outcome: str) -> None:
        """Write down that a run is being sealed with an outcome.

        Without it, a host that dies between seal and terminal status would leave its successor
        no way to tell a finished episode from a lost one. Written as the partition's owner: a host
        that lost it while it was frozen is refused here, before it seals an episode that its
        successor has given up for another attempt.
        """
        held = self._held[run.episode_id]
        held.mark = msgspec.structs.replace(held.mark, outcome=outcome)
        await run.writer.write(self.snapshot(held.mark, held.value, run.partition))

    def forget(self, task_id: str) -> HeldTask | None:
        """Let a task go; return it as it was held last."""
        return self._held.pop(task_id, None)

    async def published(self, task_id: str) -> None:
        """Return once subscribers have the terminal status."""
        await self._held[task_id].published.wait()

    def task(self, task_id: str) -> Task | None:
        """The task as it is now, if this host runs it."""
        held = self._held.get(task_id)
        return held.task if held else None

    def generation(self, task_id: str) -> int:
        """The generation of a task that this host runs."""
        return self._held[task_id].mark.generation

    async def save(
        self,
        task: Task,
        *,
        event: Any,
        prev: Task | None,
        prev_version: TaskVersion,
        context: Any,
    ) -> TaskVersion:
        """See the SDK. Versions are A2A's generations: one more with each change."""
        del event, prev, context
        held = self._held.get(task.id)
        if held is None or TaskGeneration(held.mark.generation) != prev_version:
            raise ConcurrentTaskModificationError(task.id)
        changed = held.task.status.state != task.status.state
        held.task = Task()
        held.task.CopyFrom(task)
        held.mark = msgspec.structs.replace(
            held.mark,
            generation=held.mark.generation + 1,
            state=task.status.state,
            retry=held.run.retry,
        )
        if changed and not held.run.lost:
            # If we die above this line, the task is unfinished and its ending is done again. Below
            # it, a repeat of the request finds a terminal snapshot and changes nothing.
            held.value = snapshot_value(held.task)
            await self._append(self.snapshot(held.mark, held.value, held.run.partition))
        return TaskGeneration(held.mark.generation)

    async def get(self, task_id: str, context: Any) -> StoredTask | None:
        """See the SDK."""
        del context
        held = self._held.get(task_id)
        if held is None:
            return None
        task = Task()
        task.CopyFrom(held.task)
        return StoredTask(task, TaskGeneration(held.mark.generation))

    async def list(self, params: Any, context: Any) -> ListTasksResponse:
        """See the SDK. Needs all partitions of all hosts: a view of the topic, not this store."""
        del params, context
        raise UnsupportedOperationError

    async def delete(self, task_id: str, context: Any) -> None:
        """See the SDK."""
        del context
        self.forget(task_id)

    async def publish(self, task_id: str, event: VersionedEvent) -> None:
        """See the SDK: one record on `a2a.events.<agent>`."""
        held = self._held.get(task_id)
        if held is None:
            return
        try:
            if not held.run.lost:
                version = event.version
                generation = version.number if isinstance(version, TaskGeneration) else 0
                await self._append(
                    self.event(held.run, event.event, generation or held.mark.generation)
                )
        finally:
            if state_of(event.event) in TERMINAL:
                held.published.set()

    def subscribe(self, task_id: str, *, after: TaskVersion) -> Any:
        """See the SDK. Clients tail the events topic themselves."""
        del task_id, after
        raise UnsupportedOperationError

    async def destroy(self, task_id: str) -> None:
        """See the SDK."""

    async def _append(self, entry: OutgoingRecord) -> None:
        try:
            await self._writer.write(entry)
        except BusError as error:
            held = self._held.get(entry.key or "")
            if held is not None:
                held.run.lose()
                held.published.set()
            # The SDK would turn this into a failed task. It is the log that failed: the process
            # ends, and the next owner takes the run for lost.
            self._fail(error)
            raise
