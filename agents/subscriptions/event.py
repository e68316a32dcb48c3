"""An event of an agent, as subscribers get it."""

from typing import Any

import msgspec
from a2a.types import TaskState

from odradek.agents.binding import headers as names
from odradek.agents.binding.responses import read_event, read_stream
from odradek.agents.errors import BadRequestHeader, UnknownState
from odradek.agents.subscriptions.position import EventPosition
from odradek.infra.bus import Record
from odradek.schemas.codec import header

STATE: str = "TASK_STATE_"


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an agent's task."""

    task_id: str
    generation: int
    """1 for the task's first event, one more for each next one."""
    kind: str
    """`task`, `message`, `status_update` or `artifact_update`."""
    state: str
    """The task's state, such as `completed`, where the event tells one; else ""."""
    value: bytes
    """The StreamResponse as it is on the topic, ProtoJSON."""
    principal: str
    """Whose task it is; "": nobody in particular."""
    position: EventPosition
    """Behind this event: `subscribe(…, since=event.position)` goes on with the next one."""

    @property
    def json(self) -> Any:
        """The StreamResponse as dictionaries."""
        return msgspec.json.decode(self.value)

    @property
    def response(self) -> Any:
        """The StreamResponse as the A2A SDK's message."""
        return read_stream(self.value)


class EventSelection:
    """Which events are wanted.

    Args:
        states: Task states, as people write them; none for all events.
        task_id: Only of this task; "" for all tasks.
        principal: Only of this principal's tasks; None for all.

    Raises:
        UnknownState: A state is none of A2A's.
    """

    def __init__(
        self, states: "tuple[str, ...]" = (), task_id: str = "", principal: str | None = None
    ) -> None:
        self._states = frozenset(state_name(state) for state in states)
        self._task_id = task_id
        self._principal = principal

    def event(self, record: Record, position: EventPosition) -> AgentEvent | None:
        """The event in a record, if it is wanted.

        Not what is no event of ours, nor a dead letter that was sent again to one webhook.
        """
        if self._task_id and record.key != self._task_id:
            return None
        try:
            told = read_event(record.headers)
        except (BadRequestHeader, ValueError):
            return None
        if self._states and told.state not in self._states:
            return None
        principal = header(record.headers, names.PRINCIPAL) or ""
        if self._principal is not None and principal != self._principal:
            return None
        if record.value is None or header(record.headers, names.WEBHOOK) is not None:
            return None
        return AgentEvent(
            task_id=told.task_id,
            generation=told.generation,
            kind=header(record.headers, names.EVENT) or "",
            state=told.state.removeprefix(STATE).lower().replace("_", "-"),
            value=record.value,
            principal=principal,
            position=position,
        )


def state_name(text: str) -> str:
    """A2A's name of a task state that a person wrote: `completed`, `INPUT-REQUIRED`.

    Raises UnknownState, which lists the names.
    """
    name = STATE + text.strip().upper().replace("-", "_").removeprefix(STATE)
    states = list(TaskState.keys())
    if name not in states[1:]:
        words = [each.removeprefix(STATE).lower().replace("_", "-") for each in states[1:]]
        raise UnknownState(f"no task state {text!r}: there are {', '.join(words)}")
    return name
