"""The agent's side of a streamed call: its response, and pings while the engine is silent.

Watchdogs of agents and the balancers before them end a call on which nothing has come for 20 to
60 s, and a model may think that long. So while nothing else goes out, a ping does, which no client
takes for a part of the reply. It begins the response: from there on the call has no status to end
with. So while engines are asked it waits until one has the call; behind it another one may still
give the reply. litellm#32491
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from aiohttp import web

from odradek.proxy.dialects.dialect import ParsedRequest

SILENCE_S: Final = 10.0
"""For so long an agent hears nothing."""
PATIENT: Final = 1.2
"""Of it, how much more goes by in which only we are waited for: the log is given up after 10 s."""
AGAIN_S: Final = 1.0
"""How often we look whether a sign of life may go out that is overdue."""


def always() -> bool:
    """Nothing is left to try that the first byte would foreclose."""
    return True


class Caller(Protocol):
    """Who waits for the reply of a call."""

    client: web.Request
    request: ParsedRequest
    begun: float

    def ms(self) -> float:
        """Milliseconds since it began."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for this call's reply."""

    @property
    def joined(self) -> bool:
        """Whether a retry waits for this call's reply."""


class AgentStream:
    """One response to an agent, written piece by piece.

    Args:
        call: Whose it is.
        silence_s: After how long without a byte a sign of life is due.
    """

    def __init__(self, call: Caller, *, silence_s: float = SILENCE_S) -> None:
        self.headers: dict[str, str] = {"Content-Type": "text/event-stream"}
        self.begun = False
        """Whether the agent has seen anything yet, or is just about to."""
        self._call = call
        self._silence_s = silence_s
        self._client: web.Request | None = None
        self._response: web.StreamResponse | None = None
        self._preparing = asyncio.Lock()
        self._over = False
        self._last = 0.0
        self._may: Callable[[], bool] = always
        self._timer: asyncio.TimerHandle | None = None
        self._sign: asyncio.Task[None] | None = None

    def overdue(self) -> bool:
        """Whether one may go out before an engine is asked: while the log is, or a prompt is made.

        A little later than any other, so that a log which takes nothing is a status all the same.
        """
        return self._call.ms() >= 1000 * PATIENT * self._silence_s

    def watch(self, may: Callable[[], bool]) -> None:
        """From now on give signs of life, whenever one is due and `may` allows it."""
        self._may = may
        self._client = self._call.client
        if self._timer is None and not self._over and self._call.request.dialect.ping:
            self._last = self._call.begun
            self._due()

    def _due(self) -> None:
        if self._call.gone or self._call.joined:
            return  # nobody hears it; a retry has a line of its own
        now = time.perf_counter()
        left = self._last + self._silence_s - now
        if left <= 0 and (self.begun or self._may()):
            self.begun = True
            self._last, left = now, self._silence_s
            if self._sign is None or self._sign.done():
                self._sign = asyncio.create_task(self.write(self._call.request.dialect.ping))
        elif left <= 0:
            left = min(AGAIN_S, self._silence_s)
        self._timer = asyncio.get_running_loop().call_later(left, self._due)

    async def write(self, data: bytes) -> None:
        """Write to the agent, unless it has left: then its turn is cut, and a retry may join."""
        self.begun = True
        with suppress(ConnectionResetError):
            response = await self._prepared()
            if not self._over:
                self._last = time.perf_counter()
                await response.write(data)

    async def _prepared(self) -> web.StreamResponse:
        """The response, its head sent."""
        if self._response is None:
            async with self._preparing:
                if self._response is None:
                    response = web.StreamResponse(headers=self.headers)
                    await response.prepare(self._client or self._call.client)
                    self._response = response
        return self._response

    async def end(self, data: bytes) -> web.StreamResponse:
        """Write the end."""
        self.begun = True
        with suppress(ConnectionResetError):
            response = await self._prepared()
            self._over = True
            await response.write_eof(data)
        self.stop()
        return self._response or web.Response(status=499)

    def stop(self) -> None:
        """Give no further sign of life."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sign is not None and self._response is not None:
            self._sign.cancel()
