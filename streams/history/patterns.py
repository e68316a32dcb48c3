"""What is searched for in the past: words, regular expressions, or token ids. Pure.

A pattern looks at a record's bytes first. Only a record that may hold what is meant is decoded.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from odradek.schemas.arrays import ID_BYTES, pack_ids, unpack_ids
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.topics import CONVERSATIONS, EPISODES
from odradek.streams.errors import ReplayRefused

AROUND: Final = 40
"""Characters, or tokens, that are shown before and behind what was found."""
NO_WORDS: Final = frozenset({"role", "type", "id", "turn_id", "base", "tool_call_id"})
"""Fields of a conversation that hold names, and nothing that anybody said."""


class Hit(Struct, frozen=True):
    """What was found in a record."""

    where: str
    """The turn, or the sequence."""
    text: str
    """What was found, with what stands around it."""
    start: int
    """Of what was found in its text or sequence: characters, or tokens."""


class Pattern(Protocol):
    """Something that records are searched for."""

    @property
    def topic(self) -> str:
        """Whose records it reads."""
        ...

    def hits(self, value: bytes) -> Iterator[Hit]:
        """All that is found in the value of a record; what is no event of the topic has nothing."""
        ...


class Phrase(Struct, frozen=True):
    """Words as they stand, in what was said: messages, replies and the task's input."""

    text: str
    ignore_case: bool = False

    @property
    def topic(self) -> str:
        """See `Pattern`."""
        return CONVERSATIONS.name

    def hits(self, value: bytes) -> Iterator[Hit]:
        """See `Pattern`."""
        # The log has text as JSON escapes it, and only then as anybody wrote it.
        if not self.ignore_case and msgspec.json.encode(self.text)[1:-1] not in value:
            return
        flags = re.IGNORECASE if self.ignore_case else re.NOFLAG
        yield from _said(value, re.compile(re.escape(self.text), flags))


class Regex(Struct, frozen=True):
    """A regular expression of Python's, in the same texts; made by `parse`."""

    expression: re.Pattern[str]

    @property
    def topic(self) -> str:
        """See `Pattern`."""
        return CONVERSATIONS.name

    def hits(self, value: bytes) -> Iterator[Hit]:
        """See `Pattern`."""
        yield from _said(value, self.expression)

    @classmethod
    def parse(cls, text: str, *, ignore_case: bool = False) -> "Regex":
        """Raises ReplayRefused where it is no regular expression."""
        try:
            return cls(re.compile(text, re.IGNORECASE if ignore_case else re.NOFLAG))
        except re.error as error:
            raise ReplayRefused(f"{text!r} is no regular expression: {error}") from error


class TokenIds(Struct, frozen=True):
    """Token ids that follow each other in a sequence; made by `parse`."""

    ids: tuple[int, ...]

    @property
    def topic(self) -> str:
        """See `Pattern`."""
        return EPISODES.name

    def hits(self, value: bytes) -> Iterator[Hit]:
        """See `Pattern`."""
        needle = pack_ids(self.ids)
        try:
            sequences = _TOKENS.decode(value).sequences
        except (msgspec.DecodeError, msgspec.ValidationError):
            return
        for number, sequence in enumerate(sequences):
            for start in _aligned(sequence.ids, needle):
                text = _ids_around(sequence.ids, start, len(self.ids))
                yield Hit(f"sequence {number}", text, start)

    @classmethod
    def parse(cls, text: str) -> "TokenIds":
        """Ids with blanks or commas between them. Raises ReplayRefused."""
        words = text.replace(",", " ").split()
        try:
            ids = tuple(map(int, words))
            pack_ids(ids)
        except (ValueError, InvalidRecord):
            ids = ()
        if not ids:
            raise ReplayRefused(f"{text!r} names no token ids: write such as '12 7 9'")
        return cls(ids)


class _Sequence(Struct):
    ids: bytes = b""


class _Tokens(Struct):
    """As much of an Episode as is searched."""

    sequences: tuple[_Sequence, ...] = ()


_TOKENS: Final = msgspec.json.Decoder(_Tokens)


def _said(value: bytes, expression: re.Pattern[str]) -> Iterator[Hit]:
    try:
        conversation = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if not isinstance(conversation, dict):
        return
    turns = conversation.get("turns")
    parts = [("input", conversation.get("input"))] + [
        (f"turn {turn.get('turn_id')}", [turn.get("messages"), turn.get("reply")])
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
    ]
    for where, part in parts:
        for text in _texts(part):
            for match in expression.finditer(text):
                yield Hit(where, _around(text, match.start(), match.end()), match.start())


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value that somebody said."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in NO_WORDS:
                yield from _texts(inner)


def _around(text: str, start: int, end: int) -> str:
    before = "…" if start > AROUND else ""
    behind = "…" if end + AROUND < len(text) else ""
    return before + text[max(0, start - AROUND) : end + AROUND] + behind


def _aligned(ids: bytes, needle: bytes) -> Iterator[int]:
    """Positions, in tokens, at which ids begin with others."""
    at = ids.find(needle)
    while at >= 0:
        if at % ID_BYTES == 0:
            yield at // ID_BYTES
        at = ids.find(needle, at + 1)


def _ids_around(ids: bytes, start: int, n: int) -> str:
    near = AROUND // ID_BYTES
    words = [str(one) for one in unpack_ids(ids).tolist()]
    found = " ".join(words[start : start + n])
    before, behind = words[max(0, start - near) : start], words[start + n : start + n + near]
    return " ".join([*before, f"[{found}]", *behind])
