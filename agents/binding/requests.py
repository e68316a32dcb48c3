"""Requests of the binding, there and back."""

import uuid
from typing import Annotated, Any, Final

import msgspec
from a2a.types import CancelTaskRequest, SendMessageRequest
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from msgspec import Raw, Struct

from odradek.agents.binding import EXTENSION
from odradek.agents.binding.headers import RequestHeaders, read, write
from odradek.agents.binding.operations import OPERATIONS, SEND
from odradek.agents.binding.parts import ProtoPart, part_of
from odradek.agents.errors import BadRequestBody
from odradek.infra.bus import Record
from odradek.schemas.codec import Headers, check_depth, check_text, unquoted
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import ChildReward, Count, Name, Purpose, Timeouts
from odradek.schemas.topics import MB

LARGEST: Final = 1 * MB
LONGEST_S: Final = 366 * 24 * 3600.0
ROLES: Final = frozenset({"ROLE_USER", "ROLE_AGENT"})
PLAIN: Final = frozenset({"returnImmediately", "historyLength", "acceptedOutputModes"})
"""Parts of a request's configuration that have no required parts of their own."""
PUSH: Final = frozenset({"taskPushNotificationConfig", "task_push_notification_config"})
"""ProtoJSON reads a field by either name."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""What protobuf's int32 holds."""


class SampleAddress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The extension's metadata: which sample of which task a message asks for."""

    task_id: Name
    sample: Count = 0
    group_size: Count = 1
    attempt: Count = 1
    max_attempts: Count = 0
    """0: as the host is set."""
    purpose: Purpose = "train"
    item: str = ""
    rewards: dict[str, float] = {}
    failure_reward: float = 0.0
    timeouts: Timeouts = Timeouts()
    sampling: dict[str, Any] = {}
    model: str = ""
    answers: list[Any] = []
    """To the questions of the agent, in their order."""
    simulator: str = ""
    """An agent that answers its further questions."""
    children: dict[str, ChildReward] = {}
    parent: str = ""
    """The episode whose agent sends the message: its episode is that one's child."""
    agents: tuple[str, ...] = ()
    """Of a child: who asked whom, from the sample's agent to the one that asks now."""
    own_weight: float = 0.0
    parent_weight: float = 1.0


class _Metadata(Struct, frozen=True):
    rollout: SampleAddress | None = msgspec.field(default=None, name=EXTENSION)


class _Message(Struct, frozen=True, rename="camel"):
    message_id: Name
    parts: list[ProtoPart] = []
    metadata: _Metadata = _Metadata()
    role: str = ""
    task_id: str = ""
    context_id: str = ""


class _Send(Struct, frozen=True):
    message: _Message
    configuration: dict[str, Raw] = {}


# Not strict: clients that write by protobuf's Struct write every number as a float, 2 as 2.0.
_send_decoder: Final = msgspec.json.Decoder(_Send, strict=False)


class Send(Struct, frozen=True, kw_only=True):
    """A SendMessage request as a host works with it."""

    message_id: str
    sample: SampleAddress | None
    """None: a message that belongs to no task."""
    input: Raw
    input_value: Any
    """The input as Python values."""
    value: bytes
    """The request as it came; `proto()` parses it afresh, since the SDK writes into it."""
    task_id: str = ""
    context_id: str = ""
    plain: bool = False
    """Whether everything that A2A requires was seen to be there."""
    media_types: tuple[str, ...] = ()
    """Of its parts."""
    at_once: bool = False
    """Whether its client waits for no end: it gets the task as soon as that has begun."""
    history_length: int | None = None
    """How many of the task's messages its client wants to see; None: all of them."""
    push: bytes = b""
    """The push notification config that came with it, as ProtoJSON; empty for none."""

    def proto(self) -> SendMessageRequest:
        """The SDK's message. Raises BadRequestBody."""
        return _parse(self.value, SendMessageRequest)


