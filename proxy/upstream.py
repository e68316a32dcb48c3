"""The engine, over aiohttp: one pool without bounds, since httpx's scans all its connections."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import aiohttp
from yarl import URL

from odradek.proxy.errors import EngineBroke, EngineError, EngineSlow, EngineUnreachable

KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so vLLM, closes an idle connection on its side."""
PASSED: Final = ("Content-Type", "Retry-After", "X-Request-Id")
"""Headers of the engine that agents get."""
BUSY: Final = frozenset({429, 503})
"""Statuses of an engine that takes no call just now."""


class Engine:
    """Sends requests to an engine.

    Its errors are EngineUnreachable, EngineBroke and EngineSlow.

    Args:
        url: Its root.
        key: Its own credential, where it wants one.
        connect_s: How long a connection may take.
        read_s: How long it may send nothing; None where only the call's deadline counts.
    """

    def __init__(
        self, url: str, *, key: str = "", connect_s: float = 5.0, read_s: float | None = None
    ) -> None:
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=read_s)
        self._routes: dict[str, URL] = {}
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool; no connection is made yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=self._timeout,
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
            # Without these an agent's proxy variables or .netrc would decide where calls go.
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()

    @property
    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineUnreachable("the pool of connections to the engine is not open")
        return self._session

    @asynccontextmanager
    async def ask(
        self, path: str, body: bytes, traceparent: str | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Post to one of the engine's routes; the answer's head is there, its body to be read."""
        if (url := self._routes.get(path)) is None:
            url = self._routes[path] = URL(self.url + path)
        headers = self._headers
        if traceparent:
            headers = {**headers, "traceparent": traceparent}
        with self._told():
            async with self._pool.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response

    async def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers for the agent, and body of an address of the engine."""
        with self._told():
            try:
                async with self._pool.get(
                    self.url + path,
                    headers=self._headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=timeout_s),
                ) as response:
                    return response.status, passed(response), await response.read()
            except TimeoutError:
                raise EngineUnreachable(
                    f"the engine at {self.url} did not answer within {timeout_s:g} s"
                ) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with a connection, as an error of ours."""
        try:
            yield
        except EngineError:
            raise
        except aiohttp.SocketTimeoutError:
            raise EngineSlow(f"the engine at {self.url} sent nothing for too long") from None
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            raise EngineUnreachable(
                f"no inference engine answers at {self.url}: is it running? "
                "(ODRADEK_ENGINE_URL says where it is)"
            ) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise EngineBroke(
                f"the connection to the engine broke: {type(error).__name__}"
            ) from error


def passed(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The headers of the engine that an agent gets: with Retry-After, which SDKs obey, if busy."""
    found = {name: response.headers[name] for name in PASSED if name in response.headers}
    if response.status in BUSY:
        found.setdefault("Retry-After", "1")
    return found
