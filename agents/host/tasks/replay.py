"""What a task is: its last snapshot, and the events behind it."""

from contextlib import suppress

import msgspec
from a2a.server.tasks.task_manager import append_artifact_to_task
from a2a.types import Role, StreamResponse, Task, TaskState
from a2a.utils.errors import InvalidAgentResponseError

from odradek.agents.binding.responses import SnapshotHeaders, read_snapshot, read_stream

AGAIN = "begun again: its host went away while it was working"


class LeftTask(msgspec.Struct):
    """A task that a predecessor did not end."""

    mark: SnapshotHeaders
    """Of its snapshot; its generation and state are those of the last event that was taken."""
    snapshot: bytes
    begun_at: float
    """When its first snapshot was written, in Unix seconds."""
    task: Task | None = None
    """As its snapshot and the events that were taken have it; made when it is needed."""

    def take(self, generation: int, value: bytes) -> None:
        """Change it as an event says; one that its snapshot or another event has told is left."""
        if generation <= self.mark.generation:
            return
        task = self.standing()
        apply(task, read_stream(value))
        self.mark = msgspec.structs.replace(
            self.mark, generation=generation, state=task.status.state
        )

    def standing(self) -> Task:
        """The task as it stands."""
        if self.task is None:
            self.task = read_snapshot(self.snapshot)
        return self.task


def apply(task: Task, event: StreamResponse) -> None:
    """Change a task as an event of its stream says (A2A section 4.2), as the SDK's server does."""
    match event.WhichOneof("payload"):
        case "task":
            task.CopyFrom(event.task)
        case "artifact_update":
            # The end of an artifact without its beginning says nothing.
            with suppress(InvalidAgentResponseError):
                append_artifact_to_task(task, event.artifact_update)
        case "status_update":
            update = event.status_update
            if task.status.HasField("message"):
                task.history.append(task.status.message)
            if update.metadata:
                task.metadata.MergeFrom(update.metadata)
            task.status.CopyFrom(update.status)


def begun_again(left: LeftTask) -> Task:
    """A task as it was when its agent got its last message: what came of that since is void."""
    task = read_snapshot(left.snapshot)
    if task.status.HasField("message"):
        task.history.append(task.status.message)
    task.status.Clear()
    task.status.state = TaskState.TASK_STATE_WORKING
    task.status.timestamp.GetCurrentTime()
    message = task.status.message
    message.message_id = f"{task.id}/again/{left.mark.attempt + 1}"
    message.role = Role.ROLE_AGENT
    message.parts.add(text=AGAIN)
    return task


def messages_of(task: Task) -> list[str]:
    """Ids of the messages of its client, in their order; the first is the one that began it."""
    later = (message for message in task.history[1:] if message.role == Role.ROLE_USER)
    return [message.message_id for message in (*task.history[:1], *later)]
