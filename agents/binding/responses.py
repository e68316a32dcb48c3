"""Records that a host writes: stream events, task snapshots, replies and errors."""

from typing import Any, Final

import msgspec
from a2a.types import (
    Message,
    SendMessageResponse,
    StreamResponse,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import A2A_REASON_TO_ERROR, A2AError, InternalError
from google.protobuf.json_format import Parse

from odradek.agents.binding import VERSION
from odradek.agents.binding import headers as names
from odradek.agents.binding.operations import SEND
from odradek.agents.binding.requests import dump
from odradek.schemas.codec import Headers

TERMINAL: Final = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
INTERRUPTED: Final = frozenset(
    {TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED}
)
FIELDS: Final = {
    Task: "task",
    Message: "message",
    TaskStatusUpdateEvent: "status_update",
    TaskArtifactUpdateEvent: "artifact_update",
}


def stream_value(event: Any) -> bytes:
    """A Task, Message, status or artifact update as a StreamResponse."""
    return dump(StreamResponse(**{FIELDS[type(event)]: event}))


def read_stream(value: bytes) -> StreamResponse:
    """The StreamResponse in the value of a record of `a2a.events.<agent>`."""
    return Parse(value, StreamResponse(), ignore_unknown_fields=True)


def state_of(event: Any) -> Any:
    """The task state that an event tells, or None."""
    return event.status.state if isinstance(event, Task | TaskStatusUpdateEvent) else None


def event_headers(
    event: Any,
    *,
    task_id: str,
    generation: int,
    source: str,
    traceparent: str | None,
    principal: str = "",
) -> Headers:
    """Headers of an event: the binding's and CloudEvents 1.0 in binary mode.

    The event's id derives from the task and its generation, so one that is sent again is known.
    """
    state = state_of(event)
    kind = FIELDS[type(event)]
    fields = {
        names.VERSION_HEADER: VERSION,
        names.EVENT: kind,
        names.TASK_ID: task_id,
        names.STATE: TaskState.Name(state) if state is not None else "",
        names.GENERATION: str(generation),
        names.END: "1" if state in TERMINAL else "",
        names.PRINCIPAL: principal,
        "ce_specversion": "1.0",
        "ce_type": f"a2a.{kind}.v1",
        "ce_source": source,
        "ce_id": f"{task_id}/{generation}/{kind}",
        "ce_time": names.now(),
        "ce_subject": task_id,
        names.CONTENT_TYPE: "application/json",
        names.TRACEPARENT: traceparent or "",
    }
    return tuple((name, text.encode()) for name, text in fields.items() if text)


class EventHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an event's headers that its readers go by."""

    task_id: str
    generation: int
    state: str
    """The task's state, if the event tells one."""

    @property
    def ends(self) -> bool:
        """Whether a stream ends with it: its task is over, or its agent asks a question."""
        return bool(self.state) and TaskState.Value(self.state) in TERMINAL | INTERRUPTED


def read_event(headers: Any) -> EventHeaders:
    """Read an event's headers. Raises BadRequestHeader or ValueError."""
    fields = names.reserved(headers)
    return EventHeaders(
        task_id=fields.get(names.TASK_ID, ""),
        generation=int(fields.get(names.GENERATION, "0")),
        state=fields.get(names.STATE, ""),
    )


class SnapshotHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a snapshot's headers: enough for a successor to continue."""

    task_id: str
    message_id: str
    attempt: int = 1
    offset: int = 0
    """Of the request."""
    generation: int = 1
    state: int = TaskState.TASK_STATE_WORKING
    retry: bool = False
    """The attempt was given up and another one follows."""
    outcome: str = ""
    """The outcome with which the episode is being sealed."""
    children: tuple[str, ...] = ()
    """Episodes of other agents whose replies its agent had, once it is being sealed."""
    principal: str = ""
    """Whose task it is; "": of those who sign nothing."""

    @property
    def terminal(self) -> bool:
        """Whether the task is over."""
        return self.state in TERMINAL


def snapshot_headers(mark: SnapshotHeaders) -> Headers:
    """Headers of a task snapshot."""
    fields = {
        names.TASK_ID: mark.task_id,
        names.MESSAGE_ID: mark.message_id,
        names.ATTEMPT: str(mark.attempt),
        names.REQUEST_OFFSET: str(mark.offset),
        names.GENERATION: str(mark.generation),
        names.STATE: TaskState.Name(mark.state),
        names.RETRY: "1" if mark.retry else "",
        names.OUTCOME: mark.outcome,
        names.CHILDREN: ",".join(mark.children),
        names.PRINCIPAL: mark.principal,
        names.CONTENT_TYPE: "application/json",
    }
    return tuple((name, text.encode()) for name, text in fields.items() if text)


def read_mark(headers: Any) -> SnapshotHeaders:
    """Read a snapshot's headers. Raises BadRequestHeader or ValueError."""
    fields = names.reserved(headers)
    return SnapshotHeaders(
        task_id=fields[names.TASK_ID],
        message_id=fields.get(names.MESSAGE_ID, ""),
        attempt=int(fields.get(names.ATTEMPT, "1")),
        offset=int(fields.get(names.REQUEST_OFFSET, "0")),
        generation=int(fields.get(names.GENERATION, "1")),
        state=TaskState.Value(fields[names.STATE]),
        retry=fields.get(names.RETRY) == "1",
        outcome=fields.get(names.OUTCOME, ""),
        children=tuple(filter(None, fields.get(names.CHILDREN, "").split(","))),
        principal=fields.get(names.PRINCIPAL, ""),
    )


def snapshot_value(task: Task) -> bytes:
    """A task snapshot."""
    return dump(task)


def read_snapshot(value: bytes) -> Task:
    """The task in a snapshot."""
    return Parse(value, Task(), ignore_unknown_fields=True)


class StreamHead(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream of a task's events begins.

    Its reader shows the task, then reads events from `offset` on, and leaves out those of other
    tasks and those up to `generation`, which the task shows already. So none is missed, and none
    is seen twice.
    """

    task: Any
    """The A2A Task as it stands."""
    generation: int
    """The task's."""
    topic: str
    """Of the events, with prefix."""
    partition: int
    offset: int

    def headers(self) -> dict[str, str]:
        """Its fields as headers of the reply."""
        return {
            names.EVENTS_TOPIC: self.topic,
            names.EVENTS_PARTITION: str(self.partition),
            names.EVENTS_OFFSET: str(self.offset),
            names.GENERATION: str(self.generation),
        }


def reply(operation: str, result: Any) -> bytes:
    """The value of the reply to an operation: SendMessage's names what it holds."""
    if operation == SEND:
        kind = "message" if isinstance(result, Message) else "task"
        return dump(SendMessageResponse(**{kind: result}))
    return stream_value(result.task) if isinstance(result, StreamHead) else dump(result)


def error(problem: Exception) -> tuple[int, bytes]:
    """Status and value of an error: the HTTP+JSON error object of A2A."""
    payload = build_rest_error_payload(problem)
    return int(payload["error"]["code"]), msgspec.json.encode(payload)


def read_error(value: bytes) -> A2AError:
    """The error in the value of a reply: A2A's own where it names one."""
    try:
        error = msgspec.json.decode(value, type=_ErrorReply).error
    except msgspec.DecodeError:
        return InternalError("the reply is an error that cannot be read")
    reasons = (detail.get("reason") for detail in error.details)
    kind = next((A2A_REASON_TO_ERROR[str(r)] for r in reasons if r in A2A_REASON_TO_ERROR), None)
    return (kind or InternalError)(error.message)


class _Error(msgspec.Struct):
    message: str = ""
    details: list[dict[str, Any]] = []


class _ErrorReply(msgspec.Struct):
    error: _Error


def reply_headers(
    called: names.RequestHeaders, status: int, head: StreamHead | None = None
) -> Headers:
    """Headers of the one and only part of a reply."""
    fields = {
        names.VERSION_HEADER: VERSION,
        names.CORRELATION: called.correlation_id,
        names.STATUS: str(status),
        names.SEQ: "0",
        names.END: "1",
        names.CONTENT_TYPE: "application/json",
        names.TRACEPARENT: called.traceparent or "",
        **(head.headers() if head is not None else {}),
    }
    return tuple((name, text.encode()) for name, text in fields.items() if text)
