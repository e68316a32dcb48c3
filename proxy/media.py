"""Whether a message holds more than text: what an engine sees of it, the trainer does not.

A trainer gets token ids. Of a picture they hold placeholders, so a reply to it would be trained on
as if it had been said unseen. What is not known to be text counts as media. agent-lightning#559
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from odradek.proxy.body import NULL, UNREADABLE

TEXTS: Final = frozenset({
    "content", "document", "input_text", "output_text", "reasoning", "reasoning_text",
    "redacted_thinking", "refusal", "search_result", "summary_text", "text", "thinking",
    "tool_call", "tool_result", "tool_use",
})  # fmt: skip
"""Kinds of parts that are text, or hold further parts under their `content`."""
HELD: Final = ("content", "source", "output", "summary")
"""Where such a part may hold others."""
FIELDS: Final = frozenset({
    "audio", "audio_data", "audio_url", "audios", "attachments", "file", "file_data", "file_id",
    "files", "image", "image_data", "image_url", "images", "input_audio", "input_image",
    "multi_modal_data", "video", "video_data", "video_url", "videos",
})  # fmt: skip
"""Names under which parts and messages hold media, and requests of some engines, too."""
REQUESTED: Final = FIELDS - {"audio"}
"""Of a request itself: there `audio` is how the reply is to sound."""
EMPTY: Final[tuple[Any, ...]] = (None, "", [], {}, False)

_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def first(messages: Sequence[Raw]) -> int | None:
    """Which message is the first that holds media, None if none does."""
    for place, message in enumerate(messages):
        if holds(message):
            return place
    return None


def holds(message: Raw) -> bool:
    """Whether a message holds media; what is no message holds none."""
    if message == NULL:
        return False
    try:
        fields = _fields.decode(message)
    except UNREADABLE:
        return False
    content = bytes(fields.get("content", NULL)).lstrip()
    # Nearly all are text, or null: nothing of them is parsed.
    if content[:1] not in {b'"', b"n"} and _held(_read(content)):
        return True
    return requested(fields, FIELDS)


def requested(fields: dict[str, Raw], names: frozenset[str] = REQUESTED) -> bool:
    """Whether some fields beside the messages hold media."""
    found = names & fields.keys()
    return any(_read(fields[name]) not in EMPTY for name in found)


def _read(value: bytes | Raw) -> Any:
    """A value; one that no parser takes, such as a number without end, as a part of no kind."""
    try:
        return msgspec.json.decode(value)
    except UNREADABLE:
        return {"unreadable": True}


SOURCES: Final = ("base64", "url", "file")  # no set: a type may be no text, and have no hash


def _held(value: Any) -> bool:
    """Whether a content, or a part of it, holds media."""
    if isinstance(value, list):
        return any(map(_held, value))
    if not isinstance(value, dict):
        return False
    if any(value.get(name) not in EMPTY for name in FIELDS):
        return True
    kind = value.get("type")
    if kind is None:
        return "text" not in value and not any(name in value for name in HELD)
    return (
        not isinstance(kind, str)
        or kind not in TEXTS
        or any(_source(value.get(name)) for name in HELD)
    )


def _source(value: Any) -> bool:
    """The same of what a part holds; a source of text is one that says so."""
    if isinstance(value, dict):
        kind = value.get("type")
        if kind in SOURCES or not isinstance(kind, str | None):
            return True
    return _held(value) if isinstance(value, list | dict) else False
