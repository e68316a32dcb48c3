"""A stream on its way from the engine to an agent."""

from typing import Final

from aiohttp import web

from odradek.proxy import capture, salt, sse
from odradek.proxy.body import Body, error_of
from odradek.proxy.call import Call, why
from odradek.proxy.errors import EngineError, ProxyError

NOTHING: Final = Body()
DONE: Final = sse.ServerEvent(sse.event(sse.DONE), sse.DONE)
ENDING: Final = (sse.DONE, b"")


class Relay:
    """Passes a stream on, chunk by chunk, and holds back its end."""

    def __init__(self, call: Call) -> None:
        self.parser = sse.Parser()
        self.headers: dict[str, str] = {}
        self.held: list[bytes] = []
        self.pieces: list[bytes] = []
        """All that the agent gets, for a retry."""
        self._call = call
        dialect = call.ask.dialect
        self._streamed = capture.Streamed(dialect.read, call.ask.digest)
        self._stream = dialect.stream(call.ask)
        self._holding = False
        self._broken = ""
        self._response: web.StreamResponse | None = None

    @property
    def begun(self) -> bool:
        """Whether the agent has seen anything yet."""
        return self._response is not None

    async def feed(self, chunk: bytes) -> None:
        """Take in what came from the engine."""
        ready: list[bytes] = []
        for event in self.parser.feed(chunk):
            piece = self._piece(event)
            if not piece:
                continue
            self.pieces.append(piece)
            (self.held if self._holding else ready).append(piece)
        if ready:
            await self._write(b"".join(ready))

    def _piece(self, event: sse.ServerEvent) -> bytes:
        data = event.data
        if self._streamed.error:
            return b""  # nothing that follows an error may look like a good end
        if data is None:
            return self._stream.feed(event, NOTHING)
        if data[:1] in b" [" and data.strip() in ENDING:
            # An event without data is none, and clients fail on it.
            self._holding = self._holding or data.strip() == sse.DONE
            return self._stream.feed(DONE, NOTHING) if data.strip() else b""
        if self._call.ttft_ms is None:
            self._call.ttft_ms = self._call.ms()
        streamed = self._streamed
        # From the first end on everything waits: many clients stop reading at a finish reason.
        self._holding = streamed.feed(data) or self._holding
        if event.error and not streamed.bad:
            streamed.bad = streamed.error = error_of(data, 500)
        if streamed.bad:
            self._holding = True
            self._drop()
            if salt.FIELD in data:
                return self._stream.fail(EngineError(salt.HIDDEN))
            return self._stream.garbled(event, streamed.bad)
        if streamed.data is not data:
            event = sse.ServerEvent(sse.event(streamed.data), streamed.data)
        return self._stream.feed(event, streamed.body)

    def broke(self, error: ProxyError) -> None:
        """The engine's stream ended in the middle: say so in the stream."""
        self._broken = why(error, self._call)
        self._drop()
        self._hold(self._stream.fail(error))

    def _drop(self) -> None:
        """Forget what is held back: a reply that failed has no good end for any of its choices."""
        if self.held:
            del self.pieces[-len(self.held) :]
            self.held.clear()

    def fail(self, error: ProxyError) -> bytes:
        """What the agent gets in place of the end."""
        return self._stream.fail(error)

    def finish(self) -> None:
        """The engine's stream is over."""
        streamed = self._streamed
        if self._broken or streamed.error:
            return
        if not streamed.ended:
            self._broken = "the engine's stream ended without a finish reason"
            self._drop()
        self._hold(self._stream.end(self._broken))

    def _hold(self, piece: bytes) -> None:
        if piece:
            self.held.append(piece)
            self.pieces.append(piece)

    def captured(self) -> list[capture.Captured]:
        """All of it as one reply, choice by choice."""
        found = self._streamed.captured()
        for one in found:
            one.error = self._broken or one.error
        return found

    async def _write(self, data: bytes) -> None:
        if self._call.joined or self._call.gone:
            return
        try:
            await (await self._begin()).write(data)
        except ConnectionResetError:
            return  # the client has left: the turn will be cut, and a retry may join

    async def _begin(self) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers=self.headers)
            await self._response.prepare(self._call.client)
        return self._response

    async def end(self, data: bytes) -> web.StreamResponse:
        """Pass on the end, which the log has acknowledged."""
        response = await self._begin()
        try:
            await response.write_eof(data)
        except ConnectionResetError:
            return response
        return response
