"""The gateway's process."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn

from odradek.agents.client.connection import KafkaConnection
from odradek.agents.errors import AddressTaken
from odradek.agents.gateway.access.authenticator import ClientAuthenticator
from odradek.agents.gateway.access.door import Admission
from odradek.agents.gateway.access.rates import RequestRates
from odradek.agents.gateway.app import GatewayApp
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.bus import BusSettings, require_topics
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.process import serve
from odradek.schemas.topics import CARDS

log = logging.getLogger("odradek.agents")


class Gateway:
    """Serves HTTP until it is stopped.

    Args:
        settings: The gateway's.
        bus: Where Kafka is.
        trust: The key by which requests are signed; the environment's if not given.

    Raises:
        ProjectError: It would let in whom it cannot tell apart.
    """

    def __init__(
        self, settings: GatewaySettings, bus: BusSettings, *, trust: TrustSettings | None = None
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._trust = trust or TrustSettings()
        self._authenticator = ClientAuthenticator.of(settings)
        if self._authenticator is not None and self._trust.signing_key is None:
            raise ProjectError(
                "a gateway that knows its clients signs for them, or all would share their tasks: "
                "set ODRADEK_TRUST_SIGNING_KEY (`odradek keys new gateway --principal 'key/*' "
                "--principal 'jwt/*'`)"
            )
        self._admission = Admission(self._authenticator, RequestRates.of(settings.rate))
        self._stop = asyncio.Event()
        self._server: _Server | None = None
        self.address = ""
        """Where clients reach it, once it listens."""
        self.grpc_address = ""
        """Where clients reach it by gRPC, once it serves that."""
        self.ready = asyncio.Event()
        """Set while it serves, and knows all cards."""

    def stop(self) -> None:
        """Take no further request; those under way get `shutdown_s`."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop()`. Raises what ended it before."""
        await require_topics(self._bus, [CARDS.name])
        async with AsyncExitStack() as serving_all:
            listening = serving_all.enter_context(bound(self._settings.host, self._settings.port))
            self.address = self._settings.public_url or _address_of(listening)
            log.info("gateway listens on %s, agents are at /agents", _address_of(listening))
            connection = await serving_all.enter_async_context(
                KafkaConnection(self._bus, group=self._settings.group, trust=self._trust)
            )
            app = GatewayApp(
                self._settings,
                self._bus,
                connection,
                address=self.address,
                admission=self._admission,
                security=self._authenticator.scheme if self._authenticator else None,
            )
            await serving_all.enter_async_context(self._grpc(app))
            known = asyncio.Event()
            work = {
                asyncio.create_task(app.cards.follow(known)),
                asyncio.create_task(self._stop.wait()),
            }
            serving = asyncio.create_task(self._serve(app, known, listening))
            done, _ = await asyncio.wait({*work, serving}, return_when=asyncio.FIRST_COMPLETED)
            if self._server is None:
                serving.cancel()  # it waits for the cards still
            else:
                self._server.should_exit = True
            await asyncio.wait({serving})
            for task in work:
                task.cancel()
            await asyncio.wait(work)  # the reader of cards gives its connection back
            for task in done:
                task.result()

    @asynccontextmanager
    async def _grpc(self, app: GatewayApp) -> AsyncIterator[None]:
        """Serve gRPC within the block, where a port is set for it."""
        if self._settings.grpc_port is None:
            yield
            return
        from odradek.agents.gateway.grpc_server import AgentService, grpc_serving

        given = (lambda: app.cards.agents, app.handler, self._admission)
        methods = [AgentService(*given).methods()]
        if self._settings.a2a_03:
            from odradek.agents.gateway.grpc_compatibility import AgentService03

            methods.append(AgentService03(*given).methods())
        async with grpc_serving(self._settings, *methods) as port:
            self.grpc_address = self._settings.grpc_address or f"{self._settings.host}:{port}"
            app.grpc_address = self.grpc_address
            yield

    async def _serve(self, app: GatewayApp, known: asyncio.Event, listening: socket.socket) -> None:
        await known.wait()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(self._settings.shutdown_s),
        )
        self._server = _Server(config, self.ready)
        await self._server.serve([listening])


class _Server(uvicorn.Server):
    """uvicorn's, which says when it serves and leaves signals to the process that it is in."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        self._ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal: `serve` has them."""
        yield


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises AddressTaken where it cannot."""
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise AddressTaken(
            f"the gateway cannot listen on {host}:{port}: {error.strerror}: choose another "
            "(ODRADEK_GATEWAY_HOST, ODRADEK_GATEWAY_PORT)"
        ) from None


def _address_of(listening: socket.socket) -> str:
    """The address of a socket, as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"


async def run(settings: GatewaySettings, bus: BusSettings) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    await serve(Gateway(settings, bus), "gateway")
