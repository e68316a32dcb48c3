"""Agents on Kafka behind plain HTTP."""

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import GetTaskRequest, Message, Part, Role, SendMessageRequest, TaskState
from starlette.responses import Response

from odradek.agents.errors import AddressTaken
from odradek.agents.gateway.media_types import MediaTypes
from odradek.agents.gateway.server import bound
from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving

pytestmark = pytest.mark.broker


@pytest.fixture
async def gateway(stage):
    """A gateway before an agent that no training needs."""
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with serving(stage.bus, max_body_bytes=10_000) as gateway:
        yield gateway


def message(name, text="x"):
    return SendMessageRequest(
        message=Message(message_id=name, role=Role.ROLE_USER, parts=[Part(text=text)])
    )


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_any_a2a_client_reaches_an_agent_by_its_card(gateway, binding):
    """By JSON-RPC and by REST: waiting for the end, as a stream, and asking later."""
    async with httpx.AsyncClient(timeout=60) as http:
        card = await A2ACardResolver(http, f"{gateway.address}/agents/player").get_agent_card()
        config = ClientConfig(
            streaming=False, httpx_client=http, supported_protocol_bindings=[binding]
        )
        client = ClientFactory(config).create(card)
        (answer,) = [answer async for answer in client.send_message(message("tck-complete-task"))]
        assert "Hello from TCK" == answer.task.status.message.parts[0].text
        task = await client.get_task(GetTaskRequest(id=answer.task.id))
        assert TaskState.TASK_STATE_COMPLETED == task.status.state
        config.streaming = True
        client = ClientFactory(config).create(card)
        events = [event async for event in client.send_message(message("tck-stream-001"))]
        kinds = [event.WhichOneof("payload") for event in events]
        assert ["task", "status_update", "artifact_update", "status_update"] == kinds


async def test_a_card_says_since_when_it_stands_and_is_not_sent_twice(gateway):
    """ETag, Last-Modified and Cache-Control; the HTTP addresses stand before Kafka's."""
    url = f"{gateway.address}/agents/player"
    async with httpx.AsyncClient() as http:
        first = await http.get(f"{url}/.well-known/agent-card.json")
        bindings = [i["protocolBinding"] for i in first.json()["supportedInterfaces"]]
        assert ["JSONRPC", "HTTP+JSON", "urn:odradek:a2a:kafka:v1"] == bindings
        assert "public, max-age=60" == first.headers["cache-control"]
        assert first.headers["last-modified"].endswith("GMT")
        again = await http.get(
            f"{url}/.well-known/agent-card.json",
            headers={"If-None-Match": first.headers["etag"]},
        )
        assert 304 == again.status_code
        assert {"agents": {"player": url}} == (await http.get(f"{gateway.address}/agents")).json()


@pytest.mark.parametrize("slash", ["", "/"])
async def test_what_cannot_be_served_is_said_in_the_protocols_words(gateway, slash):
    """An agent that is not there, a body that is too large, and one that is no JSON."""
    url = f"{gateway.address}/agents/player{slash}"
    async with httpx.AsyncClient() as http:
        absent = await http.get(f"{gateway.address}/agents/nobody/.well-known/agent-card.json")
        assert (404, "nobody" in absent.text) == (absent.status_code, True)
        large = await http.post(url, json={"x": "y" * 20_000})
        assert 413 == large.status_code
        text = await http.post(url, content=b"{}", headers={"Content-Type": "text/plain"})
        assert -32005 == text.json()["error"]["code"]
        broken = await http.post(
            url, content=b"{", headers={"Content-Type": "application/json", "A2A-Version": "1.0"}
        )
        assert -32700 == broken.json()["error"]["code"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "application/json"),
        ({"Content-Type": "application/json"}, "application/json"),
        ({"Content-Type": "application/a2a+json"}, "application/a2a+json"),
        ({"Accept": "application/json, application/a2a+json"}, "application/a2a+json"),
    ],
)
async def test_rest_answers_in_the_media_type_that_its_client_speaks(headers, expected):
    """What is no A2A JSON, as an error or a stream, stays what it is."""

    async def app(scope, receive, send):
        kind = "text/event-stream" if scope["path"] == "/stream" else "application/a2a+json"
        await Response(b"{}", media_type=kind)(scope, receive, send)

    transport = httpx.ASGITransport(MediaTypes(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.post("/", content=b"{}", headers=headers)
        stream = await http.post("/stream", content=b"{}", headers=headers)
    assert (expected, "text/event-stream; charset=utf-8") == (
        answer.headers["content-type"],
        stream.headers["content-type"],
    )


def test_an_address_that_is_taken_is_said_in_one_line():
    """With the setting that chooses another."""
    with bound("127.0.0.1", 0) as taken, pytest.raises(AddressTaken, match="ODRADEK_GATEWAY_PORT"):
        bound("127.0.0.1", taken.getsockname()[1])
