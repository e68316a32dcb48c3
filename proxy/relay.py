"""A stream on its way from the engine to an agent."""

from aiohttp import web

from odradek.proxy import capture, sse
from odradek.proxy.call import Call, why
from odradek.proxy.dialects import chat
from odradek.proxy.errors import ProxyError


class Relay:
    """Passes a stream on, chunk by chunk, and holds back its end."""

    def __init__(self, call: Call) -> None:
        self.parser = sse.Parser()
        self.headers: dict[str, str] = {}
        self.held: list[bytes] = []
        self.pieces: list[bytes] = []
        """All that the agent gets, for a retry."""
        self._call = call
        self._streamed = capture.Streamed()
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
            if piece is None:
                continue
            self.pieces.append(piece)
            (self.held if self._holding else ready).append(piece)
        if ready:
            await self._write(b"".join(ready))

    def _piece(self, event: sse.ServerEvent) -> bytes | None:
        data = event.data
        if data is None:
            return event.raw
        if data == sse.DONE:
            self._holding = True
            return event.raw
        if self._call.ttft_ms is None:
            self._call.ttft_ms = self._call.ms()
        # From the first end on everything waits: many clients stop reading at a finish reason.
        self._holding = self._streamed.feed(data) or self._holding
        if self._streamed.error:
            return event.raw
        trimmed = chat.trim_chunk(data, self._call.ask)
        if trimmed is None:
            return None
        return event.raw if trimmed is data else sse.event(trimmed)

    def broke(self, error: ProxyError) -> None:
        """The engine's stream ended in the middle: say so in the stream."""
        self._broken = why(error, self._call)
        piece = sse.event(error.body())
        self.held.append(piece)
        self.pieces.append(piece)

    def finish(self) -> None:
        """The engine's stream is over."""
        streamed = self._streamed
        if not (streamed.ended or streamed.error or self._broken):
            self._broken = "the engine's stream ended without a finish reason"

    def captured(self) -> capture.Captured:
        """All of it as one reply."""
        found = self._streamed.captured()
        found.error = self._broken or found.error
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
