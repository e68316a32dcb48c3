"""OpenAI's Responses, translated to chat completions and back.

The proxy keeps the replies of an episode while it lasts, so that a request may go on from one of
them by its id (`previous_response_id`).
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

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
from odradek.proxy.dialects.responses import compaction, items
from odradek.proxy.dialects.responses import reply as replies
from odradek.proxy.dialects.responses import request as requests
from odradek.proxy.dialects.responses.context import ResponsesContext
from odradek.proxy.dialects.responses.stream import ResponsesEvents
from odradek.proxy.dialects.surface import Surface
from odradek.proxy.errors import ProxyError
from odradek.proxy.wire import body as bodies
from odradek.proxy.wire import sse
from odradek.schemas.http.reply import ReplyBody

__all__ = ["COMPACT", "RESPONSES", "Compact", "Responses"]

_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class ResponsesRequest(SamplingFields, kw_only=True):
    """OpenAI responses."""

    input: str | list[items.Item]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    store: bool | None = None


class Responses:
    """Responses."""

    name: Final = "responses"
    path: Final = CHAT.path
    ping: Final = sse.COMMENT

    def read(self, data: bytes) -> ReplyBody:
        """The engine's, a chat's."""
        return bodies.read(data)

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and make a chat completion of it. Raises BadRequest."""
        return self._translate(_read(body, terms), body, terms)

    def _translate(
        self, fields: dict[str, Raw], body: bytes, terms: RequestRules, **more: Any
    ) -> ParsedRequest:
        translation = requests.chat(fields, terms, compact="users" in more)
        context = ResponsesContext(
            echo=translation.echo,
            chain=translation.chain,
            preceding=translation.preceding,
            logprobs=translation.logprobs,
            store=translation.store,
            names=translation.names,
            opaque=translation.opaque,
            compacts=translation.compacts,
            **more,
        )
        return msgspec.structs.replace(
            single(CHAT.parse(msgspec.json.encode(translation.chat), terms)),
            dialect=self,
            digest=fingerprint(body),
            origin=context,
            dropped=translation.dropped,
        )

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The reply as a response."""
        return msgspec.json.encode(replies.whole(reply, request))

    def stream(self, request: ParsedRequest) -> ResponsesEvents:
        """A stream as events of a response."""
        return ResponsesEvents(request)

    def error(self, error: ProxyError) -> bytes:
        """OpenAI's shape."""
        return errors.openai(error)

    def refusal(self, body: bytes, status: int) -> bytes:
        """The engine's own words, as long as they have that shape."""
        return errors.openai_of(body, status)


class Compact(Responses):
    """A conversation summed up, in one piece."""

    def parse(self, body: bytes, terms: RequestRules) -> ParsedRequest:
        """Read an agent's request and make a chat completion of it. Raises BadRequest."""
        fields = {name: value for name, value in _read(body, terms).items() if name != "stream"}
        try:
            users = compaction.users(bytes(fields.get("input", b"null")))
        except bodies.UNREADABLE as error:
            raise unreadable(error, "input") from None
        return self._translate(fields, body, terms, users=users)

    def reply(self, reply: bytes, request: ParsedRequest) -> bytes:
        """The summary, behind what users said."""
        return msgspec.json.encode(compaction.whole(replies.whole(reply, request), request))


def _read(body: bytes, terms: RequestRules) -> dict[str, Raw]:
    """A request's fields. Raises BadRequest."""
    shallow(body, terms.limits)
    try:
        return _fields.decode(body)
    except bodies.UNREADABLE as error:
        raise unreadable(error) from None


RESPONSES: Final = Responses()
COMPACT: Final = Compact()
RESPONSES_SURFACE: Final = Surface(
    calls={"/responses/compact": COMPACT, "/responses": RESPONSES},
    body=ResponsesRequest,
    sockets=("/responses",),
)
