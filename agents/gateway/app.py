"""Routes of the gateway: an agent's card, its JSON-RPC endpoint and its REST endpoints."""

import re
from email.utils import formatdate
from functools import partial
from typing import Final, TypeVar

from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.types import AgentCard, AgentInterface
from a2a.types.a2a_pb2 import SecurityScheme
from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP, ContentTypeNotSupportedError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from odradek.agents.cards.signatures import CardSigner
from odradek.agents.client.connection import KafkaConnection
from odradek.agents.client.transport import KafkaTransport
from odradek.agents.gateway.access.door import Admission, Door
from odradek.agents.gateway.bus_handler import BusHandler
from odradek.agents.gateway.cards import REST_PATH, CardDirectory, at_gateway
from odradek.agents.gateway.compatibility import interfaces_03, routes_03
from odradek.agents.gateway.event_routes import EventRoutes
from odradek.agents.gateway.event_streams import EventStreams
from odradek.agents.gateway.media_types import JSON, MediaTypes
from odradek.agents.settings import GatewaySettings
from odradek.infra.bus import BusSettings

Guarded = TypeVar("Guarded", Route, Mount)
AGENTS: Final = "/agents"
ADDRESS: Final = re.compile(AGENTS + "/[^/]+")


class GatewayApp:
    """The gateway's ASGI application.

    Args:
        settings: The gateway's.
        bus: Where Kafka is.
        connection: The gateway's place on the bus.
        address: Where clients reach the gateway.
        admission: Decides who may ask; not given: anybody.
        security: What clients send as credentials, for agents' cards; None: nothing.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        bus: BusSettings,
        connection: KafkaConnection,
        *,
        address: str,
        admission: Admission | None = None,
        security: SecurityScheme | None = None,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._connection = connection
        self._root = address
        self._admission = admission or Admission(None, None)
        self._security = security
        self._apps: dict[str, ASGIApp] = {}
        self._signer = CardSigner.from_file(settings.card_key) if settings.card_key else None
        self.grpc_address = ""
        """Where clients reach gRPC; "": it is not served."""
        self.cards = CardDirectory(bus, self._forget)
        self._app: ASGIApp = Starlette(
            routes=[
                Route("/healthz", self._healthy),
                self._guarded(Route(AGENTS, self._list)),
                Mount(AGENTS + "/{agent}", app=self._agent, max_body_size=settings.max_body_bytes),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. An agent's address is the same with and without a slash at its end."""
        if scope["type"] == "http" and ADDRESS.fullmatch(scope["path"]):
            scope = {**scope, "path": scope["path"] + "/", "raw_path": scope["raw_path"] + b"/"}
        await self._app(scope, receive, send)

    def _forget(self, agent: str) -> None:
        """Make all routes anew: whether an agent is the only one stands on its card, too."""
        del agent
        self._apps.clear()

    async def _healthy(self, request: Request) -> Response:
        del request
        return JSONResponse({"agents": len(self.cards.agents)})

    async def _list(self, request: Request) -> Response:
        """The agents, and where each one's card is."""
        del request
        agents = {agent: self._address(agent) for agent in self.cards.agents}
        return JSONResponse({"agents": agents})

    def _address(self, agent: str) -> str:
        return f"{self._root}{AGENTS}/{agent}"

    async def _agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the routes of the agent that its path names."""
        agent = scope["path_params"]["agent"]
        app = self._apps.get(agent)
        if app is None:
            known = self.cards.get(agent)
            if known is None:
                absent = f"no agent {agent!r} has a card: is its host running?"
                await JSONResponse({"error": absent}, status_code=404)(scope, receive, send)
                return
            app = self._apps[agent] = self._routes_of(agent)
        await app(scope, receive, send)

    def handler(self, agent: str) -> BusHandler:
        """A request handler that asks an agent over Kafka."""
        transport = KafkaTransport(self._connection, agent, timeout_s=self._settings.call_s)
        shown = partial(self._shown, agent)
        return BusHandler(transport, shown, stream_s=self._settings.stream_s)

    def _shown(self, agent: str, card: AgentCard) -> AgentCard:
        """A card as the gateway shows it: with its addresses, signed where it has a key."""
        address = self._address(agent)
        shown = at_gateway(
            card,
            address,
            grpc_address=self.grpc_address,
            agent=agent,
            security=self._security,
            earlier=self._earlier(address),
        )
        return self._signer.signed(shown) if self._signer is not None else shown

    def _earlier(self, address: str) -> list[AgentInterface]:
        """Where clients of A2A 0.3 reach an agent."""
        if not self._settings.a2a_03:
            return []
        alone = len(self.cards.agents) == 1
        return interfaces_03(address, self.grpc_address if alone else "")

    def _routes_of(self, agent: str) -> ASGIApp:
        known = self.cards.get(agent)
        assert known is not None
        handler = self.handler(agent)
        card_routes = create_agent_card_routes(
            self._shown(agent, known.card),
            cache_control=f"public, max-age={self._settings.card_age_s:.0f}",
        )
        routes: list[BaseRoute] = [dated(route, known.published_at) for route in card_routes]
        streams = EventStreams(
            handler, DefaultServerCallContextBuilder(), longest_s=self._settings.stream_s
        )
        rpc = create_jsonrpc_routes(handler, "/")
        routes += [self._guarded(typed(route, streams)) for route in rpc]
        rest = Starlette(routes=[*streams.rest_routes(), *create_rest_routes(handler)])
        routes.append(self._guarded(Mount(REST_PATH, MediaTypes(rest))))
        events = EventRoutes(agent, self._bus, self._connection, longest_s=self._settings.stream_s)
        routes += [self._guarded(route) for route in events.routes]
        if self._settings.a2a_03:
            routes += [self._guarded(route) for route in routes_03(handler)]
        return Starlette(routes=routes)

    def _guarded(self, route: Guarded) -> Guarded:
        """A route that wants credentials, where the gateway does. Cards and health need none."""
        route.app = Door(route.app, self._admission)
        return route


def dated(route: Route, moment: float) -> Route:
    """A card's route whose answers say since when the card stands (RFC 9110, 8.8.2).

    Args:
        route: The SDK's.
        moment: Unix seconds.
    """
    answer = route.endpoint

    async def endpoint(request: Request) -> Response:
        response: Response = await answer(request)
        response.headers["Last-Modified"] = formatdate(moment, usegmt=True)
        return response

    return Route(route.path, endpoint, methods=["GET"])


def typed(route: Route, streams: EventStreams) -> Route:
    """A JSON-RPC route that refuses what does not call itself JSON (A2A section 9.5).

    Args:
        route: The SDK's.
        streams: Answers what streams.
    """
    answer = route.endpoint
    error = ContentTypeNotSupportedError()

    async def endpoint(request: Request) -> Response:
        kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if kind == JSON:
            stream = await streams.json_rpc(request)
            response: Response = stream or await answer(request)
            return response
        code = JSON_RPC_ERROR_CODE_MAP[ContentTypeNotSupportedError]
        body = {"code": code, "message": f"{error.message}: send {JSON}"}
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": body})

    return Route(route.path, endpoint, methods=["POST"])
