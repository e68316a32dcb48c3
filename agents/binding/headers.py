"""The reserved headers of the binding: lower case, prefix `a2a-`, each at most once."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from odradek.agents.binding import VERSION
from odradek.agents.errors import BadRequestHeader
from odradek.schemas.codec import Headers

PREFIX: Final = "a2a-"
VERSION_HEADER: Final = "a2a-version"
EXTENSIONS: Final = "a2a-extensions"
OPERATION: Final = "a2a-operation"
CORRELATION: Final = "a2a-correlation-id"
REPLY_TOPIC: Final = "a2a-reply-topic"
REPLY_PARTITION: Final = "a2a-reply-partition"
DEADLINE: Final = "a2a-deadline"
TENANT: Final = "a2a-tenant"
STATUS: Final = "a2a-status"
SEQ: Final = "a2a-seq"
END: Final = "a2a-end"
TASK_ID: Final = "a2a-task-id"
EVENT: Final = "a2a-event"
STATE: Final = "a2a-state"
GENERATION: Final = "a2a-generation"
MESSAGE_ID: Final = "a2a-message-id"
REQUEST_OFFSET: Final = "a2a-request-offset"
ATTEMPT: Final = "a2a-attempt"
RETRY: Final = "a2a-retry"
OUTCOME: Final = "a2a-outcome"
CHILDREN: Final = "a2a-children"
ASSERTION: Final = "a2a-assertion"
PRINCIPAL: Final = "a2a-principal"
WEBHOOK: Final = "a2a-webhook"
EVENTS_TOPIC: Final = "a2a-events-topic"
EVENTS_PARTITION: Final = "a2a-events-partition"
EVENTS_OFFSET: Final = "a2a-events-offset"
CONTENT_TYPE: Final = "content-type"
TRACEPARENT: Final = "traceparent"
JSON: Final = b"application/json"

SINGLE: Final = frozenset({CONTENT_TYPE, TRACEPARENT, "authorization"})
"""Headers without the prefix that must not be doubled either."""


class RequestHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a request's headers."""

    operation: str
    version: str = VERSION
    extensions: tuple[str, ...] = ()
    correlation_id: str = ""
    reply_topic: str = ""
    reply_partition: int = 0
    deadline: float | None = None
    """Unix seconds after which nobody waits for the answer."""
    tenant: str = ""
    traceparent: str | None = None
    assertion: str = ""
    """What its producer signed (`odradek.agents.trust`)."""
    principal: str = ""
    """Who asks, as its assertion was verified to say; no header of a request. "": nobody signed."""
    may_sample: bool = True
    """Whether it may be a sample of a training task; no header either."""
    history_length: int | None = None
    """How many of a task's messages its answer shows, as the body says; None: all of them."""

    def expired(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline


def reserved(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """The reserved headers of a record, each once.

    Raises BadRequestHeader for one that is doubled or is no UTF-8: whoever reads the first and
    whoever reads the last must not understand different things.
    """
    fields: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if not (lower.startswith(PREFIX) or lower in SINGLE):
            continue
        if lower in fields:
            raise BadRequestHeader("duplicate_header", f"{lower} stands there twice")
        try:
            fields[lower] = (value or b"").decode()
        except UnicodeDecodeError:
            raise BadRequestHeader("bad_header", f"{lower} is no UTF-8") from None
    return fields


def read(headers: Iterable[tuple[str, bytes | None]]) -> RequestHeaders:
    """Read a request's headers. Raises BadRequestHeader."""
    fields = reserved(headers)
    operation = fields.get(OPERATION, "")
    if not operation:
        raise BadRequestHeader("no_operation", f"{OPERATION} is missing")
    version = fields.get(VERSION_HEADER, "")
    if version.split(".")[0] != VERSION.split(".", maxsplit=1)[0]:
        # An absent version means 0.3 (A2A section 3.6.2), which this binding does not speak.
        raise BadRequestHeader("bad_version", f"not A2A version {VERSION}")
    return RequestHeaders(
        operation=operation,
        version=version,
        extensions=tuple(part.strip() for part in fields.get(EXTENSIONS, "").split(",") if part),
        correlation_id=fields.get(CORRELATION, ""),
        reply_topic=fields.get(REPLY_TOPIC, ""),
        reply_partition=_number(fields, REPLY_PARTITION),
        deadline=_moment(fields[DEADLINE]) if DEADLINE in fields else None,
        tenant=fields.get(TENANT, ""),
        traceparent=fields.get(TRACEPARENT),
        assertion=fields.get(ASSERTION, ""),
    )


def write(called: RequestHeaders) -> Headers:
    """The headers of a request."""
    fields = {
        OPERATION: called.operation,
        VERSION_HEADER: called.version,
        EXTENSIONS: ",".join(called.extensions),
        CORRELATION: called.correlation_id,
        REPLY_TOPIC: called.reply_topic,
        REPLY_PARTITION: str(called.reply_partition) if called.reply_topic else "",
        DEADLINE: stamp(called.deadline) if called.deadline is not None else "",
        TENANT: called.tenant,
        TRACEPARENT: called.traceparent or "",
    }
    pairs = tuple((name, text.encode()) for name, text in fields.items() if text)
    return (*pairs, (CONTENT_TYPE, JSON))


def stamp(moment: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def now() -> str:
    """The present as RFC 3339 in UTC."""
    return stamp(time.time())


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestHeader("bad_header", f"{DEADLINE} is no RFC 3339 time") from None
    if moment.tzinfo is None:
        raise BadRequestHeader("bad_header", f"{DEADLINE} names no time zone")
    return moment.timestamp()


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequestHeader("bad_header", f"{name} is no number")
    return int(text)
