"""Ask an agent and have its answer as Python values, or ask several at once.

What one agent's code needs to talk to another: a request, its reply, and a name for each way in
which there may be none. Inside a rollout `Rollout.ask` does the same, and what the other agent does
becomes part of the sample.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
from a2a.client.errors import A2AClientTimeoutError
from a2a.utils.errors import A2AError

from odradek.agents.binding import EXTENSION
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.operations import SEND
from odradek.agents.binding.parts import ProtoPart, value_of
from odradek.agents.binding.requests import ask_value
from odradek.agents.client.connection import KafkaConnection, ReceivedReply
from odradek.agents.errors import AskError, AskFailed, AskLost, AskTimeout
from odradek.agents.rollout import Answer, Ask
from odradek.schemas.events import Outcome

TIMEOUT_S: Final = 600.0
"""How long an answer is waited for where nobody says: an agent may work that long."""
LOST: Final = frozenset({Outcome.HOST_LOST, Outcome.UPSTREAM_FAILED, Outcome.INCOMPLETE})

Asking = Callable[[Ask], Awaitable[Answer]]


class _Message(msgspec.Struct, frozen=True):
    parts: list[ProtoPart] = []


class _Status(msgspec.Struct, frozen=True):
    state: str = ""
    message: _Message | None = None


class _Artifact(msgspec.Struct, frozen=True):
    parts: list[ProtoPart] = []


class _Ended(msgspec.Struct, frozen=True):
    """What a host of ours adds to the end of a task."""

    outcome: str = ""
    captured: bool = False


class _Metadata(msgspec.Struct, frozen=True):
    ended: _Ended = msgspec.field(default=_Ended(), name=EXTENSION)


class _Task(msgspec.Struct, frozen=True):
    id: str = ""
    status: _Status = _Status()
    artifacts: list[_Artifact] = []
    metadata: _Metadata = _Metadata()


class _Reply(msgspec.Struct, frozen=True):
    task: _Task | None = None
    message: _Message | None = None


_decoder: Final = msgspec.json.Decoder(_Reply, strict=False)


async def ask(
    connection: KafkaConnection, agent: str, message: Any, *, timeout_s: float = TIMEOUT_S
) -> Answer:
    """Ask an agent and await its answer.

    Args:
        connection: The process's place on the bus.
        agent: Whom, by name.
        message: A string, or what JSON can hold.
        timeout_s: After so long nobody waits for the answer, nor does the agent begin.

    Raises:
        AskTimeout: No answer came in time.
        AskFailed: The agent failed, refused the message, or asks a question in return.
        AskLost: What it runs on was lost, as often as it was tried.
        BusError: The log took no request, or replies cannot be read any more.
    """
    message_id = str(uuid.uuid4())
    value = ask_value(message_id, message, None)
    return await exchange(connection, agent, value, key=message_id, timeout_s=timeout_s)


async def ask_all(
    connection: KafkaConnection, asks: Iterable[Ask | tuple[str, Any]]
) -> list[Answer | AskError]:
    """Ask several agents at once; an answer or an error for each, in the order of the asks.

    Args:
        connection: The process's place on the bus.
        asks: Each an `Ask`, or agent and message.

    Raises BusError, and nothing else: one agent's failure is no other's.
    """

    async def asking(one: Ask) -> Answer:
        wait_s = TIMEOUT_S if one.timeout_s is None else one.timeout_s
        return await ask(connection, one.agent, one.message, timeout_s=wait_s)

    return await fan_out(asking, asks)


async def fan_out(asking: Asking, asks: Iterable[Ask | tuple[str, Any]]) -> list[Answer | AskError]:
    """Ask by a function, all at once; if that is cancelled, so is each that has no answer yet."""

    async def outcome(one: Ask) -> Answer | AskError:
        try:
            return await asking(one)
        except AskError as error:
            return error

    chosen = [one if isinstance(one, Ask) else Ask(*one) for one in asks]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(one)) for one in chosen]
    return [task.result() for task in tasks]


async def exchange(
    connection: KafkaConnection,
    agent: str,
    value: bytes,
    *,
    key: str,
    timeout_s: float,
    grace_s: float = 0.0,
    traceparent: str | None = None,
) -> Answer:
    """Send a request that `ask_value` made, and read its reply. Raises as `ask` does.

    Args:
        connection: The process's place on the bus.
        agent: Whom, by name.
        value: The request.
        key: The message's id.
        timeout_s: How long the agent has.
        grace_s: How much longer its reply is waited for.
        traceparent: W3C trace context.
    """
    called = RequestHeaders(operation=SEND, extensions=(EXTENSION,), traceparent=traceparent)
    try:
        reply = await connection.call(
            agent, called, value, key=key, timeout_s=timeout_s, grace_s=grace_s
        )
    except A2AClientTimeoutError as error:
        raise AskTimeout(agent, str(error)) from None
    except A2AError as error:
        raise AskFailed(agent, f"{type(error).__name__}: {error}") from None
    return answer_of(agent, reply)


def answer_of(agent: str, reply: ReceivedReply) -> Answer:
    """The answer in a reply. Raises AskFailed, AskLost."""
    try:
        body = _decoder.decode(reply.value)
        if body.task is None:
            return Answer(agent, value_of(body.message.parts if body.message else []))
        task, status = body.task, body.task.status
        said = value_of(status.message.parts) if status.message else None
        if said is None:
            said = value_of([part for artifact in task.artifacts for part in artifact.parts])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AskFailed(agent, f"its reply cannot be read: {error}") from None
    ended = task.metadata.ended
    if status.state == "TASK_STATE_COMPLETED":
        return Answer(agent, said, task.id, ended.captured)
    episode = task.id if ended.captured else ""
    why = f"{ended.outcome or status.state}: {said or 'it gave no reason'}"
    if ended.outcome in LOST:
        raise AskLost(agent, why, episode)
    raise AskFailed(agent, why, episode)
