"""Server-sent events out of bytes, however they were split on the way.

Follows the WHATWG HTML standard, section 9.2.6: lines end with LF, CR LF or CR, an empty line ends
an event, lines that begin with a colon are comments. Works on bytes, so a character of UTF-8 may
be split anywhere. The raw bytes of every event are kept: in order, they are the input again.
"""

import re
from typing import Final

from msgspec import Struct

from odradek.proxy.errors import StreamGarbled

MAX_EVENT: Final = 16 * 1024 * 1024
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_FIELD: Final = re.compile(rb"(?:data|event|id|retry)? ?:")
"""What the first line of a stream begins with."""
LONGEST_NAME: Final = 6
"""Bytes of the longest such name, with its colon."""
DONE: Final = b"[DONE]"
COMMENT: Final = b": ping\n\n"
"""A sign of life that no client takes for a part of a reply."""


def is_stream(begun: bytes, *, declared: bool) -> bool | None:
    """Whether bytes begin a stream of events; None while they are too few to tell.

    Args:
        begun: The first bytes of an answer.
        declared: Whether it calls itself one: then only JSON is none.
    """
    text = begun.lstrip(_BOM + b" \t\r\n")
    if text.startswith((b"{", b"[")):
        return False
    if not text or (not declared and len(text) < LONGEST_NAME):
        return None
    return declared or _FIELD.match(text) is not None


class ServerEvent(Struct, frozen=True, gc=False):
    """One event, or a run of comments."""

    raw: bytes
    """As it came, with the empty line that ends it."""
    data: bytes | None
    """Its data lines joined; None where it has none."""
    error: bool = False
    """Whether its name is `error`."""


class Parser:
    """Feeds on chunks and gives the events that they complete."""

    def __init__(self, *, max_event: int = MAX_EVENT) -> None:
        self._buffer = b""
        self._scanned = 0
        self._first = True
        self._plain = True
        """No CR has come yet."""
        self._max_event = max_event

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Events that end in `chunk`. Raises StreamGarbled for an event beyond the bound."""
        buffer = self._buffer + chunk if self._buffer else chunk
        events: list[ServerEvent] = []
        start = 0
        scan = self._scanned
        # Engines write LF alone; a search for it has no choices to try, which is ten times faster.
        self._plain = self._plain and chunk.find(b"\r") < 0
        while self._plain and (end := buffer.find(b"\n\n", scan)) >= 0:
            raw = buffer[start : end + 2]
            # Nearly all are one line of data, and no more is to be looked for in them.
            if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
                events.append(ServerEvent(raw, raw[6:-2]))
                self._first = False
            else:
                events.append(self._event(raw))
            start = scan = end + 2
        while not self._plain and (match := _END.search(buffer, scan)):
            end = match.end()
            events.append(self._event(buffer[start:end]))
            start = scan = end
        self._buffer = buffer[start:]
        if len(self._buffer) > self._max_event:
            raise StreamGarbled(f"an event of the engine's stream exceeds {self._max_event} bytes")
        # An ending has four bytes at most, so the last three may be the beginning of one.
        self._scanned = max(0, len(self._buffer) - 3)
        return events

    @property
    def rest(self) -> bytes:
        """Bytes of an event that has not ended."""
        return self._buffer

    def _event(self, raw: bytes) -> ServerEvent:
        body = raw
        if self._first:
            self._first = False
            body = raw.removeprefix(_BOM)
        return ServerEvent(raw, *_fields(body))


def _fields(body: bytes) -> tuple[bytes | None, bool]:
    """Its data, and whether it is an error."""
    lines = []
    error = False
    for line in _LINE.split(body):
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            lines.append(b"")
        elif line.startswith(b"event:"):
            error = line[6:].strip() == b"error"
    return (b"\n".join(lines) if lines else None), error


def event(data: bytes) -> bytes:
    """An event with `data`, which must have no line ends; our JSON has none."""
    return b"data: " + data + b"\n\n"


def named(name: str, data: bytes) -> bytes:
    """The same with a name."""
    return b"event: " + name.encode() + b"\n" + event(data)
