"""What all events share: their base, constrained types, and outcomes."""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from odradek.schemas.numbers import jsonable

Name = Annotated[str, Meta(min_length=1, max_length=256)]
"""An id or a name: it becomes a key, so it is never empty and never long."""

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""What every language's JSON reads exactly; more would not even be written again."""

Size = Annotated[int, Meta(ge=1, le=4096)]
"""Samples of a group: whoever closes it counts them one by one."""

Seconds = Annotated[float, Meta(ge=0)]
Purpose = Literal["train", "eval"]


def null() -> Raw:
    """The default of a Raw field; a factory, since a JSON Schema cannot show a Raw default."""
    return Raw(b"null")


class Event(Struct, frozen=True, omit_defaults=True):
    """What all events share: they are immutable, and defaults are not written."""


class Outcome(StrEnum):
    """How an episode ended, and so what it counts as."""

    COMPLETED = "completed"
    """By the agent: counts with its reward."""
    FAILED = "failed"
    """By the agent: counts with the task's failure reward."""
    TIMED_OUT = "timed_out"
    """By the agent: counts with the task's failure reward."""
    HOST_LOST = "host_lost"
    """By us: retried, then excluded."""
    UPSTREAM_FAILED = "upstream_failed"
    """By us: retried, then excluded."""
    INCOMPLETE = "incomplete"
    """By us (a gap in the log, or a turn that was not captured): excluded."""
    UNREWARDED = "unrewarded"
    """Nobody's doing: a wanted reward never came. Excluded."""
    CANCELLED = "cancelled"
    """Nobody's doing: excluded."""

    @property
    def counts(self) -> bool:
        """Whether the episode counts as a sample of its group."""
        return self in {Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT}


_encoder: Final = msgspec.json.Encoder(enc_hook=jsonable)


def raw(value: Any) -> Raw:
    """A JSON value as a Raw field."""
    if isinstance(value, Raw):
        return value
    return Raw(_encoder.encode(value))


def parsed(value: Raw) -> Any:
    """A Raw field as a Python value."""
    return msgspec.json.decode(value)
