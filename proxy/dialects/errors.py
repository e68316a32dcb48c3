"""Errors in the words of OpenAI, of Anthropic and of Google."""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from odradek.proxy.errors import ProxyError
from odradek.proxy.wire import body as bodies

ANTHROPIC: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Their types by status; others are the caller's or theirs by the first digit."""


GOOGLE: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    431: "INVALID_ARGUMENT",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Their statuses by that of HTTP; others are the caller's or theirs by the first digit."""
RPC: Final = "type.googleapis.com/google.rpc"


def openai(error: ProxyError) -> bytes:
    """The body that OpenAI's clients expect."""
    fields = {
        "message": str(error),
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return msgspec.json.encode({"error": fields})


def openai_of(body: bytes, status: int) -> bytes:
    """The engine's answer, in that shape if it has another."""
    if is_openai(body):
        return body
    kind = "invalid_request_error" if 400 <= status < 500 else "api_error"
    message = bodies.error_of(body, status)
    fields = {"message": message, "type": kind, "param": None, "code": None}
    return msgspec.json.encode({"error": fields})


def is_openai(body: bytes) -> bool:
    """Whether a body, or an event's data, is an error in that shape."""
    try:
        parsed = msgspec.json.decode(body, type=_Wrong)
    except bodies.UNREADABLE:
        return False
    message = parsed.error.get("message") if isinstance(parsed.error, dict) else None
    return isinstance(message, str) and parsed.choices is UNSET


class _Wrong(Struct):
    error: Any = None
    choices: Raw | UnsetType = UNSET
    """An error in a chunk that has some is more than an error."""


def anthropic(error: ProxyError) -> bytes:
    """The body that Anthropic's clients expect."""
    return _anthropic(error.status, str(error))


def anthropic_of(body: bytes, status: int) -> bytes:
    """The same from the engine's answer."""
    return _anthropic(status, bodies.error_of(body, status))


def _anthropic(status: int, message: str) -> bytes:
    rest = "invalid_request_error" if 400 <= status < 500 else "api_error"
    kind = ANTHROPIC.get(status, rest)
    return msgspec.json.encode(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}
    )


def google(error: ProxyError) -> bytes:
    """The body that Google's clients expect."""
    details: list[dict[str, Any]] = [
        {"@type": f"{RPC}.ErrorInfo", "reason": error.code, "domain": "odradek"}
    ]
    if error.param is not None:
        field = {"field": error.param, "description": str(error)}
        details.append({"@type": f"{RPC}.BadRequest", "fieldViolations": [field]})
    if error.retriable:
        details.append({"@type": f"{RPC}.RetryInfo", "retryDelay": f"{error.retry_after_s}s"})
    return _google(error.status, str(error), details)


def google_of(body: bytes, status: int) -> bytes:
    """The same from the engine's answer."""
    return _google(status, bodies.error_of(body, status), [])


def _google(status: int, message: str, details: list[dict[str, Any]]) -> bytes:
    rest = "INVALID_ARGUMENT" if 400 <= status < 500 else "INTERNAL"
    fields = {
        "code": status,
        "message": message,
        "status": GOOGLE.get(status, rest),
        "details": details,
    }
    return msgspec.json.encode({"error": fields})
