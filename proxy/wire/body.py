"""What we read of an engine's reply, of a chunk of one, and of an error."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from odradek.schemas.codec import MAX_DEPTH

NULL: Final = Raw(b"null")
DEEPEST: Final = MAX_DEPTH - 4
"""A reply stands four levels deeper in the conversation that it becomes a part of."""
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Logprob(Struct, gc=False):
    """One sampled token's log probability, in nats; None where the engine has no number for it."""

    logprob: float | None = None


class Logprobs(Struct):
    """The engine's list of them."""

    content: list[Logprob | None] | None = None


class WeightVersions(Struct, gc=False):
    """The engine's word on which policy sampled tokens [start, end)."""

    version: int | str | None
    start: int
    end: int


class Choice(Struct):
    """One choice of a reply, or of a chunk."""

    index: int = 0
    message: Raw = NULL
    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    stop_reason: Any = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    """Of text completions, where each choice has a prompt of its own; of chats the body has it."""
    logprobs: Logprobs | None = None
    weight_versions: list[WeightVersions] | None = None
    error: Raw = NULL
    """Where gateways put what went wrong with this choice."""


class CachedTokens(Struct, gc=False):
    """How much of the prompt the engine had computed before."""

    cached_tokens: int | None = None


class EngineUsage(Struct):
    """Tokens as the engine counts them; None where it does not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None

    @property
    def counts(self) -> bool:
        """Whether it says anything."""
        return self.prompt_tokens is not None or self.completion_tokens is not None

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, no fewer than none."""
        return max(0, self.prompt_tokens or 0)

    @property
    def completion(self) -> int:
        """Tokens of the reply, no fewer than none."""
        return max(0, self.completion_tokens or 0)

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the engine had computed before."""
        details = self.prompt_tokens_details
        return max(0, (details.cached_tokens or 0) if details else 0)


class ReplyBody(Struct):
    """What we read of a reply, or of a chunk."""

    id: str = ""
    created: Any = None
    choices: list[Choice] = []
    usage: EngineUsage | None = None
    prompt_token_ids: list[int] | None = None
    error: Raw = NULL


Reader = Callable[[bytes], ReplyBody]
"""Reads a reply, or a chunk, of the engine. Raises what `UNREADABLE` lists."""
read: Final[Reader] = msgspec.json.Decoder(ReplyBody).decode


class ErrorBody(Struct):
    """What we read of an error: in OpenAI's shape, an older engine's, or a web server's."""

    error: Raw = NULL
    message: Any = None
    detail: Any = None
    msg: Any = None


_wrong: Final = msgspec.json.Decoder(ErrorBody)


def error_of(body: bytes, status: int) -> str:
    """One line on an answer that is an error."""
    return wrong(body) or f"the engine answered {status}"


def wrong(body: bytes) -> str:
    """One line on the error that a body or an event is, "" if it is none."""
    try:
        found = _wrong.decode(body)
    except UNREADABLE:
        return ""
    for text in (found.message, found.detail, found.msg):
        if isinstance(text, str) and not empty(text):
            return error_text(found.error) or text[:500]
    return error_text(found.error)


def error_text(error: Raw) -> str:
    """One line on the error inside an answer, "" if there is none."""
    if error is NULL or error == NULL:
        return ""
    try:
        value = msgspec.json.decode(error)
        words = "" if empty(value) else _words(value)[:500] or "the engine reported an error"
    except UNREADABLE:
        return "the engine reported an error"
    return words


def _words(error: Any) -> str:
    """What an error says, whatever it is packed in."""
    if not isinstance(error, dict):
        return str(error) if error else ""
    for name in ("message", "error", "detail", "msg"):
        if error.get(name):
            return _words(error[name])
    return msgspec.json.encode(error).decode() if error else ""


def harmless(error: Raw) -> bool:
    """Whether something stands in the place of an error, and reports none."""
    return error is not NULL and error != NULL and not error_text(error)


FINE: Final = frozenset(
    {
        "", "[]", "{}", "false", "n/a", "nil", "no error", "no_error", "none", "noerror", "null",
        "ok", "success", "successful", "undefined", "成功", "操作成功", "请求成功",
    }
)  # fmt: skip
"""Words for an error that there is not."""


def empty(value: Any) -> bool:
    """Whether a value in the place of an error, or inside it, reports none."""
    if isinstance(value, str):
        text = value.strip().lower().rstrip(".!")
        return text in FINE or (text.isdecimal() and empty(int(text[:9])))
    if isinstance(value, list):
        return all(map(empty, value))
    if isinstance(value, dict):
        return all(
            one is True if name in {"ok", "success"} and one is not None else empty(one)
            for name, one in value.items()
        )
    good = isinstance(value, int) and not isinstance(value, bool) and 200 <= value < 300
    return good or not value
