"""The media types of REST's bodies: a client is answered in the type that it speaks.

A2A 1.0.0 asks for `application/json` (section 11.1); 1.0.1 says that `application/a2a+json`
should be used. The SDK answers with the second; whoever does not speak it gets the first.
"""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

A2A_JSON: Final = "application/a2a+json"
JSON: Final = "application/json"


class MediaTypes:
    """An ASGI application whose answers are `application/json` for those who ask for no other.

    Args:
        app: Answers with `application/a2a+json`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        asked = Headers(scope=scope)
        spoken = f"{asked.get('content-type', '')} {asked.get('accept', '')}".lower()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and A2A_JSON not in spoken:
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith(A2A_JSON):
                    headers["content-type"] = JSON
            await send(message)

        await self._app(scope, receive, answer)
