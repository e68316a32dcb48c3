"""A chat completion's stream as the events of a response."""

from typing import Any

import msgspec

from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.responses import reply as replies
from odradek.proxy.dialects.responses.compaction import Compacted
from odradek.proxy.dialects.responses.context import name
from odradek.proxy.dialects.responses.output import OutputEvent, ResponseOutput
from odradek.proxy.dialects.translation import parts
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.wire import sse
from odradek.schemas.http.reply import Choice, EngineUsage, ReplyBody


class ResponsesEvents:
    """response.created, response.in_progress, items one after the other, response.completed."""

    def __init__(self, request: ParsedRequest) -> None:
        self._request = request
        self._number = 0
        self._over = False
        self._name = ""
        self._created: Any = 0
        self._output: ResponseOutput | Compacted = ResponseOutput("")
        self._named = parts.NamedCalls()
        self._last = Choice()
        self._usage: EngineUsage | None = None

    def feed(self, event: sse.ServerEvent, body: ReplyBody) -> bytes:
        """The events of one chunk."""
        if self._over or event.data is None:
            return b""
        events = [] if self._name or not body.choices else self._start(body)
        if body.usage is not None and body.usage.counts:
            self._usage = body.usage
        choice = parts.first(body)
        if choice is not None:
            logprobs = replies.logprobs(event.data, self._request)
            for part in self._named.feed(parts.of(choice.delta)):
                events += self._output.add(part, logprobs)
            if choice.finish_reason is not None:
                self._last = choice
                for part in self._named.end():
                    events += self._output.add(part, [])
                events += self._output.close(self._status())
        return b"".join([self._event(output_event) for output_event in events])

    def _status(self) -> str:
        return "incomplete" if self._last.finish_reason in replies.CUT else "completed"

    def _start(self, body: ReplyBody) -> list[OutputEvent]:
        self._name = name(body.id, self._request)
        self._created = body.created
        self._output = replies.output(self._name, self._request)
        begun = replies.response(self._name, self._created, self._request, self._output)
        return [(f"response.{name}", {"response": begun}) for name in ("created", "in_progress")]

    def garbled(self, event: sse.ServerEvent, why: str) -> bytes:
        """An error of the engine's."""
        return self.fail(EngineError(why))

    def fail(self, error: ProxyError) -> bytes:
        """An error event, and the response as one that failed; nothing follows them."""
        self._over = True
        begun = [] if self._name else self._start(ReplyBody())  # clients know of no response yet
        failed = replies.response(self._name, self._created, self._request, self._output)
        failed["status"] = "failed"
        failed["error"] = {"code": "server_error", "message": str(error)}
        fields = {"code": error.code, "message": str(error), "param": error.param}
        events: list[OutputEvent] = [
            *begun,
            ("error", fields),
            ("response.failed", {"response": failed}),
        ]
        return b"".join([self._event(event) for event in events])

    def end(self, why: str) -> bytes:
        """The whole response."""
        if self._over:
            return b""
        if why:
            return self.fail(EngineError(why))
        self._over = True
        whole = replies.response(
            self._name, self._created, self._request, self._output, self._last, self._usage
        )
        return self._event((f"response.{whole['status']}", {"response": whole}))

    def _event(self, event: OutputEvent) -> bytes:
        kind, fields = event
        numbered = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.named(kind, msgspec.json.encode(numbered))
