"""gRPC of A2A 0.3, where a gateway serves it: beside that of 1.0, at the same port.

Its requests have no tenant, so they cannot name an agent: they reach the only one that there is.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from typing import Any, Final

import grpc
from a2a.compat.v0_3.a2a_v0_3_pb2 import DESCRIPTOR
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.server.request_handlers import RequestHandler
from google.protobuf.message_factory import GetMessageClass

from odradek.agents.gateway.access.door import Admission
from odradek.agents.gateway.grpc_server import GrpcCallContexts, admitted

SERVICE_03: Final = DESCRIPTOR.services_by_name["A2AService"]


class AgentService03:
    """A2A 0.3's gRPC service for the only agent.

    Args:
        agents: The names of all agents that have a card, as they are now.
        handler: Makes an agent's request handler.
        admission: Decides who may ask.
    """

    def __init__(
        self,
        agents: Callable[[], Collection[str]],
        handler: Callable[[str], RequestHandler],
        admission: Admission,
    ) -> None:
        self._agents = agents
        self._handler = handler
        self._admission = admission

    def methods(self) -> Any:
        """The service's methods for a gRPC server."""
        rows = {method.name: self._method(method) for method in SERVICE_03.methods}
        return grpc.method_handlers_generic_handler(SERVICE_03.full_name, rows)

    def _method(self, row: Any) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            return await getattr(await self._addressed(context), row.name)(request, context)

        async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            handler = await self._addressed(context)
            async for event in getattr(handler, row.name)(request, context):
                yield event

        codec = {
            "request_deserializer": GetMessageClass(row.input_type).FromString,
            "response_serializer": GetMessageClass(row.output_type).SerializeToString,
        }
        if row.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.unary_unary_rpc_method_handler(answer, **codec)

    async def _addressed(self, context: Any) -> CompatGrpcHandler:
        """The SDK's handler for the only agent; ends the call where there are others."""
        principal = await admitted(self._admission, context)
        agents = list(self._agents())
        if len(agents) != 1:
            several = "A2A 0.3 over gRPC cannot name an agent, and this gateway has not one alone"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, several)
        return CompatGrpcHandler(self._handler(agents[0]), GrpcCallContexts(principal))
