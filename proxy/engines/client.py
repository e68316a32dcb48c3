"""The engine, over aiohttp: one pool without bounds, since httpx's scans all its connections.

What an engine is, is asked before its first call; its adapter stays until its connection fails.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
from yarl import URL

from odradek.proxy.engines.adapter import EngineAdapter
from odradek.proxy.engines.logprobs_mode import LogprobsMode
from odradek.proxy.engines.recognition import DEFAULT, name_lacks, recognize
from odradek.proxy.engines.versions import SentVersion
from odradek.proxy.errors import EngineBroke, EngineSlow, EngineUnreachable, ReplyTooLarge

KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which uvicorn, and so most engines, close an idle connection."""
PASSED: Final = ("Content-Type", "Retry-After", "X-Request-Id")
"""Headers of the engine that agents get."""
RECOGNIZE_S: Final = 10.0
"""How long an engine may take to say what it is."""
BUSY: Final = frozenset({429, 503})
"""Statuses of an engine that takes no call just now."""


class Probe(Protocol):
    """Finds out which distribution an engine's log probabilities are of."""

    mode: LogprobsMode | None
    """None until it was asked."""

    async def prove(self) -> LogprobsMode:
        """Ask, unless it is known."""


class EngineAttempt:
    """How far a call has come to the engine that it is sent to."""

    def __init__(self) -> None:
        self.connect_s = 0.0
        self.since: float | None = None
        """When it was sent to an engine (`perf_counter`); None while it is sent to none."""

    def begins(self, connect_s: float) -> None:
        """The call is sent to an engine; a connection to that engine may take `connect_s`."""
        self.connect_s, self.since = connect_s, time.perf_counter()

    def has_call(self) -> bool:
        """Whether the engine must have the call by now: no connection would be an error by now."""
        return self.since is not None and time.perf_counter() - self.since > self.connect_s


class Connected:
    """A block in which a connection may fail; its failure is raised as our error.

    A class and no generator: each call enters it three times.
    """

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        """Nothing to open."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Raise EngineSlow, EngineUnreachable or EngineBroke for what aiohttp raised."""
        if error is None:
            return
        if isinstance(error, aiohttp.SocketTimeoutError):
            raise EngineSlow(f"the engine at {self._url} sent nothing for too long") from None
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
            raise EngineUnreachable(
                f"no inference engine answers at {self._url}: is it running? "
                "(ODRADEK_ENGINE_URL says where it is)"
            ) from error
        if isinstance(error, aiohttp.ClientError | ConnectionError):
            raise EngineBroke(
                f"the connection to the engine broke: {type(error).__name__}"
            ) from error


class EngineResponse:
    """An engine's answer whose head is there; its body is read within its block.

    Args:
        response: As aiohttp has it.
        connected: What its connection's errors become.
        max_bytes: Beyond so many, after decompression, the answer is given up: ReplyTooLarge.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, connected: Connected, max_bytes: int
    ) -> None:
        self.status: Final = response.status
        self.sent: SentVersion | None = None
        """The state of the engine when the call was sent, if the call samples."""
        self.engine = ""
        """The address of the engine that answered, if the pool sent the call."""
        self.proving: Probe | None = None
        """The probe of the engine's log probabilities, if engines are probed."""
        self._response = response
        self._connected = connected
        self._max_bytes = max_bytes
        self._size = 0
        self._whole: bytes | None = None

    async def __aenter__(self) -> Self:
        """Its connection is its own until the block ends."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Give the connection back; one on which more would come is closed."""
        with self._connected:
            await self._response.__aexit__(kind, error, at)

    async def close(self) -> None:
        """Give the connection back, whatever is left of the body."""
        await self.__aexit__(None, None, None)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that an agent gets: with Retry-After, which SDKs obey, if busy."""
        received = self._response.headers
        passed = {name: received[name] for name in PASSED if name in received}
        if self.status in BUSY:
            passed.setdefault("Retry-After", "1")
        return passed

    @property
    def streams(self) -> bool:
        """Whether it is a stream of events."""
        return self.status == 200 and self._response.content_type == "text/event-stream"

    async def more(self) -> bytes:
        """The next bytes of its body; none once it is over."""
        with self._connected:
            chunk = await self._response.content.readany()
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise ReplyTooLarge(f"the engine's reply exceeds {self._max_bytes} bytes")
        return chunk

    async def read(self) -> bytes:
        """Its whole body, however often it is asked for."""
        if self._whole is None:
            chunks = []
            while chunk := await self.more():
                chunks.append(chunk)
            self._whole = b"".join(chunks)
        return self._whole


class TranslatedResponse(EngineResponse):
    """The answer of an engine with words of its own: read as a whole, and translated once.

    Args:
        response: As aiohttp has it.
        connected: What its connection's errors become.
        max_bytes: Beyond so many, the answer is given up: ReplyTooLarge.
        translate: From the engine's words to the surface's.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        connected: Connected,
        max_bytes: int,
        translate: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(response, connected, max_bytes)
        self._translate = translate
        self._over = False

    async def more(self) -> bytes:
        """All of its body at once; none after that."""
        if self._over:
            return b""
        self._over = True
        chunks = []
        while chunk := await super().more():
            chunks.append(chunk)
        body = b"".join(chunks)
        return self._translate(body) if 200 <= self.status < 300 else body


