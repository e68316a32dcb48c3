"""What can be wrong with a record.

SchemaError
├── InvalidRecord        the bytes are no event of ours: dead letter, never retried
├── NotRevisable         a late reward for an episode whose reward nobody can take apart
├── NoNumber             a person gave something else where a number belongs
├── NotFinite            a person gave a number that no float holds, or an infinity
└── UnknownTopic         a name outside the topic table: a mistake of the program
"""

from typing import ClassVar


class SchemaError(Exception):
    """Something does not fit the schemas."""

    retriable: ClassVar[bool] = False


class InvalidRecord(SchemaError):
    """A record that no decoder of ours accepts.

    Attributes:
        reason: One of a fixed set of short words, fit for a header and for counting.
        detail: What exactly is wrong, for people; never holds the record's content.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class NotRevisable(SchemaError):
    """An episode's reward cannot be made anew of its components."""


class NoNumber(SchemaError, TypeError):
    """Text, None, a complex number, several numbers, or no number at all."""


class NotFinite(SchemaError, ValueError):
    """A number that is not finite, or too large for a float."""


class UnknownTopic(SchemaError):
    """A topic name that the topic table does not list."""
