"""Clients of A2A 0.3, where a gateway serves them: the SDK's adapters, at an address of their own.

An agent's address for them ends in `/v0.3`. What stands behind it is the same handler that serves
A2A 1.0, so a task that one client began is there for the other.
"""

from typing import Final

from a2a.compat.v0_3.rest_adapter import REST03Adapter
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.types import AgentInterface
from starlette.routing import Route

from odradek.agents.gateway.cards import GRPC, JSONRPC, REST

VERSION_03: Final = "0.3"
PATH_03: Final = "/v0.3"
"""Where an agent is for clients of A2A 0.3, below its own address."""


def interfaces_03(address: str, grpc_address: str) -> list[AgentInterface]:
    """What an agent's card says to clients of A2A 0.3.

    Args:
        address: The agent's address at the gateway.
        grpc_address: Where gRPC of A2A 0.3 reaches the agent; "": nowhere.
    """
    places = [(JSONRPC, address + PATH_03), (REST, address + PATH_03)]
    if grpc_address:
        places.append((GRPC, grpc_address))
    return [
        AgentInterface(url=url, protocol_binding=binding, protocol_version=VERSION_03)
        for binding, url in places
    ]


def routes_03(handler: RequestHandler) -> list[Route]:
    """JSON-RPC at the address itself, and REST below it (A2A 0.3, section 3.2)."""
    rest = REST03Adapter(handler).routes().items()
    return [
        *create_jsonrpc_routes(handler, PATH_03, enable_v0_3_compat=True),
        *(Route(PATH_03 + path, answer, methods=[method]) for (path, method), answer in rest),
    ]