def send(
    record: Record,
) -> Send:
    """The SendMessage request in a record's value.

    The task's input is taken from the JSON itself: protobuf's Struct would turn every number into
    a float, and 2**53 + 1 into another number.

    Raises BadRequestBody.
    """
    value = _bounded(record)
    try:
        body = _send_decoder.decode(value)
        # A Raw field is not looked into while it is decoded, so its text may still be none.
        values = [part.value() for part in body.message.parts]
        history_length = _history_length(body.configuration)
    except msgspec.ValidationError as error:
        raise BadRequestBody("bad_schema", unquoted(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestBody("not_json", unquoted(error)) from None
    message = body.message
    _check_times(message.metadata.rollout)
    return Send(
        message_id=message.message_id,
        sample=message.metadata.rollout,
        input_value=values[0] if len(values) == 1 else values or None,
        input=_input(body.message.parts, values),
        value=value,
        task_id=message.task_id,
        context_id=message.context_id,
        plain=message.role in ROLES and bool(message.parts) and PLAIN >= set(body.configuration),
        media_types=tuple(part.type for part in message.parts),
        at_once=bytes(body.configuration.get("returnImmediately", b"")) == b"true",
        history_length=history_length,
        push=next((bytes(body.configuration[key]) for key in PUSH & set(body.configuration)), b""),
    )


def _history_length(configuration: dict[str, Raw]) -> int | None:
    given = configuration.get("historyLength", configuration.get("history_length"))
    return None if given is None else msgspec.json.decode(given, type=_Int32 | None, strict=False)


def _input(parts: list[ProtoPart], values: list[Any]) -> Raw:
    """A message's parts as a task's input: the only one itself, several as a list.

    Data passes as it stands.
    """
    inputs = [
        part.data if part.is_data else Raw(msgspec.json.encode(value))
        for part, value in zip(parts, values, strict=True)
    ]
    if len(inputs) == 1:
        return inputs[0]
    return Raw(msgspec.json.encode(inputs or None))


def _check_times(sample: SampleAddress | None) -> None:
    """Raise BadRequestBody for timeouts that no clock can count to."""
    if sample is None:
        return
    for name in sample.timeouts.__struct_fields__:
        if getattr(sample.timeouts, name) > LONGEST_S:
            raise BadRequestBody("bad_schema", f"timeouts.{name} is more than a year")


def parse(record: Record, operation: str) -> Any:
    """The protobuf message of an operation in a record's value. Raises BadRequestBody."""
    row = OPERATIONS[operation]
    body = _parse(_bounded(record), row.request)
    if row.task and "." not in row.task and not getattr(body, row.task):
        raise BadRequestBody("bad_schema", "no task id")
    return body


def called(record: Record) -> RequestHeaders:
    """Read a request's headers. Raises BadRequestHeader."""
    return read(record.headers)


def send_value(
    message_id: str, task_input: Raw, sample: SampleAddress, context_id: str = ""
) -> bytes:
    """A SendMessage request with a task's input, as ProtoJSON.

    Written by msgspec, so that the input passes as it stands; a test holds it against the SDK.
    """
    message: dict[str, Any] = {
        "messageId": message_id,
        "role": "ROLE_USER",
        "parts": [{"data": task_input}],
        "extensions": [EXTENSION],
        "metadata": {EXTENSION: sample},
    }
    if context_id:
        message["contextId"] = context_id
    return msgspec.json.encode({"message": message, "configuration": {"returnImmediately": True}})


def ask_value(message_id: str, message: Any, sample: SampleAddress | None) -> bytes:
    """A SendMessage request of one agent to another, as ProtoJSON; its reply is the task's end.

    Args:
        message_id: Of the message.
        message: A string, or what JSON can hold.
        sample: Where the episode belongs that is asked for; None: to nothing.

    Raises TypeError for what JSON cannot hold.
    """
    fields: dict[str, Any] = {
        "messageId": message_id,
        "role": "ROLE_USER",
        "parts": [part_of(message)],
    }
    if sample is not None:
        fields |= {"extensions": [EXTENSION], "metadata": {EXTENSION: sample}}
    return msgspec.json.encode({"message": fields})


def send_headers(*, deadline: float | None, traceparent: str | None) -> Headers:
    """The headers of a SendMessage request that asks for no reply."""
    return write(
        RequestHeaders(
            operation=SEND,
            extensions=(EXTENSION,),
            correlation_id=str(uuid.uuid4()),
            deadline=deadline,
            traceparent=traceparent,
        )
    )


def cancel_value(task_id: str) -> bytes:
    """A CancelTask request."""
    return dump(CancelTaskRequest(id=task_id))


def dump(message: Any) -> bytes:
    """A protobuf message as ProtoJSON."""
    text: str = MessageToJson(message, indent=None, ensure_ascii=False)
    return text.encode()


def _bounded(record: Record) -> bytes:
    value = record.value
    if value is None:
        raise BadRequestBody("tombstone", "the record has no value")
    if len(value) > LARGEST:
        raise BadRequestBody("too_large", f"{len(value)} bytes, at most {LARGEST}")
    try:
        check_depth(value)
        check_text(value)
    except InvalidRecord as error:
        raise BadRequestBody(error.reason, error.detail) from None
    return value


def _parse(value: bytes, kind: Any) -> Any:
    try:
        return Parse(value, kind(), ignore_unknown_fields=True)
    # ValueError: a number beyond its type, or text that no UTF-8 can hold. Its words quote what
    # was sent, so they are not handed on.
    except (ParseError, ValueError, RecursionError):
        name = kind.DESCRIPTOR.name
        raise BadRequestBody("bad_schema", f"it is no {name} in ProtoJSON") from None
