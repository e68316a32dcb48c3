"""Events of a task at another agent as those of ours."""

from typing import Any, Final

from a2a.types import (
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from odradek.agents.binding import MODEL
from odradek.agents.binding.responses import INTERRUPTED, TERMINAL

UNSAID: Final = frozenset({TaskState.TASK_STATE_UNSPECIFIED, TaskState.TASK_STATE_SUBMITTED})
"""States that say nothing new of a task that is being worked at here."""


class EventRelay:
    """Passes events on under our task's ids, and remembers which task is theirs.

    It is remembered in our task's metadata as well, so that another host, to which a task went that
    waits, goes on with it.

    Args:
        context: The SDK's, of our task.
        queue: Ours.

    Attributes:
        task_id: Theirs; "" until they have said it.
        context_id: Theirs.
        heard: Whether they took our message, and which task it is is known.
        over: Whether they are done, or ask.
    """

    def __init__(self, context: Any, queue: Any) -> None:
        self._ours = {"task_id": context.task_id, "context_id": context.context_id}
        self._queue = queue
        self._artifacts: set[str] = set()
        task = context.current_task
        kept = dict(task.metadata).get(MODEL) if task is not None else None
        known = dict(kept) if kept is not None else {}
        self.task_id = str(known.get("task_id", ""))
        self.context_id = str(known.get("context_id", ""))
        if task is not None:
            self._artifacts.update(artifact.artifact_id for artifact in task.artifacts)
        self.heard = False
        self.over = False

    async def take(self, response: StreamResponse) -> None:
        """Pass an event on."""
        match response.WhichOneof("payload"):
            case "message":
                status = TaskStatus(state=TaskState.TASK_STATE_COMPLETED, message=response.message)
                await self._status(status)
            case "task":
                await self._task(response.task)
            case "artifact_update":
                update = response.artifact_update
                await self._artifact(update.artifact, update.append, update.last_chunk)
            case "status_update":
                update = response.status_update
                self._note(update.task_id, update.context_id)
                await self._status(update.status)

    async def _task(self, task: Task) -> None:
        self._note(task.id, task.context_id)
        for artifact in task.artifacts:
            await self._artifact(artifact, append=False, last=True)
        if task.status.state in TERMINAL | INTERRUPTED:
            await self._status(task.status)

    async def _artifact(self, artifact: Any, append: bool, last: bool) -> None:
        # A chunk of what never began would be refused by our own server.
        append = append and artifact.artifact_id in self._artifacts
        self._artifacts.add(artifact.artifact_id)
        await self._queue.enqueue_event(
            TaskArtifactUpdateEvent(**self._ours, artifact=artifact, append=append, last_chunk=last)
        )

    async def _status(self, status: TaskStatus) -> None:
        self.over = status.state in TERMINAL | INTERRUPTED
        if status.state in UNSAID:
            return
        event = TaskStatusUpdateEvent(**self._ours, status=status)
        if status.HasField("message"):
            event.status.message.task_id = self._ours["task_id"]
            event.status.message.context_id = self._ours["context_id"]
        if status.state in INTERRUPTED:
            event.metadata.update({MODEL: {"task_id": self.task_id, "context_id": self.context_id}})
        await self._queue.enqueue_event(event)

    def _note(self, task_id: str, context_id: str) -> None:
        self.heard = True
        self.task_id = task_id or self.task_id
        self.context_id = context_id or self.context_id
