"""A response of server-sent events whose frames are bytes already.

sse-starlette's takes several cancel scopes for each event of each stream; of a hundred streams on
one task that was a third of the gateway's work.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PING: Final = b": ping\r\n\r\n"
END: Final = {"type": "http.response.body", "body": b"", "more_body": False}
LONGEST_S: Final = 3600.0
PING_S: Final = 15.0
"""After so long without an event a comment is sent, so that nobody on the way hangs up."""


class EventResponse(Response):
    """Sends frames as they come, until they end or the client has gone.

    Args:
        frames: Events on the wire; closed with the response.
        longest_s: After so long the response ends; its client goes on by Last-Event-ID.
        ping_s: See `PING_S`.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        longest_s: float = LONGEST_S,
        ping_s: float = PING_S,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._longest_s = longest_s
        self._ping_s = ping_s
        self._sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, the frames and the end."""
        del scope
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        gone = asyncio.create_task(_gone(receive))
        sending = asyncio.create_task(self._send(send))
        over = asyncio.create_task(asyncio.sleep(self._longest_s))
        try:
            while not (gone.done() or sending.done() or over.done()):
                self._sent = False
                done, _ = await asyncio.wait(
                    {gone, sending, over}, timeout=self._ping_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not (done or self._sent):
                    await send(_body(PING))
        finally:
            gone.cancel()
            sending.cancel()
            late = over.done()
            over.cancel()
            await asyncio.wait({gone, sending, over})
        if not sending.cancelled():
            sending.result()
        elif late:
            await send(END)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            async for frame in frames:
                self._sent = True
                await send(_body(frame))
        await send(END)


def _body(frame: bytes) -> dict[str, object]:
    return {"type": "http.response.body", "body": frame, "more_body": True}


async def _gone(receive: Receive) -> None:
    """Return once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
