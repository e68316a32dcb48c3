"""Anthropic's Messages, translated to chat completions and back."""

import datetime as dt
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from odradek.proxy.dialects import errors
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import (
    ParsedRequest,
    RequestRules,
    SamplingFields,
    fingerprint,
    shallow,
    single,
    unreadable,
)
from odradek.proxy.dialects.messages import reply as replies
from odradek.proxy.dialects.messages import request as requests
from odradek.proxy.dialects.messages.stream import MessagesEvents
from odradek.proxy.dialects.messages.tools import ClientTool, MessagesToolChoice
from odradek.proxy.dialects.models import ModelShape
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.dialects.surface import CountRoute, Surface
from odradek.proxy.errors import ProxyError
from odradek.proxy.wire import body as bodies
from odradek.proxy.wire import shapes, sse
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.http.reply import ReplyBody

__all__ = ["MESSAGES", "Messages", "MessagesContext"]

PING: Final = sse.named("ping", b'{"type":"ping"}')
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class MessagesRequest(SamplingFields, kw_only=True):
    """Anthropic messages."""

    messages: list[requests.InputMessage]
    max_tokens: int
    system: str | list[requests.TextBlock] | None = None
    stop_sequences: list[str] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: requests.ThinkingMode | None = None
    metadata: requests.Metadata | None = None


class CountRequest(Struct, kw_only=True):
    """Anthropic's count of tokens."""

    model: str
    messages: list[requests.InputMessage]
    system: str | None = None


def _model(model: dict[str, Any]) -> dict[str, Any]:
    """A model as Anthropic lists it."""
    created = model.get("created")
    seconds = created if isinstance(created, int) and 0 <= created < 2**33 else 0
    return {
        "type": "model",
        "id": str(model.get("id", "")),
        "display_name": str(model.get("id", "")),
        "created_at": dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(),
    }


class MessagesContext(Struct, frozen=True):
    """The fields of a request that its reply needs."""

    thinking: bool
    """Whether the agent wants to see the model's reasoning."""

    def remember(self, memory: ReplyStore, request: ParsedRequest, captured: CapturedReply) -> None:
        """Note how the reply spelt the arguments of its tool calls."""
        memory.learn(captured.reply.message)


class Messages:
    """Messages."""

    name: Final = "messages"
    path: Final = CHAT.path
    ping: Final = PING

    def read(self, data: bytes) -> ReplyBody:
        """The engine's, a chat's."""
        return bodies.read(data)

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and make a chat completion of it. Raises BadRequest."""
        shallow(body, terms.limits)
        try:
            fields = _fields.decode(body)
        except bodies.UNREADABLE as error:
            raise unreadable(error) from None
        translation = requests.chat(fields, terms)
        return msgspec.structs.replace(
            single(CHAT.parse(msgspec.json.encode(translation.chat), terms)),
            dialect=self,
            digest=fingerprint(body),
            origin=MessagesContext(translation.thinking),
            dropped=translation.dropped,
        )

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The reply as a message."""
        regular = shapes.whole(reply, bodies.read, request.digest)
        return msgspec.json.encode(replies.message(regular.body, request))

    def stream(self, request: ParsedRequest) -> MessagesEvents:
        """A stream as events of a message."""
        return MessagesEvents(request)

    def error(self, error: ProxyError) -> bytes:
        """Anthropic's shape."""
        return errors.anthropic(error)

    def refusal(self, body: bytes, status: int) -> bytes:
        """The engine's words in Anthropic's shape."""
        return errors.anthropic_of(body, status)


MESSAGES: Final = Messages()


def _matches(request: web.Request) -> bool:
    return "anthropic-version" in request.headers


MESSAGES_SURFACE: Final = Surface(
    calls={"/messages": MESSAGES},
    body=MessagesRequest,
    counts={"/messages/count_tokens": CountRoute("input_tokens", CountRequest)},
    matches=_matches,
    models=ModelShape(_model),
)
