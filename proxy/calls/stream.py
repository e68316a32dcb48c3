"""A stream on its way from the engine to an agent."""

from typing import Final

from odradek.proxy.calls.call import ModelCall, why
from odradek.proxy.calls.keepalive import AgentStream
from odradek.proxy.dialects import cache_salt
from odradek.proxy.engines.client import EngineResponse
from odradek.proxy.episodes.draft import AgentReply
from odradek.proxy.errors import EngineError, ProxyError
from odradek.proxy.wire import reply, shapes, sse
from odradek.proxy.wire.body import error_of
from odradek.schemas.http.reply import ReplyBody

NOTHING: Final = ReplyBody()
DONE: Final = sse.ServerEvent(sse.event(sse.DONE), sse.DONE)
ENDING: Final = (sse.DONE, b"")


def speaks(body: ReplyBody) -> bool:
    """Whether a chunk says anything: before it does, an agent has nothing of a reply."""
    return any(
        value for choice in body.choices for name, value in choice.delta.items() if name != "role"
    )


class StreamRelay:
    """Passes a stream on, chunk by chunk, and holds back its end."""

    def __init__(self, call: ModelCall, line: AgentStream | None = None) -> None:
        self.parser = sse.Parser()
        self.held: list[bytes] = []
        self.pieces: list[bytes] = []
        """All that the agent gets, for a retry."""
        self.begun = False
        """Whether the agent has got, or is just about to get, anything of it."""
        self._early: list[bytes] = []
        """What comes before the first word, such as the role: it waits for that."""
        self._spoke = False
        self._call = call
        dialect = call.request.dialect
        self._streamed = reply.StreamCapture(
            dialect.read, call.request.digest, call.request.choices
        )
        self._stream = dialect.stream(call.request)
        self._holding = False
        self._done = False
        """The engine has said that its stream is over: no client reads on."""
        self._broken = ""
        self._line = line or AgentStream(call)

    @property
    def error(self) -> str:
        """The error in words, "" for none."""
        return self._broken or self._streamed.error

    def answer(self, status: int) -> AgentReply:
        """All that the agent gets, for a retry."""
        headers = self._line.headers
        return AgentReply(status=status, headers=headers, chunks=tuple(self.pieces), streamed=True)

    async def take(self, upstream: EngineResponse, headers: dict[str, str]) -> None:
        """Take in a good answer as it comes, whole ones as streams of one chunk.

        What it calls itself is what its bytes are, as a rule, and where not, these decide.
        """
        chunk = await upstream.more()
        while chunk and sse.is_stream(chunk, declared=upstream.streams) is None:
            if not (more := await upstream.more()):
                break
            chunk += more
        if sse.is_stream(chunk, declared=upstream.streams):
            # What the agent gets is a stream of its dialect's type, whatever the engine's is.
            self._line.headers = headers if upstream.streams else headers | self._line.headers
            while chunk:
                await self.feed(chunk)
                chunk = await upstream.more()
        else:
            chunk += await upstream.read()
            for data in shapes.chunks(chunk, self._call.request.dialect.read):
                await self.feed(sse.event(data))
        await self.feed(b"\n\n" if self.parser.rest else b"")
        self.finish()

    async def feed(self, chunk: bytes) -> None:
        """Take in what came from the engine."""
        ready: list[bytes] = []
        for event in self.parser.feed(chunk):
            piece = self._piece(event)
            if not piece:
                continue
            self.pieces.append(piece)
            if not self._spoke and not self._holding:
                self._early.append(piece)
                if spoke := speaks(self._streamed.body):
                    self._spoke = spoke
                    ready, self._early = self._early, []
                continue
            (self.held if self._holding else ready).append(piece)
        if ready:
            await self._write(b"".join(ready))

    @property
    def rest(self) -> bytes:
        """The end, and what has waited for it."""
        return b"".join([*self._early, *self.held])

    def _piece(self, event: sse.ServerEvent) -> bytes:
        data, streamed = event.data, self._streamed
        if data is None or self._done or streamed.error:
            # A gateway's own sign of life would begin the response, as ours do late. Nothing that
            # follows an error may look like a good end, and what follows the end no client reads.
            return b""
        if not data.startswith(b"{") and data.strip() in ENDING:
            # An event without data is none, and clients fail on it.
            if data.strip() != sse.DONE:
                return b""
            self._holding = self._done = True
            return self._stream.feed(DONE, NOTHING)
        if self._call.ttft_ms is None:
            self._call.ttft_ms = self._call.ms()
        # From the first end on everything waits: many clients stop reading at a finish reason.
        self._holding = streamed.feed(data) or self._holding
        if event.error and not streamed.bad:
            streamed.bad = streamed.error = error_of(data, 500)
        if streamed.bad:
            self._holding = True
            self._drop()
            if cache_salt.FIELD in data:
                return self._stream.fail(EngineError(cache_salt.HIDDEN))
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
        """The bytes that the agent gets in place of the end."""
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

    def captured(self) -> list[reply.CapturedReply]:
        """All of it as one reply, choice by choice."""
        captured = self._streamed.captured()
        for choice in captured:
            choice.error = self._broken or choice.error
        return captured

    async def _write(self, data: bytes) -> None:
        if not self._call.joined and not self._call.gone:
            self.begun = True
            await self._line.write(data)
