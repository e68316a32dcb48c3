"""Google's generateContent, translated to chat completions and back.

The model, and whether the reply is streamed, stand in the address and not in the body.
"""

from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from odradek.proxy.dialects import errors
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import (
    Dialect,
    ParsedRequest,
    RequestRules,
    fingerprint,
    shallow,
    single,
    unreadable,
)
from odradek.proxy.dialects.gemini import fields
from odradek.proxy.dialects.gemini import reply as replies
from odradek.proxy.dialects.gemini import request as requests
from odradek.proxy.dialects.gemini.contents import Content
from odradek.proxy.dialects.gemini.stream import GeminiEvents
from odradek.proxy.dialects.models import ModelShape
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.surface import ROOTS, CountRoute, Surface
from odradek.proxy.errors import ProxyError
from odradek.proxy.wire.body import UNREADABLE, read
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.http.reply import ReplyBody

__all__ = ["GEMINI", "GEMINI_STREAM", "Gemini", "GeminiContext"]

INNER: Final = "generateContentRequest"
"""The field in which a count of tokens may hold its request."""
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class ContentRequest(Struct, kw_only=True, rename="camel"):
    """Google's generated content."""

    contents: list[Content]
    system_instruction: Content | None = None
    tools: list[dict[str, Any]] | None = None
    tool_config: dict[str, Any] | None = None
    generation_config: requests.GenerationConfig | None = None


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """A model as Google lists it."""
    model_id = str(model.get("id", ""))
    length = model.get("max_model_len")
    limit = {"inputTokenLimit": length} if isinstance(length, int) and length > 0 else {}
    return {
        "name": f"models/{model_id}",
        "version": "1",
        "displayName": model_id,
        **limit,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def _models(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {"models": listed}


class GeminiContext(Struct, frozen=True):
    """The fields of a request that its reply needs."""

    thoughts: bool
    """Whether the agent wants to see the model's reasoning."""

    def remember(self, memory: ReplyStore, request: ParsedRequest, captured: CapturedReply) -> None:
        """Note how the reply spelt its calls' arguments; clients may leave out the calls' ids."""
        memory.learn(captured.reply.message, anonymous=True)


class Gemini:
    """generateContent.

    Args:
        model: The model in the address.
        streams: Whether the address asks for a stream.
        array: Whether a stream is one JSON array, and no events.
    """

    name: Final = "gemini"
    path: Final = CHAT.path
    ping: Final = b"\n"
    """A blank line: of a comment Google's own client makes an event that it cannot read."""

    def __init__(self, model: str = "", *, streams: bool = False, array: bool = False) -> None:
        self.model = model.removeprefix("models/")
        self.streams = streams
        self.array = array

    def at(self, model: str, alt: str | None) -> "Gemini":
        """The same for one address: `alt=sse` asks for events."""
        return Gemini(model, streams=self.streams, array=alt != "sse")

    def read(self, data: bytes) -> ReplyBody:
        """The engine's, a chat's."""
        return read(data)

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and make a chat completion of it. Raises BadRequest."""
        shallow(body, terms.limits)
        try:
            raw = _fields.decode(body)
            for name in [name for name in raw if fields.camel(name) == INNER]:
                raw |= _fields.decode(raw.pop(name))
        except UNREADABLE as error:
            raise unreadable(error) from None
        translation = requests.chat(raw, terms)
        chat = {**translation.chat, "model": self.model, "stream": self.streams}
        where = f"{self.model}:{self.streams}:".encode()
        return msgspec.structs.replace(
            single(CHAT.parse(msgspec.json.encode(chat), terms)),
            dialect=self,
            digest=fingerprint(where + body),
            origin=GeminiContext(translation.thoughts),
            dropped=translation.dropped,
            content_type="application/json" if self.streams and self.array else "",
        )

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The reply as content."""
        return msgspec.json.encode(replies.whole(read(reply), request))

    def stream(self, request: ParsedRequest) -> GeminiEvents:
        """A stream as pieces of content."""
        return GeminiEvents(request, array=self.array)

    def error(self, error: ProxyError) -> bytes:
        """Google's shape."""
        return errors.google(error)

    def refusal(self, body: bytes, status: int) -> bytes:
        """The engine's words in Google's shape."""
        return errors.google_of(body, status)


GEMINI: Final = Gemini()
GEMINI_STREAM: Final = Gemini(streams=True)

CALLS: Final = {":generateContent": GEMINI, ":streamGenerateContent": GEMINI_STREAM}
COUNTS: Final = {":countTokens": CountRoute("totalTokens", ContentRequest)}
VERSIONS: Final = ("/v1beta", "/v1alpha")
"""Google's clients add one of them to the address that they are given."""
ENDS: Final = (*CALLS, *COUNTS)


def _is_ours(request: web.Request) -> bool:
    """Whether an address is one of Google's."""
    path = request.path
    return any(f"{version}/" in path for version in VERSIONS) or path.endswith(ENDS)


def _matches(request: web.Request) -> bool:
    return "x-goog-api-key" in request.headers or _is_ours(request)


def _at(dialect: Dialect, request: web.Request) -> Dialect:
    assert isinstance(dialect, Gemini)
    query = request.query
    return dialect.at(request.match_info["model"], query.get("alt", query.get("$alt")))


GEMINI_SURFACE: Final = Surface(
    calls=CALLS,
    body=ContentRequest,
    counts=COUNTS,
    roots=tuple(root + version for root in ("", *ROOTS) for version in VERSIONS),
    matches=_matches,
    at=_at,
    keys_in_query=_is_ours,
    models=ModelShape(_model, _models),
)
