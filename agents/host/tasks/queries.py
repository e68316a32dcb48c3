"""Answers to questions about tasks: one of them, all of them, and where a task's stream begins."""

from collections.abc import Awaitable, Callable

from a2a.types import (
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    SubscribeToTaskRequest,
    Task,
)
from a2a.utils.errors import TaskNotFoundError, UnsupportedOperationError
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding.responses import TERMINAL, StreamHead, read_snapshot
from odradek.agents.host.tasks.listing import TaskList
from odradek.agents.host.tasks.partition import RequestPartition
from odradek.agents.trust.principal import check_owner
from odradek.infra.bus import BusSettings, read_range
from odradek.schemas.topics import A2A_EVENTS, A2A_TASKS, agent_topic


class TaskQueries:
    """Answers GetTask, ListTasks and SubscribeToTask.

    A task that this host runs is answered from memory, one that is over from its snapshot. To all
    but its principal it is absent.

    Args:
        snapshots: The tasks that this host runs.
        bus: Where Kafka is.
        agent: The agent's name.
        events_end: Where a partition of the agent's events ends.
    """

    def __init__(
        self,
        snapshots: HostTaskStore,
        bus: BusSettings,
        agent: str,
        *,
        events_end: Callable[[int], Awaitable[int]],
    ) -> None:
        self._snapshots = snapshots
        self._bus = bus
        self._tasks_topic = agent_topic(A2A_TASKS, agent)
        self._events_topic = bus.topic(agent_topic(A2A_EVENTS, agent))
        self._events_end = events_end
        self._list = TaskList(bus, self._tasks_topic)

    async def get(self, owned: RequestPartition, request: GetTaskRequest, principal: str) -> Task:
        """A task as it stands, with the last `history_length` messages. Raises A2AError."""
        validate_history_length(request)
        task, _ = await self.find(owned, request.id, principal)
        return apply_history_length(task, request)

    async def list(self, request: ListTasksRequest, principal: str) -> ListTasksResponse:
        """A page of all tasks of a principal, the one that changed last first. Raises A2AError."""
        validate_history_length(request)
        if request.HasField("page_size"):
            validate_page_size(request.page_size)
        return await self._list.page(request, principal)

    async def subscribe(
        self, owned: RequestPartition, request: SubscribeToTaskRequest, principal: str
    ) -> StreamHead:
        """Where the stream of a task goes on. Raises A2AError if it is absent, or over."""
        head = await self.head(owned, request.id, principal)
        if head.task.status.state in TERMINAL:
            raise UnsupportedOperationError("the task is over: its stream has ended")
        return head

    async def head(self, owned: RequestPartition, task_id: str, principal: str) -> StreamHead:
        """Where the stream of a task goes on. Raises TaskNotFoundError.

        The end of the events is asked for before the task is looked at: whatever stands before
        that end, the task shows already.
        """
        offset = await self._events_end(owned.number)
        task, generation = await self.find(owned, task_id, principal)
        return StreamHead(
            task=task,
            generation=generation,
            topic=self._events_topic,
            partition=owned.number,
            offset=offset,
        )

    async def find(self, owned: RequestPartition, task_id: str, principal: str) -> tuple[Task, int]:
        """A principal's task and its generation. Raises TaskNotFoundError."""
        mark = self._snapshots.mark(task_id) or owned.memory.of_task(task_id)
        if mark is None:
            raise TaskNotFoundError
        check_owner(mark.principal, principal)
        task = self._snapshots.task(task_id)
        if task is not None:
            standing = copied(task), mark.generation
            # What is answered must outlive us: a successor would give its number to another change.
            await self._snapshots.logged(task_id)
            return standing
        value = owned.memory.value(task_id) or await self._snapshot(owned.number, task_id)
        return read_snapshot(value), mark.generation

    async def _snapshot(self, partition: int, task_id: str) -> bytes:
        """The newest snapshot of a task that is not in memory any more."""
        value = None
        async for record in read_range(self._bus, self._tasks_topic, partition):
            if record.key == task_id:
                value = record.value or value
        if value is None:
            raise TaskNotFoundError
        return value


def copied(task: Task) -> Task:
    """A task that its owner may change further."""
    copy = Task()
    copy.CopyFrom(task)
    return copy
