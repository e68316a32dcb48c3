"""gRPC endpoint of the gateway (A2A section 10): one port for all agents.

gRPC has no paths, so the tenant of a request names its agent, as the agent's card asks for it
(`AgentInterface.tenant`). What follows a slash is the tenant that the agent sees.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import grpc
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.server.request_handlers.grpc_handler import (
    DefaultGrpcServerCallContextBuilder,
    GrpcHandler,
)
from a2a.types.a2a_pb2 import DESCRIPTOR
from a2a.utils.errors import VersionNotSupportedError

from odradek.agents.binding import VERSION
from odradek.agents.binding.headers import VERSION_HEADER
from odradek.agents.binding.operations import OPERATIONS, Operation
from odradek.agents.errors import (
    AddressTaken,
    BadCertificate,
    KeysUnavailable,
    TooManyRequests,
    Unauthenticated,
)
from odradek.agents.gateway.access.door import Admission
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.principal import Principal

SERVICE: Final = DESCRIPTOR.services_by_name["A2AService"].full_name


class AgentService:
    """A2A's gRPC service for many agents.

    Args:
        agents: The names of all agents that have a card, as they are now.
        handler: Makes an agent's request handler.
        admission: Decides who may ask.
    """

    service: ClassVar[str] = SERVICE
    operations: ClassVar[Mapping[str, Operation]] = OPERATIONS

    def __init__(
        self,
        agents: Callable[[], Collection[str]],
        handler: Callable[[str], RequestHandler],
        admission: Admission,
    ) -> None:
        self.agents = agents
        self.handler = handler
        self.admission = admission

    def methods(self) -> Any:
        """The service's methods for a gRPC server, one for each operation."""
        rows = {name: self._method(row) for name, row in self.operations.items()}
        return grpc.method_handlers_generic_handler(self.service, rows)

    def _method(self, row: Operation) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            handler = await self.addressed(request, context)
            return await getattr(handler, row.name)(request, context)

        async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
            handler = await self.addressed(request, context)
            async for event in getattr(handler, row.name)(request, context):
                yield event

        codec = {
            "request_deserializer": row.request.FromString,
            "response_serializer": row.response.SerializeToString,
        }
        if row.streams:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.unary_unary_rpc_method_handler(answer, **codec)

    async def addressed(self, request: Any, context: Any) -> Any:
        """The SDK's handler for the agent that a request names; ends the call if none has it."""
        principal = await admitted(self.admission, context)
        name, _, request.tenant = request.tenant.partition("/")
        agents = self.agents()
        if not name and len(agents) == 1:
            (name,) = agents
        if not name:
            unnamed = "name the agent as the tenant, as its card's gRPC interface does"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, unnamed)
        if name not in agents:
            absent = f"no agent {name!r} has a card: is its host running?"
            await context.abort(grpc.StatusCode.NOT_FOUND, absent)
        return GrpcHandler(self.handler(name), VersionedCallContexts(principal))


async def admitted(admission: Admission, context: Any) -> str:
    """The principal of a call; ends one that the door does not let in."""
    metadata = context.invocation_metadata() or ()
    credentials = [str(value) for name, value in metadata if name == "authorization"]
    peer = context.peer().rpartition(":")[0]
    try:
        return await admission.admit(credentials, peer)
    except Unauthenticated as error:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
    except TooManyRequests as error:
        wait = (("retry-after", str(error.wait_s)),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), wait)
    except KeysUnavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    raise AssertionError("abort raises")


class GrpcCallContexts(DefaultGrpcServerCallContextBuilder):
    """The SDK's builder of call contexts, with who asks.

    Args:
        principal: Who asks; "": nobody was asked for credentials.
    """

    def __init__(self, principal: str) -> None:
        self._principal = principal

    def build(self, context: Any) -> ServerCallContext:
        """A call's context."""
        built = super().build(context)
        built.user = Principal(self._principal)
        built.state["headers"] = dict(context.invocation_metadata() or ())
        return built


class VersionedCallContexts(GrpcCallContexts):
    """The same, which refuses other versions of A2A as HTTP does."""

    def build(self, context: Any) -> ServerCallContext:
        """Raises VersionNotSupportedError, which the SDK's handler answers."""
        metadata = dict(context.invocation_metadata() or ())
        version = str(metadata.get(VERSION_HEADER, ""))
        if version.partition(".")[0] != VERSION.partition(".")[0]:
            raise VersionNotSupportedError(f"{VERSION_HEADER} must be {VERSION}, not {version!r}")
        return super().build(context)


@asynccontextmanager
async def grpc_serving(settings: GatewaySettings, *methods: Any) -> AsyncIterator[int]:
    """Serve gRPC within the block; gives the port.

    Args:
        settings: The gateway's.
        methods: Of each service.

    Raises:
        AddressTaken: The port is another process's.
        BadCertificate: TLS cannot be served with these files.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers(methods)
    wanted = f"{settings.host}:{settings.grpc_port}"
    try:
        if settings.grpc_certificate is None or settings.grpc_key is None:
            port = server.add_insecure_port(wanted)
        else:
            credentials = _credentials(settings.grpc_key, settings.grpc_certificate)
            port = server.add_secure_port(wanted, credentials)
    except RuntimeError:
        raise AddressTaken(
            f"the gateway cannot serve gRPC on {wanted}: choose another address "
            "(ODRADEK_GATEWAY_HOST, ODRADEK_GATEWAY_GRPC_PORT)"
        ) from None
    await server.start()
    try:
        yield port
    finally:
        await server.stop(settings.shutdown_s)


def _credentials(key: Path, certificate: Path) -> Any:
    correct = "correct ODRADEK_GATEWAY_GRPC_CERTIFICATE and ODRADEK_GATEWAY_GRPC_KEY"
    try:
        # gRPC takes any bytes, and then refuses every client without a word.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        return grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    except ssl.SSLError as error:
        raise BadCertificate(
            f"{certificate} and {key} are no certificate and its key ({error.reason}): {correct}"
        ) from None
    except OSError as error:
        raise BadCertificate(
            f"{certificate} or {key} cannot be read ({error.strerror}): {correct}"
        ) from None
