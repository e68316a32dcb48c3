"""A webhook's receiver: writes down what it gets, and answers as it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from aiohttp import web


class Post(msgspec.Struct, frozen=True):
    """What came."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def event(self) -> Any:
        """The StreamResponse."""
        return msgspec.json.decode(self.body)

    @property
    def generation(self) -> int:
        """Of the task, by the delivery's id."""
        return int(self.headers["webhook-id"].rpartition(".")[2])


class WebhookReceiver:
    """Listens on loopback."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.answer: Callable[[Post], web.Response] = lambda post: web.Response(status=204)
        self.url = ""

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): text for name, text in request.headers.items()}
        post = Post(request.path, headers, await request.read())
        self.posts.append(post)
        return self.answer(post)

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["WebhookReceiver"]:
        """Listen."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def until(self, condition: Callable[[list[Post]], bool]) -> list[Post]:
        """The posts once they are as wanted."""
        async with asyncio.timeout(60):
            while not condition(self.posts):
                await asyncio.sleep(0.02)
        return self.posts
