"""An A2A agent behind HTTP, in any language, as an agent: each run is a task there.

Where its model is, the message says in its metadata, under the extension `MODEL`. The address is
its operator's choice, so it may be on loopback; what its card names must be on the same host and
port, and no redirect is followed: a run's token goes to that place alone.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx
from a2a.client import A2ACardResolver, Client, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.server.agent_execution import AgentExecutor
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
)
from a2a.utils.errors import A2AError, TaskNotFoundError, UnsupportedOperationError

from odradek.agents.binding import MODEL
from odradek.agents.errors import RunnerError
from odradek.agents.rollout import Rollout, UpstreamUnavailable
from odradek.agents.runners.executor import rollout_of
from odradek.agents.runners.relay import EventRelay

BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
"""What is spoken to agents, in the order of preference where a card leaves the choice."""
CONNECT_S: Final = 10.0
CANCEL_S: Final = 3.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
EXTENSIONS: Final = "A2A-Extensions"
HEADERS: Final = {
    "base_url": "X-Odradek-Base-Url",
    "api_key": "X-Odradek-Api-Key",
    "model": "X-Odradek-Model",
    "episode_id": "X-Odradek-Episode-Id",
}
"""The same four values as headers, for servers that cannot look into a message."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - as cards name it
PORTS: Final = {"http": 80, "https": 443}


class HttpRunner(AgentExecutor):
    """Plays runs by an A2A agent behind HTTP, over JSON-RPC or REST as its card says.

    Args:
        url: Where its card is: the address before `/.well-known/agent-card.json`.

    Raises:
        RunnerError: It is no HTTP address.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        place = urlsplit(self._url)
        if place.scheme not in PORTS or not place.hostname:
            raise RunnerError(f"{url!r} is no HTTP address of an agent: begin it with http://")
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def aclose(self) -> None:
        """Let go of its connections."""
        await self._http.aclose()

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK. Raises UpstreamUnavailable where the agent, or its task, is lost."""
        relay = EventRelay(context, event_queue)
        try:
            await self._play(relay, self._request(context, relay), _service(context))
        except asyncio.CancelledError:
            await self._cancel(relay)
            raise
        except (A2AClientError, TaskNotFoundError, RunnerError, httpx.HTTPError) as error:
            raise UpstreamUnavailable(f"the agent at {self._url} was lost: {error}") from error

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits, which cancels the task there."""

    async def _play(
        self, relay: EventRelay, request: SendMessageRequest, called: ClientCallContext
    ) -> None:
        client = await self._connected()
        pause = FIRST_PAUSE_S
        events = client.send_message(request, context=called)
        while True:
            try:
                await _relay(relay, events)
            except A2AClientError as error:
                # Nothing was sent, or it is known which task it became: all else may be done twice.
                if not relay.heard and not isinstance(error.__cause__, httpx.ConnectError):
                    raise
            if relay.over:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            events = (
                self._follow(client, relay)
                if relay.heard
                else client.send_message(request, context=called)
            )

    async def _follow(self, client: Client, relay: EventRelay) -> AsyncIterator[StreamResponse]:
        """The task as it stands; then its further events, if the agent streams any."""
        task = await client.get_task(GetTaskRequest(id=relay.task_id))
        yield StreamResponse(task=task)
        if relay.over or not self._streams:
            return
        with suppress(UnsupportedOperationError):  # it ended meanwhile
            async for event in client.subscribe(SubscribeToTaskRequest(id=relay.task_id)):
                yield event

    async def _cancel(self, relay: EventRelay) -> None:
        """End the task there as well; if that cannot be done in a moment, it goes on for nobody."""
        if self._client is None or not relay.task_id or relay.over:
            return
        with suppress(A2AError, httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._client.cancel_task(CancelTaskRequest(id=relay.task_id))

    def _request(self, context: Any, relay: EventRelay) -> SendMessageRequest:
        """The message to the agent: what the host got, and where its model is."""
        rollout, given = rollout_of(context), context.message
        message = Message(
            message_id=f"{rollout.episode_id}/{given.message_id}",
            role=Role.ROLE_USER,
            parts=[_plain(part) for part in given.parts],
            task_id=relay.task_id,
            context_id=relay.context_id,
        )
        if rollout.api_key:
            message.extensions.append(MODEL)
            message.metadata.update({MODEL: _model_of(rollout)})
        return SendMessageRequest(message=message)

    async def _connected(self) -> Client:
        """A client of the agent, by its card. Raises RunnerError."""
        async with self._connecting:
            while self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> Client | None:
        """The client; None, after a pause, if nobody listens: the agent may come up."""
        try:
            card = await A2ACardResolver(self._http, self._url).get_agent_card()
        except A2AClientError as error:
            if isinstance(error.__cause__, httpx.ConnectError):
                await asyncio.sleep(FIRST_PAUSE_S)
                return None
            raise
        here = urlsplit(self._url)
        spoken = [one for one in card.supported_interfaces if one.protocol_binding in BINDINGS]
        near = [one for one in spoken if _same_place(urlsplit(one.url), here)]
        if not near:
            named = ", ".join(one.url for one in spoken)
            raise RunnerError(
                f"the card at {self._url} names addresses on other hosts ({named}): give one of "
                "them as --a2a-url, if you mean that one"
                if spoken
                else f"the card at {self._url} offers none of {', '.join(BINDINGS)}"
            )
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(near)
        self._streams = card.capabilities.streaming
        # Without streams the agent need not hold a connection for as long as it works.
        config = ClientConfig(
            httpx_client=self._http,
            streaming=self._streams,
            polling=not self._streams,
            supported_protocol_bindings=list(BINDINGS),
        )
        return ClientFactory(config).create(card)


async def _relay(relay: EventRelay, events: AsyncIterator[StreamResponse]) -> None:
    try:
        async for event in events:
            await relay.take(event)
            if relay.over:
                return
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _service(context: Any) -> ClientCallContext:
    """Headers of a call: which extension it uses, and its values, for servers that read these."""
    rollout = rollout_of(context)
    if not rollout.api_key:
        return ClientCallContext()
    values = {HEADERS[name]: value for name, value in _model_of(rollout).items()}
    if rollout.traceparent:
        values["traceparent"] = rollout.traceparent
    return ClientCallContext(service_parameters={EXTENSIONS: MODEL, **values})


def _model_of(rollout: Rollout) -> dict[str, str]:
    """Where a run's model is, as the extension `MODEL` says it."""
    return {
        "base_url": rollout.base_url,
        "api_key": rollout.api_key,
        "model": rollout.model,
        "episode_id": rollout.episode_id,
    }


def _plain(part: Part) -> Part:
    """A part as agents expect it: a task whose input is a string is a text."""
    if part.WhichOneof("content") == "data" and part.data.WhichOneof("kind") == "string_value":
        return Part(text=part.data.string_value)
    return part


def _same_place(one: SplitResult, other: SplitResult) -> bool:
    """Whether two addresses are of one scheme, host and port; loopback has several names."""

    def place(url: SplitResult) -> tuple[str, str, int]:
        host = "localhost" if url.hostname in LOOPBACK else url.hostname or ""
        return url.scheme, host, url.port or PORTS.get(url.scheme, 0)

    return place(one) == place(other)
