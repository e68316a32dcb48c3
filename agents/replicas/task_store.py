"""The SDK's versioned task store on Kafka, for any number of replicas of one A2A server."""

from contextlib import AsyncExitStack
from typing import Any, Self

from a2a.server.cluster.task_store import (
    ConcurrentTaskModificationError,
    StoredTask,
    VersionedTaskStore,
)
from a2a.server.cluster.version import TaskVersion
from a2a.types import ListTasksRequest, ListTasksResponse, StreamResponse, Task, TaskState
from a2a.utils.errors import UnsupportedOperationError

from odradek.agents.attempt.task_store import TaskGeneration
from odradek.agents.binding.responses import (
    FIELDS,
    TERMINAL,
    SnapshotHeaders,
    event_headers,
    snapshot_headers,
    snapshot_value,
    stream_value,
)
from odradek.agents.host.tasks.listing import TaskList
from odradek.agents.host.tasks.replay import apply
from odradek.agents.replicas.task_log import LoggedTask, TaskLog
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.schemas.topics import A2A_EVENTS, A2A_TASKS, agent_topic


class KafkaTaskStore(VersionedTaskStore):
    """Keeps an A2A server's tasks in `a2a.events.<agent>` and `a2a.tasks.<agent>`.

    A change is an event with the next generation, and the log says which of two counts: the first.
    A snapshot follows where the state changes. So readers of the binding (`subscribe`, webhooks,
    `odradek tail`) see such a server's tasks as those of a host. All tasks are held in memory.

    Args:
        agent: The server's name. No agent host may have it: a host owns its partitions.
        bus: Where Kafka is; from `ODRADEK_KAFKA_*` if not given.
    """

    def __init__(self, agent: str, bus: BusSettings | None = None) -> None:
        self.agent = agent
        self.bus = bus or BusSettings()
        self._events_topic = agent_topic(A2A_EVENTS, agent)
        self._tasks_topic = agent_topic(A2A_TASKS, agent)
        self.log = TaskLog(self.bus, self._events_topic, self._tasks_topic)
        self._list = TaskList(self.bus, self._tasks_topic)
        self._appender: KafkaAppender | None = None

    async def __aenter__(self) -> Self:
        """Make topics that are missing, and read what is in the log. Raises BusError."""
        topics = [(self._events_topic, A2A_EVENTS), (self._tasks_topic, A2A_TASKS)]
        await ensure_topics(self.bus, topics)
        self._appender = await KafkaAppender.connect(self.bus)
        async with AsyncExitStack() as undo:
            undo.push_async_exit(self.__aexit__)
            await self.log.start()
            for logged in list(self.log.fold.tasks.values()):
                if logged.task.status.state != logged.saved_state:
                    await self._snapshot(logged)  # its writer died before it, or a late one came
            undo.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.log.aclose()
        if self._appender is not None:
            await self._appender.aclose()

    async def save(
        self,
        task: Task,
        *,
        event: Any,
        prev: Task | None,
        prev_version: TaskVersion,
        context: Any,
    ) -> TaskVersion:
        """See the SDK. Raises ConcurrentTaskModificationError, BusError."""
        del prev
        principal = _principal_of(context)
        if task.status.state != TaskState.TASK_STATE_CANCELED:
            held = self.log.fold.tasks.get(task.id)
            expected = prev_version.number if isinstance(prev_version, TaskGeneration) else 0
            if expected != (0 if held is None else held.generation) or (
                held is not None and held.principal != principal
            ):
                raise ConcurrentTaskModificationError(task.id)
            generation = await self._append(task, event, held, principal)
        else:
            generation = None
            while generation is None:  # a cancellation overwrites whatever is not over
                await self.log.current(self.log.partition(task.id))
                held = self.log.fold.tasks.get(task.id)
                if held is None or held.principal != principal or _over(held):
                    raise ConcurrentTaskModificationError(task.id)
                generation = await self._append(task, event, held, principal)
        if generation is None:
            raise ConcurrentTaskModificationError(task.id)
        return TaskGeneration(generation)

    async def _append(
        self, task: Task, event: Any, held: LoggedTask | None, principal: str
    ) -> int | None:
        """The generation of a change that was written; None where another one came first."""
        assert self._appender is not None, "use `async with` around a KafkaTaskStore"
        generation = 1 if held is None else held.generation + 1
        state = held.task.status.state if held is not None else None
        if event is None or held is None or not _leads_to(held.task, event, task):
            event = task  # what the event alone does not say
        with self.log.writing(task.id) as counted:
            headers = event_headers(
                event,
                task_id=task.id,
                generation=generation,
                source=f"/agents/{self.agent}",
                traceparent=None,
                principal=principal,
            )
            written = await self._appender.append(
                self._events_topic, key=task.id, value=stream_value(event), headers=headers
            )
            await self.log.heard(written.partition, written.offset)
        if not counted.get(written.offset, False):
            return None
        # If we die above this line, the change is in the log, and the next replica that starts
        # writes the snapshot. Below it, the snapshot may be older than another's that overtook it:
        # then the newest is written again.
        logged = self.log.fold.tasks[task.id]
        if state != task.status.state or isinstance(event, Task):
            await self._snapshot(logged)
        return generation

    async def _snapshot(self, logged: LoggedTask) -> None:
        """Write a task's snapshot, until no later change overtook it."""
        assert self._appender is not None
        while logged.snapshot < logged.generation:
            generation, state = logged.generation, logged.task.status.state
            mark = SnapshotHeaders(
                task_id=logged.task.id,
                message_id=logged.task.history[0].message_id if logged.task.history else "",
                generation=generation,
                state=state,
                principal=logged.principal,
            )
            await self._appender.append(
                self._tasks_topic,
                key=logged.task.id,
                value=snapshot_value(logged.task),
                headers=snapshot_headers(mark),
            )
            logged.snapshot, logged.saved_state = generation, state
            if logged.task.status.state == state:
                return

    async def get(self, task_id: str, context: Any) -> StoredTask | None:
        """See the SDK: with every change that was in the log as it was asked."""
        await self.log.current(self.log.partition(task_id))
        held = self.log.fold.tasks.get(task_id)
        if held is None or held.principal != _principal_of(context):
            return None
        task = Task()
        task.CopyFrom(held.task)
        return StoredTask(task, TaskGeneration(held.generation))

    async def list(self, params: ListTasksRequest, context: Any) -> ListTasksResponse:
        """See the SDK: as their snapshots have them."""
        return await self._list.page(params, _principal_of(context))

    async def delete(self, task_id: str, context: Any) -> None:
        """See the SDK. Retention deletes tasks; nobody else does."""
        del task_id, context
        raise UnsupportedOperationError


def _principal_of(context: Any) -> str:
    """Whose a task is that is made in a call's context; "": of those who are not known."""
    user = context.user
    return str(user.user_name) if user.is_authenticated else ""


def _over(held: LoggedTask) -> bool:
    return held.task.status.state in TERMINAL


def _leads_to(before: Task, event: Any, after: Task) -> bool:
    """Whether an event says the whole change."""
    task = Task()
    task.CopyFrom(before)
    apply(task, StreamResponse(**{FIELDS[type(event)]: event}))
    return bool(task == after)
