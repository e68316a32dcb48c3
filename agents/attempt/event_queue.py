"""Between an agent's executor and the wire: the terminal status waits until the seal is there."""

from typing import Any, Final

from a2a.server.events.event_queue import EventQueue
from a2a.types import (
    Message,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)

from odradek.agents.attempt.attempt import Attempt, Ending
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding import EXTENSION
from odradek.agents.binding.responses import INTERRUPTED, TERMINAL
from odradek.schemas.events import Outcome

STATES: Final = {
    Outcome.COMPLETED: TaskState.TASK_STATE_COMPLETED,
    Outcome.CANCELLED: TaskState.TASK_STATE_CANCELED,
}
"""What outcomes are in A2A; all others are failed tasks."""


class TerminalHold(EventQueue):
    """An event queue that passes everything but the end.

    An executor may say that its task is over before the episode is sealed. Subscribers must not
    hear it before: whoever reads "completed" may read the whole episode.

    Args:
        queue: The SDK's.
        run: Whose events these are.
        store: Counts them until they are written.
    """

    def __init__(self, queue: EventQueue, run: Attempt, store: HostTaskStore) -> None:
        self._queue = queue
        self._run = run
        self._store = store
        self.terminal_status: Any = None
        """The terminal status that the executor gave."""
        self._told = False
        """Whether the executor said anything but a message."""
        self.asks = False
        """Whether the executor's last status asks for its client's next message."""

    async def enqueue_event(self, event: Any) -> None:
        """Pass an event on, or hold it."""
        self._told = self._told or not isinstance(event, Message)
        if isinstance(event, Message):
            # The task is there already, so a bare answer becomes the message of its end.
            self._hold(TaskStatus(state=TaskState.TASK_STATE_COMPLETED, message=event))
            self._run.message = None if self._told else event
        elif isinstance(event, TaskStatusUpdateEvent):
            if event.status.state in TERMINAL:
                self._hold(event.status)
            else:
                await self._pass(event)
        elif isinstance(event, Task):
            await self._unpack(event)
        else:
            await self._send(event)

    async def _send(self, event: Any) -> None:
        self._store.passed(self._run.episode_id)
        await self._queue.enqueue_event(event)

    async def _unpack(self, task: Task) -> None:
        for artifact in task.artifacts:
            await self._send(
                TaskArtifactUpdateEvent(
                    task_id=task.id, context_id=task.context_id, artifact=artifact
                )
            )
        if task.status.state in TERMINAL:
            self._hold(task.status)
        elif task.status.state in INTERRUPTED:
            await self._pass(
                TaskStatusUpdateEvent(
                    task_id=task.id, context_id=task.context_id, status=task.status
                )
            )

    async def _pass(self, update: TaskStatusUpdateEvent) -> None:
        self.asks = update.status.state in INTERRUPTED
        await self._send(update)

    def _hold(self, status: Any) -> None:
        if self.terminal_status is None:
            self.terminal_status = TaskStatus()
            self.terminal_status.CopyFrom(status)
            if status.HasField("message"):
                self._run.last_message = self.terminal_status.message

    @property
    def _rejected(self) -> bool:
        status = self.terminal_status
        return status is not None and status.state == TaskState.TASK_STATE_REJECTED

    @property
    def verdict(self) -> Ending:
        """The end that the executor itself reported."""
        state = (
            self.terminal_status.state
            if self.terminal_status is not None
            else TaskState.TASK_STATE_COMPLETED
        )
        if state == TaskState.TASK_STATE_COMPLETED:
            return Ending(outcome=Outcome.COMPLETED)
        if state == TaskState.TASK_STATE_CANCELED:
            return Ending(outcome=Outcome.CANCELLED)
        return Ending(outcome=Outcome.FAILED, error=f"the agent said {TaskState.Name(state)}")

    async def note(self, text: str) -> None:
        """Tell subscribers that the task goes on."""
        await self._send(self._update(TaskState.TASK_STATE_WORKING, text))

    async def finish(self, verdict: Ending) -> None:
        """Let the end out."""
        state = STATES.get(verdict.outcome, TaskState.TASK_STATE_FAILED)
        if verdict.outcome is Outcome.FAILED and self._rejected:
            state = TaskState.TASK_STATE_REJECTED
        event = self._update(state, verdict.error)
        if self.terminal_status is not None and self.terminal_status.HasField("message"):
            event.status.message.CopyFrom(self.terminal_status.message)
        event.metadata.update(end_metadata(self._run, verdict))
        await self._send(event)

    def _update(self, state: Any, text: str) -> Any:
        return status_update(self._run.episode_id, self._run.context_id, state, text)


def end_metadata(run: Attempt, verdict: Ending) -> dict[str, Any]:
    """What the end of a task says of its run, as metadata."""
    return {
        EXTENSION: {
            "outcome": str(verdict.outcome),
            "attempt": run.attempt,
            "retry": run.retry,
            "captured": run.captured,
        }
    }


def status_update(task_id: str, context_id: str, state: Any, text: str) -> Any:
    """A status update event of now."""
    status = TaskStatus(state=state)
    status.timestamp.GetCurrentTime()
    if text:
        status.message.message_id = f"{task_id}/{TaskState.Name(state)}"
        status.message.role = Role.ROLE_AGENT
        status.message.parts.add(text=text)
    return TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status)
