"""Records that were written before the names of release 0.1.0, recognised by the names in them.

Readers ignore fields that they do not know, so a log of that time would not fail: its facts would
be missing. Nothing of it is read, therefore; see `odradek.infra.bus.compatibility`.
"""

from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.schemas.codec import Headers

TYPES: Final = {
    "opened": "episode_opened",
    "sealed": "episode_sealed",
    "aborted": "episode_aborted",
    "expected": "group_opened",
}
"""Former values of `type`, and what they are now."""

FIELDS: Final[dict[str, dict[str, str]]] = {
    "task": {"timeouts.run_s": "attempt_s"},
    "turn": {
        "request.kept": "prefix_len",
        "cut": "disconnected",
        "equal": "equal_calls",
        "retries": "retry_count",
        "salt": "cache_salt",
        "toolless": "without_tools",
    },
    "episode": {"left_out": "untrained_turns"},
    "conversation": {"wanted": "reward_components"},
    "batch": {"empty": "empty_reason"},
    "step": {"resumed": "resumed_from", "metrics.bent_tokens": "altered_tokens"},
}
"""Former fields of each type of event, and what they are now. Defaults are not written, so a record
may have none of them and mean the same by either."""

HEADERS: Final = {"a2a-ending": "a2a-outcome"}
"""Former headers, and what they are now."""


class Age(Enum):
    """When a record was written, as far as its names say."""

    FORMER = "former"
    """Before the names of release 0.1.0."""
    CURRENT = "current"
    UNKNOWN = "unknown"
    """It holds none of the names that have changed."""


class Dated(Struct, frozen=True):
    """The age of a record, and the name that gives it away."""

    age: Age
    former: str = ""
    now: str = ""


def dated(value: bytes | None, headers: Headers) -> Dated:
    """Tell by its names when a record was written."""
    for name, now in HEADERS.items():
        if any(key == name for key, _ in headers):
            return Dated(Age.FORMER, f"header {name}", now)
    try:
        event = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Dated(Age.UNKNOWN)
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        return Dated(Age.UNKNOWN)
    if kind in TYPES:
        return Dated(Age.FORMER, f"type {kind}", TYPES[kind])
    fields = FIELDS.get(kind, {})
    for path, now in fields.items():
        if _has(event, path):
            return Dated(Age.FORMER, f"field {path} of a {kind}", now)
    renamed = any(_has(event, _renamed(path, now)) for path, now in fields.items())
    return Dated(Age.CURRENT if renamed or kind in TYPES.values() else Age.UNKNOWN)


def _renamed(path: str, now: str) -> str:
    outer, dot, _ = path.rpartition(".")
    return outer + dot + now


def _has(event: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(event, dict) or name not in event:
            return False
        event = event[name]
    return True
