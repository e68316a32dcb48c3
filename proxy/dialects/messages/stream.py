"""A chat completion's stream as the events of a message."""

from typing import Any

import msgspec

from odradek.proxy.dialects import errors
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.messages import reply as replies
from odradek.proxy.dialects.replies import INVALID
from odradek.proxy.dialects.translation import parts
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.wire import sse
from odradek.schemas.http.reply import Choice, EngineUsage, ReplyBody


class MessagesEvents:
    """message_start, ping, blocks one after the other, message_delta, message_stop."""

    def __init__(self, request: ParsedRequest) -> None:
        self._request = request
        self._begun = False
        self._over = False
        self._id = ""
        self._blocks = 0
        self._open = ""
        """What the open block holds, "" if none is open."""
        self._named = parts.NamedCalls()
        self._tools: dict[int, int] = {}
        """Which block each tool call is."""
        self._unsure: dict[str, str] = {}
        """Arguments that may yet turn out to be no object, by what the open block holds."""
        self._last = Choice()
        self._usage: EngineUsage | None = None

    def feed(self, event: sse.ServerEvent, body: ReplyBody) -> bytes:
        """The events of one chunk."""
        if self._over:
            return b""
        events = [] if self._begun or not body.choices else self._start(body)
        if body.usage is not None and body.usage.counts:
            self._usage = body.usage
        choice = parts.first(body)
        if choice is not None:
            for part in self._named.feed(parts.of(choice.delta)):
                events += self._part(part)
            if choice.finish_reason is not None:
                self._last = choice
                for part in self._named.end():
                    events += self._part(part)
                events += self._close()
        return b"".join(events)

    def garbled(self, event: sse.ServerEvent, why: str) -> bytes:
        """An error of the engine's."""
        return self.fail(EngineError(why))

    def fail(self, error: ProxyError) -> bytes:
        """An error event; nothing follows it."""
        self._over = True
        return sse.named("error", errors.anthropic(error))

    def end(self, why: str) -> bytes:
        """The end of the message, or of what there is of it."""
        if self._over:
            return b""
        if why:
            return self.fail(EngineError(why))
        self._over = True
        delta = replies.ending(self._last, tools=bool(self._tools))
        usage = replies.usage(self._usage)
        return b"".join([
            *self._close(),
            _event("message_delta", delta=delta, usage=usage),
            _event("message_stop"),
        ])  # fmt: skip

    def _start(self, body: ReplyBody) -> list[bytes]:
        self._begun = True
        self._id = body.id
        usage = replies.usage(EngineUsage(prompt_tokens=len(body.prompt_token_ids or ())))
        message = {
            **replies.head(body, self._request),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return [_event("message_start", message=message), _event("ping")]

    def _part(self, part: parts.ReplyPart) -> list[bytes]:
        if part.kind == "reasoning":
            if not replies.shows_thinking(self._request):
                return []
            events = self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            return [*events, self._delta(type="thinking_delta", thinking=part.text)]
        if part.kind == "tool":
            return self._tool(part)
        events = self._block("text", {"type": "text", "text": "", "citations": None})
        return [*events, self._delta(type="text_delta", text=part.text)]

    def _tool(self, part: parts.ReplyPart) -> list[bytes]:
        events: list[bytes] = []
        if part.tool not in self._tools:
            block = replies.tool_use(part, self._request, self._id, arguments={})
            events = self._block(f"tool {part.tool}", block)
            self._tools[part.tool] = self._blocks - 1
            self._unsure[self._open] = ""
        if text := self._sure(f"tool {part.tool}", part.text):
            at = self._tools[part.tool]
            events.append(self._delta(at, type="input_json_delta", partial_json=text))
        return events

    def _sure(self, kind: str, text: str) -> str:
        """The arguments of a call that may go out: clients take nothing else than an object."""
        if kind not in self._unsure:
            return text
        self._unsure[kind] += text
        return self._unsure.pop(kind) if self._unsure[kind].lstrip().startswith("{") else ""

    def _block(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        """Open a block, unless one of this kind is open."""
        if kind == self._open:
            return []
        events = self._close()
        self._open = kind
        events.append(_event("content_block_start", index=self._blocks, content_block=block))
        self._blocks += 1
        return events

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        events = []
        if self._open == "thinking":
            events.append(self._delta(type="signature_delta", signature=replies.SIGNATURE))
        if words := self._unsure.pop(self._open, ""):
            arguments = msgspec.json.encode({INVALID: words}).decode()
            events.append(self._delta(type="input_json_delta", partial_json=arguments))
        self._open = ""
        return [*events, _event("content_block_stop", index=self._blocks - 1)]

    def _delta(self, at: int | None = None, **delta: Any) -> bytes:
        index = self._blocks - 1 if at is None else at
        return _event("content_block_delta", index=index, delta=delta)


def _event(name: str, **fields: Any) -> bytes:
    return sse.named(name, msgspec.json.encode({"type": name, **fields}))
