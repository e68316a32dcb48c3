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
from a2a.types import ListTasksResponse, Task, TaskStatusUpdateEvent
from a2a.utils.errors import UnsupportedOperationError

from odradek.agents.attempt.attempt import Attempt, Ending, Fail
from odradek.agents.binding.responses import (
    SnapshotHeaders,
    event_headers,
    snapshot_headers,
    snapshot_value,
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
        """The task as ProtoJSON, as its last snapshot has it."""
        self.due = False
        """Whether the next event is written with a snapshot."""
        self.passed = 0
        """Events that its agent sent and that are not in the log yet."""
        self.logged = mark.generation
        """The generation of the last event in the log."""
        self.unheard = False
        """Whether no further event of its agent will be written."""
        self.moved = asyncio.Event()
        """Set, and replaced, with each event that was written."""

    @property
    def over(self) -> bool:
        """Whether subscribers have the terminal status, or never will."""
        return self.unheard or (self.mark.terminal and self.logged >= self.mark.generation)

    def move(self) -> None:
        """Wake whoever waits for an event to be written."""
        self.moved.set()
        self.moved = asyncio.Event()


class HostTaskStore(VersionedTaskStore, TaskEventStream):
    """The SDK's store and event stream of the tasks that this host runs.

    The events are the truth, and a snapshot spares its reader the older ones: it is written where
    the state changes, not at each save (300 streamed chunks make 303), and in one transaction with
    the event that tells the change. So no snapshot is ahead of the events, and what a task is, is
    its last snapshot and the events behind it.

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
        self._plain = PlainWriter(appender)
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
            principal=run.called.principal,
        )
        held = self._held[run.episode_id] = HeldTask(run, task, mark)
        return (
            self.snapshot(mark, held.value, run.partition),
            self.event(run, task, mark.generation, held.value),
        )

    def adopt(self, run: Attempt, task: Task, mark: SnapshotHeaders) -> None:
        """Keep a task that a predecessor left."""
        self._held[run.episode_id] = HeldTask(run, task, mark)

    async def restart(self, run: Attempt, task: Task, mark: SnapshotHeaders) -> None:
        """Keep a task that is begun again, and write so: streams show it as it stands."""
        held = self._held[run.episode_id] = HeldTask(run, task, mark)
        await run.writer.write(
            self.event(run, task, mark.generation, held.value),
            self.snapshot(mark, held.value, run.partition),
        )

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
                principal=run.called.principal,
            ),
            partition=run.partition,
        )

    async def ending(self, run: Attempt, verdict: Ending) -> None:
        """Write down that a run is being sealed, with its outcome and its children.

        Without it, a host that dies between seal and terminal status would leave its successor
        no way to tell a finished episode from a lost one. Written as the partition's owner: a host
        that lost it while it was frozen is refused here, before it seals an episode that its
        successor has given up for another attempt.
        """
        held = self._held[run.episode_id]
        while held.passed and not held.unheard:  # what the agent sent before it ended
            await held.moved.wait()
        held.mark = msgspec.structs.replace(
            held.mark, outcome=str(verdict.outcome), children=verdict.children
        )
        task = Task()
        task.CopyFrom(held.task)
        if run.last_message is not None:
            task.status.message.CopyFrom(run.last_message)  # its successor ends it with it
        await run.writer.write(self.snapshot(held.mark, snapshot_value(task), run.partition))

    def passed(self, task_id: str) -> None:
        """An agent sent an event, which is to be written."""
        self._held[task_id].passed += 1

    def unheard(self, task_id: str) -> None:
        """The SDK broke off over what an agent sent: nothing further of it will be written."""
        if (held := self._held.get(task_id)) is not None:
            held.unheard = True
            held.move()

    def forget(self, task_id: str) -> HeldTask | None:
        """Let a task go; return it as it was held last."""
        return self._held.pop(task_id, None)

    async def published(self, task_id: str) -> None:
        """Return once subscribers have the terminal status."""
        held = self._held[task_id]
        while not held.over and not held.run.lost:
            await held.moved.wait()

    async def logged(self, task_id: str) -> None:
        """Return once the task as it is now is in the log: what was answered stays true."""
        if (held := self._held.get(task_id)) is None:
            return
        generation = held.mark.generation
        while held.logged < generation and not (held.unheard or held.run.lost):
            await held.moved.wait()

    def task(self, task_id: str) -> Task | None:
        """The task as it is now, if this host runs it."""
        held = self._held.get(task_id)
        return held.task if held else None

    def mark(self, task_id: str) -> SnapshotHeaders | None:
        """The newest mark of a task, if this host runs it."""
        held = self._held.get(task_id)
        return held.mark if held else None

    async def save(
        self,
        task: Task,
        *,
        event: Any,
        prev: Task | None,
        prev_version: TaskVersion,
        context: Any,
    ) -> TaskVersion:
        """See the SDK. Versions are A2A's generations: one more with each event.

        A follow-up's message makes none: streams do not show it, and the next event's snapshot
        has it.
        """
        del prev, context
        held = self._held.get(task.id)
        if held is None or TaskGeneration(held.mark.generation) != prev_version:
            raise ConcurrentTaskModificationError(task.id)
        message = isinstance(event, Task)
        held.due = held.due or message or held.task.status.state != task.status.state
        held.task = Task()
        held.task.CopyFrom(task)
        held.mark = msgspec.structs.replace(
            held.mark,
            generation=held.mark.generation + (not message),
            state=task.status.state,
            retry=held.run.retry,
        )
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
        if held is not None:
            held.passed -= 1
            await self._publish(held, event.event)

    async def conclude(self, run: Attempt) -> None:
        """Write the failure that the SDK saved, and did not publish, as it broke off."""
        held = self._held[run.episode_id]
        if held.mark.terminal and held.logged < held.mark.generation:
            update = TaskStatusUpdateEvent(
                task_id=held.task.id, context_id=held.task.context_id, status=held.task.status
            )
            await self._publish(held, update)

    async def _publish(self, held: HeldTask, event: Any) -> None:
        """Write an event, with a snapshot where one is due."""
        run = held.run
        try:
            if run.lost:
                return
            generation = held.mark.generation
            record = self.event(run, event, generation)
            if held.due:
                held.value = snapshot_value(held.task)
                snapshot = self.snapshot(held.mark, held.value, run.partition)
                # Written by the partition's owner only. If we die above this line, the task is as
                # its older events say, and is ended or begun again. Below it, a repeat of the
                # request finds the new state.
                await self._write(held, record, snapshot)
                held.due = False
            else:
                await self._append(held, record)
            held.logged = generation
        finally:
            held.move()

    def subscribe(self, task_id: str, *, after: TaskVersion) -> Any:
        """See the SDK. Clients tail the events topic themselves."""
        del task_id, after
        raise UnsupportedOperationError

    async def destroy(self, task_id: str) -> None:
        """See the SDK."""

    async def _write(self, held: HeldTask, *records: OutgoingRecord) -> None:
        try:
            await held.run.writer.write(*records)
        except BusError as error:
            held.run.lose()
            self._fail(error, held.run.writer)
            raise

    async def _append(self, held: HeldTask, entry: OutgoingRecord) -> None:
        try:
            await self._plain.write(entry)
        except BusError as error:
            held.run.lose()
            # The SDK would turn this into a failed task. It is the log that failed: the process
            # ends, and the next owner takes the run for lost.
            self._fail(error)
            raise
