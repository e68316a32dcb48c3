"""Agents on Kafka over gRPC."""

import contextlib
import datetime as dt
import ipaddress

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.errors import A2AClientError
from a2a.types import (
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from odradek.agents.errors import AddressTaken, BadCertificate
from odradek.agents.gateway.access.bearer_keys import add_key
from odradek.agents.trust.settings import TrustSettings
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving
from tests.support.agents.producers import written

pytestmark = [pytest.mark.broker, pytest.mark.grpc]


def message(name, text="x"):
    return SendMessageRequest(
        message=Message(message_id=name, role=Role.ROLE_USER, parts=[Part(text=text)])
    )


@contextlib.asynccontextmanager
async def transport_to(gateway, channel=None):
    """The SDK's gRPC client to the agent, by its card."""
    import grpc

    async with httpx.AsyncClient(timeout=20) as http:
        card = await A2ACardResolver(http, f"{gateway.address}/agents/player").get_agent_card()
    config = ClientConfig(
        grpc_channel_factory=channel or grpc.aio.insecure_channel,
        supported_protocol_bindings=["GRPC"],
    )
    client = ClientFactory(config).create(card)
    try:
        yield client._transport
    finally:
        await client.close()


@pytest.fixture
async def gateway(stage):
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with serving(stage.bus, grpc_port=0, max_body_bytes=10_000) as gateway:
        yield gateway


async def test_the_sdks_grpc_client_reaches_an_agent_by_its_card(gateway):
    """It waits for the end, asks later, streams, and gets A2A's own errors."""
    async with transport_to(gateway) as agent:
        answer = await agent.send_message(message("tck-complete-task"))
        assert "Hello from TCK" == answer.task.status.message.parts[0].text
        task = await agent.get_task(GetTaskRequest(id=answer.task.id))
        assert TaskState.TASK_STATE_COMPLETED == task.status.state
        events = [e async for e in agent.send_message_streaming(message("tck-stream-001"))]
        kinds = [event.WhichOneof("payload") for event in events]
        assert ["task", "status_update", "artifact_update", "status_update"] == kinds
        with pytest.raises(TaskNotFoundError):
            await anext(agent.subscribe(SubscribeToTaskRequest(id="absent")))


async def test_the_tenant_names_the_agent_and_only_one_agent_needs_no_name(gateway):
    """Another name, a body that is too large and another version of A2A are refused."""
    import grpc
    from a2a.types.a2a_pb2_grpc import A2AServiceStub

    async with transport_to(gateway) as agent:
        assert "player" == agent._tenant
        with pytest.raises(A2AClientError, match="NOT_FOUND: no agent 'nobody'"):
            await agent.get_task(GetTaskRequest(id="x", tenant="nobody"))
        with pytest.raises(A2AClientError, match="RESOURCE_EXHAUSTED"):
            await agent.send_message(message("tck-complete-task", "y" * 20_000))
        stub: A2AServiceStub = agent._base.stub
        answer = await stub.SendMessage(message("tck-x"), metadata=[("a2a-version", "1.0")])
        assert TaskState.TASK_STATE_COMPLETED == answer.task.status.state
        for version in ([], [("a2a-version", "0.3")]):
            with pytest.raises(grpc.aio.AioRpcError, match="a2a-version must be") as refused:
                await stub.SendMessage(message("tck-x"), metadata=version)
            assert grpc.StatusCode.FAILED_PRECONDITION == refused.value.code()


def certificate(folder):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


async def test_grpc_is_served_over_tls_with_a_certificate(stage, tmp_path):
    """Files that cannot be read, or are no certificate, are said in one line; so is a taken port."""
    import grpc

    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    chain, key = certificate(tmp_path)
    async with serving(stage.bus, grpc_port=0, grpc_certificate=chain, grpc_key=key) as gateway:
        trusted = grpc.ssl_channel_credentials(chain.read_bytes())
        channel = lambda url: grpc.aio.secure_channel(url, trusted)  # noqa: E731
        async with transport_to(gateway, channel) as agent:
            answer = await agent.send_message(message("tck-complete-task"))
        assert TaskState.TASK_STATE_COMPLETED == answer.task.status.state
        taken = int(gateway.grpc_address.rpartition(":")[2])
        with pytest.raises(AddressTaken, match="ODRADEK_GATEWAY_GRPC_PORT"):
            async with serving(stage.bus, grpc_port=taken):
                pass
    for wrong in (tmp_path / "absent.pem", key):
        with pytest.raises(BadCertificate, match="ODRADEK_GATEWAY_GRPC_CERTIFICATE"):
            async with serving(stage.bus, grpc_port=0, grpc_certificate=wrong, grpc_key=key):
                pass


async def test_grpc_asks_for_the_same_credentials(stage, tmp_path):
    """As metadata; a client sees its own tasks, and those of others are absent."""
    import grpc
    from a2a.types.a2a_pb2_grpc import A2AServiceStub

    gateways = TrustSettings(signing_key=written(tmp_path, "gateway", "key/*"))
    hosts = TrustSettings(verification_keys=tmp_path / "public", unsigned="refuse")
    await stage.host(ConformanceAgent(), training=False, trust=hosts)
    path = tmp_path / "bearer.json"
    keys = {name: add_key(path, name) for name in ("ann", "bob")}
    async with (
        serving(stage.bus, trust=gateways, bearer_keys=path, grpc_port=0) as gateway,
        transport_to(gateway) as agent,
    ):
        stub: A2AServiceStub = agent._base.stub

        def asks(*names):
            credentials = [("authorization", f"Bearer {keys[name]}") for name in names]
            return {"metadata": [("a2a-version", "1.0"), *credentials], "timeout": 60}

        answer = await stub.SendMessage(message("m1"), **asks("ann"))
        request = GetTaskRequest(id=answer.task.id, tenant="player")
        assert answer.task.id == (await stub.GetTask(request, **asks("ann"))).id
        for names, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            (("ann", "ann"), grpc.StatusCode.UNAUTHENTICATED),
            (("bob",), grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetTask(request, **asks(*names))
            assert code == refused.value.code()
