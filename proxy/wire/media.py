"""Whether a message holds media, which an engine sees and the trainer does not.

A trainer gets token ids. For a picture they hold placeholders only. So a reply to it would be
trained on as if the model had not seen the picture. Whatever is not known to be text counts as
media. agent-lightning#559
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from odradek.proxy.wire.body import NULL, UNREADABLE

TEXTS: Final = frozenset({
    "content", "document", "input_text", "output_text", "reasoning", "reasoning_text",
    "redacted_thinking", "refusal", "search_result", "summary_text", "text", "thinking",
    "tool_call", "tool_result", "tool_use",
})  # fmt: skip
"""Kinds of parts that are text, or hold further parts under their `content`."""
HELD: Final = ("content", "source", "output", "summary")
"""Where such a part may hold others."""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


_SPELT: Final = (
    "attachments", "audio", "audio_data", "audio_url", "audio_urls", "audios", "b64_json",
    "experimental_attachments", "file", "file_data", "file_id", "file_ids", "file_uri", "file_url",
    "file_urls", "files", "image", "image_base64", "image_bytes", "image_data", "image_embeds",
    "image_file", "image_grid_thw", "image_path", "image_paths", "image_uri", "image_url",
    "image_urls", "images", "inline_data", "input_audio", "input_features", "input_image",
    "input_images", "input_video", "input_videos", "media", "media_data", "media_url",
    "media_urls", "mm_data", "multi_modal_data", "multimodal", "multimodal_data", "pixel_values",
    "pixel_values_images", "pixel_values_videos", "screenshot", "screenshots", "video",
    "video_data", "video_embeds", "video_grid_thw", "video_url", "video_urls", "videos",
)  # fmt: skip
FIELDS: Final = frozenset({*_SPELT, *map(_camel, _SPELT)})
"""Names of fields with media, in parts, messages and requests of some engines; in either case."""
REQUESTED: Final = FIELDS - {"audio"}
"""The same for a request itself: there `audio` describes the reply's sound."""
HOLDERS: Final = frozenset({
    "chat_template_kwargs", "documents", "extra_body", "nvext", "options", "parameters",
})  # fmt: skip
"""Fields of a request that may hold such fields."""
NAMED: Final = REQUESTED | HOLDERS
PLAIN: Final = frozenset({
    "content", "function_call", "name", "reasoning", "reasoning_content", "refusal", "role",
    "tool_call_id", "tool_calls",
})  # fmt: skip
"""Fields of a message that hold no media, or have a check of their own."""
FREE: Final = frozenset({"arguments", "args", "function", "input"})
"""Fields of a part that hold a call's arguments: names inside them are the agent's own."""
EMPTY: Final[tuple[Any, ...]] = (None, "", [], {}, False)

HEAD: Final = 64
"""Bytes in which a message's role stands, and where its text begins."""

_SAYING: Final = REQUESTED | HOLDERS
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


def first(messages: Sequence[Raw]) -> int | None:
    """Which message is the first that holds media, None if none does."""
    for place, message in enumerate(messages):
        if holds(message):
            return place
    return None


def holds(message: Raw) -> bool:
    """Whether a message holds media; a value that is not a message holds none."""
    if message == NULL or _is_plain(bytes(message)):
        return False
    try:
        fields = _fields.decode(message)
    except UNREADABLE:
        return False
    content = bytes(fields.get("content", NULL)).lstrip()
    # Nearly all are text, or null: nothing of them is parsed.
    if content[:1] not in {b'"', b"n"} and _holds_media(_read(content)):
        return True
    if PLAIN.issuperset(fields):
        return False
    return any(_is_media(name, fields[name]) for name in fields.keys() - PLAIN)


def _is_plain(message: bytes) -> bool:
    """Whether a message is a role and one text without quotes, so that nothing has to be parsed.

    The message is JSON. So if a comma and a colon stand between the first quotes, and the first
    quote in the text is the last before the end, then no quote is an escaped one.
    """
    parts = message[:HEAD].split(b'"', 6)
    if len(parts) < 7 or (parts[1], parts[5]) != (b"role", b"content"):
        return False
    if parts[4].strip() != b"," or not parts[6].startswith((b':"', b': "')):
        return False
    begins = min(len(message), HEAD) - len(parts[6]) + parts[6].index(b'"') + 1
    ends = message.find(b'"', begins)
    return message[ends + 1 :].strip() == b"}"


def requested(fields: dict[str, Raw]) -> bool:
    """Whether some fields beside the messages hold media."""
    if NAMED.isdisjoint(fields):
        return False
    if _SAYING.isdisjoint(fields):
        return False
    return any(_read(fields[name]) not in EMPTY for name in REQUESTED & fields.keys()) or any(
        _has_media_field(_read(fields[name])) for name in HOLDERS & fields.keys()
    )


def _is_media(name: str, value: Raw) -> bool:
    """Whether a field that few messages have holds media: by its name, or by a name within it."""
    if value == NULL:
        return False
    if name in FIELDS:
        return _read(value) not in EMPTY
    return bytes(value)[:1] in (b"{", b"[") and _has_media_field(_read(value))


def _has_media_field(value: Any) -> bool:
    """Whether a field at any depth has a name of media, and a value."""
    if isinstance(value, list):
        return any(map(_has_media_field, value))
    if not isinstance(value, dict):
        return False
    if not FIELDS.isdisjoint(value) and any(
        value[name] not in EMPTY for name in FIELDS & value.keys()
    ):
        return True
    return any(_has_media_field(inner) for name, inner in value.items() if name not in FREE)


def _read(value: bytes | Raw) -> Any:
    """A value. One that no parser takes, such as a number without end, becomes an unknown part."""
    try:
        return msgspec.json.decode(value)
    except UNREADABLE:
        return {"unreadable": True}


SOURCES: Final = ("base64", "url", "file")  # no set: a type may be no text, and have no hash


def _holds_media(content: Any) -> bool:
    """Whether a content, or a part of it, holds media."""
    if isinstance(content, list):
        return any(map(_holds_media, content))
    if not isinstance(content, dict):
        return False
    if _has_media_field(content):
        return True
    kind = content.get("type")
    if kind is None:
        return "text" not in content and not any(name in content for name in HELD)
    return (
        not isinstance(kind, str)
        or kind not in TEXTS
        or any(_source(content.get(name)) for name in HELD)
    )


def _source(value: Any) -> bool:
    """The same for a part's source: it is text only if its type says so."""
    if isinstance(value, dict):
        kind = value.get("type")
        if kind in SOURCES or not isinstance(kind, str | None):
            return True
    return _holds_media(value) if isinstance(value, list | dict) else False
