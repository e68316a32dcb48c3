"""Anthropic's Messages, translated to chat completions and back."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from odradek.proxy.dialects import errors
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import (
    ParsedRequest,
    RequestRules,
    fingerprint,
    shallow,
    single,
    unreadable,
)
from odradek.proxy.dialects.messages import reply as replies
from odradek.proxy.dialects.messages import request as requests
from odradek.proxy.dialects.messages.stream import MessagesEvents
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.errors import ProxyError
from odradek.proxy.wire import body as bodies
from odradek.proxy.wire import shapes, sse
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.http.reply import ReplyBody

PING: Final = sse.named("ping", b'{"type":"ping"}')
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class MessagesContext(Struct, frozen=True):
    """What of a request its reply needs."""

    thinking: bool
    """Whether the agent wants to see the model's reasoning."""

    def remember(self, memory: ReplyStore, request: ParsedRequest, reply: CapturedReply) -> None:
        """Note how the reply spelt the arguments of its tool calls."""
        memory.learn(reply.message)


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
        made = requests.chat(fields, terms)
        return msgspec.structs.replace(
            single(CHAT.parse(msgspec.json.encode(made.chat), terms)),
            dialect=self,
            digest=fingerprint(body),
            origin=MessagesContext(made.thinking),
            dropped=made.dropped,
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