class Engine:
    """Sends requests to an engine: all paths and bodies are those of the engine's surface.

    Its errors are EngineUnreachable, EngineBroke, EngineSlow, ReplyTooLarge and CapabilityMissing.

    Args:
        url: Its root.
        key: Its own credential, where it wants one.
        connect_s: How long a connection may take.
        max_bytes: Largest answer.
        recognizes: Whether it is asked what it is; else it has the default adapter.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        connect_s: float = 5.0,
        max_bytes: int = 2**26,
        recognizes: bool = False,
    ) -> None:
        self.url = url
        self.connect_s = connect_s
        self.adapter: EngineAdapter = DEFAULT
        """The adapter for the engine that answered last."""
        self._recognizes = self._unknown = recognizes
        self._recognizing = asyncio.Lock()
        self._max_bytes = max_bytes
        self._connected = Connected(url)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
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

    def forget(self) -> None:
        """Whatever answers there next may be another engine."""
        self._unknown = self._recognizes

    async def recognize(self) -> None:
        """Ask what it is, unless that is known; concurrent callers wait for the same answer."""
        async with self._recognizing:
            if not self._unknown:
                return
            try:
                adapter = await recognize(partial(self._get, timeout_s=RECOGNIZE_S))
            except EngineBroke as error:  # no call was sent, so none may have been sampled
                raise EngineUnreachable(str(error)) from error
            if adapter is None:
                return
            self._unknown = False
            if adapter.name != self.adapter.name:
                name_lacks(self.url, adapter)
            self.adapter = adapter
            self._routes.clear()

    async def ask(
        self, path: str, body: bytes, traceparent: str | None, *, lora: str = ""
    ) -> EngineResponse:
        """Post to one of the surface's routes; `lora` names the adapter that is to answer."""
        if self._unknown:
            await self.recognize()
        if (url := self._routes.get(path)) is None:
            url = self._routes[path] = URL(self.url + self.adapter.path(path))
        headers = self._headers
        if traceparent:
            headers = {**headers, "traceparent": traceparent}
        adapter = self.adapter
        if lora:
            body = adapter.named(body, lora)
        if not adapter.native:
            body = adapter.request(path, body)
        with self._connected:
            response = await self._pool.post(url, data=body, headers=headers, allow_redirects=False)
        if adapter.native:
            return EngineResponse(response, self._connected, self._max_bytes)
        translate = partial(adapter.reply, path)
        return TranslatedResponse(response, self._connected, self._max_bytes, translate)

    async def get(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers for the agent, and body of one of the surface's routes."""
        if self._unknown:
            await self.recognize()
        return await self._get(self.adapter.path(path), timeout_s=timeout_s)

    async def _get(self, path: str, *, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
        try:
            # Where aiohttp's own limit and a cancellation meet, it loses the cancellation.
            async with asyncio.timeout(timeout_s):
                with self._connected:
                    response = await self._pool.get(
                        self.url + path, headers=self._headers, allow_redirects=False
                    )
                async with EngineResponse(response, self._connected, self._max_bytes) as answer:
                    return answer.status, answer.headers, await answer.read()
        except TimeoutError:
            raise EngineUnreachable(
                f"the engine at {self.url} did not answer within {timeout_s:g} s"
            ) from None
