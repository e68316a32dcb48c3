"""gRPC of A2A 0.3, where a gateway serves it: beside that of 1.0, at the same port.

Its requests have no tenant, so they cannot name an agent: they reach the only one that there is.
"""

from typing import Any, Final

import grpc
from a2a.compat.v0_3.a2a_v0_3_pb2 import DESCRIPTOR
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from google.protobuf.message_factory import GetMessageClass

from odradek.agents.binding.operations import Operation
from odradek.agents.gateway.grpc_server import AgentService, GrpcCallContexts, admitted

SERVICE_03: Final = DESCRIPTOR.services_by_name["A2AService"]
OPERATIONS_03: Final = {
    method.name: Operation(
        method.name,
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        streams=method.server_streaming,
    )
    for method in SERVICE_03.methods
}


class AgentService03(AgentService):
    """A2A 0.3's gRPC service for the only agent."""

    service = SERVICE_03.full_name
    operations = OPERATIONS_03

    async def addressed(self, request: Any, context: Any) -> CompatGrpcHandler:
        """The SDK's handler for the only agent; ends the call where there are others."""
        del request
        principal = await admitted(self.admission, context)
        agents = list(self.agents())
        if len(agents) != 1:
            several = "A2A 0.3 over gRPC cannot name an agent, and this gateway has not one alone"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, several)
        return CompatGrpcHandler(self.handler(agents[0]), GrpcCallContexts(principal))
