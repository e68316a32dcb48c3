"""How an engine's reply, a chunk of one, or an error is read; the types: `schemas/http/reply`."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.schemas.codec import MAX_DEPTH
from odradek.schemas.http import reply
from odradek.schemas.http.reply import ReplyBody

NULL: Final = reply.NULL
"""What an absent field becomes: this very object."""
DEEPEST: Final = MAX_DEPTH - 4
"""A reply is four levels deeper in the conversation that it becomes a part of."""
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


Reader = Callable[[bytes], ReplyBody]
"""Reads a reply, or a chunk, of the engine. Raises what `UNREADABLE` lists."""
read: Final[Reader] = msgspec.json.Decoder(ReplyBody).decode


class ErrorBody(Struct):
    """The fields that we read of an error: OpenAI's, an older engine's, or a web server's."""

    error: Raw = NULL
    message: Any = None
    detail: Any = None
    msg: Any = None


_wrong: Final = msgspec.json.Decoder(ErrorBody)


def error_of(body: bytes, status: int) -> str:
    """One line on an answer that is an error."""
    return wrong(body) or f"the engine answered {status}"


def wrong(body: bytes) -> str:
    """One line on the error in a body or an event, "" if there is none."""
    try:
        parsed = _wrong.decode(body)
    except UNREADABLE:
        return ""
    for text in (parsed.message, parsed.detail, parsed.msg):
        if isinstance(text, str) and not empty(text):
            return error_text(parsed.error) or text[:500]
    return error_text(parsed.error)


def error_text(error: Raw) -> str:
    """One line on the error inside an answer, "" if there is none."""
    if error is NULL or error == NULL:
        return ""
    try:
        value = msgspec.json.decode(error)
        text = "" if empty(value) else _message_of(value)[:500] or "the engine reported an error"
    except UNREADABLE:
        return "the engine reported an error"
    return text


def _message_of(error: Any) -> str:
    """The text of an error, inside any nesting."""
    if not isinstance(error, dict):
        return str(error) if error else ""
    for name in ("message", "error", "detail", "msg"):
        if error.get(name):
            return _message_of(error[name])
    return msgspec.json.encode(error).decode() if error else ""


def harmless(error: Raw) -> bool:
    """Whether an error field is a placeholder that reports no error."""
    return error is not NULL and error != NULL and not error_text(error)


FINE: Final = frozenset(
    {
        "", "[]", "{}", "false", "n/a", "nil", "no error", "no_error", "none", "noerror", "null",
        "ok", "success", "successful", "undefined", "成功", "操作成功", "请求成功",
    }
)  # fmt: skip
"""Words in the place of an error that report none."""


def empty(value: Any) -> bool:
    """Whether a value in the place of an error, or inside it, reports none."""
    if isinstance(value, str):
        text = value.strip().lower().rstrip(".!")
        return text in FINE or (text.isdecimal() and empty(int(text[:9])))
    if isinstance(value, list):
        return all(map(empty, value))
    if isinstance(value, dict):
        return all(
            entry is True if name in {"ok", "success"} and entry is not None else empty(entry)
            for name, entry in value.items()
        )
    good = isinstance(value, int) and not isinstance(value, bool) and 200 <= value < 300
    return good or not value
