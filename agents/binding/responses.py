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
from google.protobuf.json_format import Parse

from odradek.agents.binding import VERSION
from odradek.agents.binding import headers as names
from odradek.agents.binding.requests import CANCEL, dump
from odradek.schemas.codec import Headers

TERMINAL: Final = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
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
    event: Any, *, task_id: str, generation: int, source: str, traceparent: str | None
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
    )


def snapshot_value(task: Task) -> bytes:
    """A task snapshot."""
    return dump(task)


def read_snapshot(value: bytes) -> Task:
    """The task in a snapshot."""
    return Parse(value, Task(), ignore_unknown_fields=True)


def reply(operation: str, result: Any) -> tuple[int, bytes]:
    """Status and value of the reply to an operation: CancelTask is answered with the bare Task."""
    if operation == CANCEL:
        return 200, dump(result)
    if isinstance(result, Message):
        return 200, dump(SendMessageResponse(message=result))
    return 200, dump(SendMessageResponse(task=result))


def error(problem: Exception) -> tuple[int, bytes]:
    """Status and value of an error: the HTTP+JSON error object of A2A."""
    payload = build_rest_error_payload(problem)
    return int(payload["error"]["code"]), msgspec.json.encode(payload)


def reply_headers(called: names.RequestHeaders, status: int) -> Headers:
    """Headers of the one and only part of a reply."""
    fields = {
        names.VERSION_HEADER: VERSION,
        names.CORRELATION: called.correlation_id,
        names.STATUS: str(status),
        names.SEQ: "0",
        names.END: "1",
        names.CONTENT_TYPE: "application/json",
        names.TRACEPARENT: called.traceparent or "",
    }
    return tuple((name, text.encode()) for name, text in fields.items() if text)
