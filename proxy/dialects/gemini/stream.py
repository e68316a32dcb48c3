"""A chat completion's stream as generated content: events, or one JSON array that grows."""

from typing import Any

import msgspec

from odradek.proxy.dialects import errors
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.gemini import reply as replies
from odradek.proxy.dialects.translation import parts
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.wire import sse
from odradek.schemas.http.reply import Choice, EngineUsage, ReplyBody


class GeminiEvents:
    """Text as it comes; calls with the end, since Gemini sends each call in one piece.

    Args:
        request: The request.
        array: Whether the pieces are entries of an array, and no events.
    """

    def __init__(self, request: ParsedRequest, *, array: bool) -> None:
        self._request = request
        self._array = array
        self._begun = False
        self._over = False
        self._id = ""
        self._named = parts.NamedCalls()
        self._thoughts = ""
        self._signed = ""
        """The thoughts that the client has been given to keep."""
        self._calls: dict[int, parts.ReplyPart] = {}
        self._rest: list[dict[str, Any]] = []
        """Parts that came with the end, and wait for it."""
        self._last: Choice | None = None
        self._usage: EngineUsage | None = None

    def feed(self, event: sse.ServerEvent, body: ReplyBody) -> bytes:
        """The new parts of one chunk."""
        if self._over:
            return b""
        self._id = self._id or body.id
        if body.usage is not None and body.usage.counts:
            self._usage = body.usage
        choice = parts.first(body)
        if choice is None:
            return b""
        pieces = self._parts(self._named.feed(parts.of(choice.delta)))
        if choice.finish_reason is not None:
            self._last = choice
        if self._last is not None:
            self._rest += pieces
            return b""
        return self._piece(replies.content(pieces, self._request, self._id)) if pieces else b""

    def _parts(self, incoming: Any) -> list[dict[str, Any]]:
        pieces = []
        for part in incoming:
            if part.kind == "tool":
                before = self._calls.get(part.tool)
                text = part.text if before is None else before.text + part.text
                self._calls[part.tool] = msgspec.structs.replace(before or part, text=text)
            elif part.kind != "reasoning":
                pieces.append(self._sign({"text": part.text}))
            else:
                self._thoughts += part.text
                if replies.shows_thoughts(self._request):
                    pieces.append(replies.thought(part.text))
        return pieces

    def _sign(self, part: dict[str, Any]) -> dict[str, Any]:
        """The part, with the thoughts that came before it."""
        if self._thoughts != self._signed:
            self._signed = self._thoughts
            replies.sign([part], self._thoughts)
        return part

    def garbled(self, event: sse.ServerEvent, why: str) -> bytes:
        """An error of the engine's."""
        return self.fail(EngineError(why))

    def fail(self, error: ProxyError) -> bytes:
        """An error; nothing follows it."""
        self._over = True
        return self._wire(errors.google(error), last=True)

    def end(self, why: str) -> bytes:
        """The end of the reply: its calls, why it ended, and its tokens."""
        if self._over:
            return b""
        if why:
            return self.fail(EngineError(why))
        self._over = True
        pieces = [*self._rest, *self._parts(self._named.end())]
        pieces += [
            self._sign(replies.call(self._calls[index], self._request, self._id))
            for index in self._calls
        ]
        if self._thoughts != self._signed:
            pieces.append(self._sign({"text": ""}))
        response = replies.content(
            pieces, self._request, self._id, self._last or Choice(), self._usage
        )
        return self._wire(msgspec.json.encode(response), last=True)

    def _piece(self, response: dict[str, Any]) -> bytes:
        piece = self._wire(msgspec.json.encode(response))
        self._begun = True
        return piece

    def _wire(self, data: bytes, *, last: bool = False) -> bytes:
        if not self._array:
            return sse.event(data)
        # The last piece may be made again, as an error: so it does not count as begun.
        return (b",\r\n" if self._begun else b"[") + data + (b"]" if last else b"")
