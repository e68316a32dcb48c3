"""Clients of A2A 0.3 at a gateway that serves them."""

import asyncio
import contextlib

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import MethodNotFoundError, TaskNotFoundError

from tests.support.agents.conformance_agent import ConformanceAgent
from tests.support.agents.gateways import serving

from .test_grpc import message as sent
from .test_operations import Clerk

pytestmark = pytest.mark.broker
EARLIER = "0.3"


def message(name, text="x"):
    """A message whose sender waits for the end; in A2A 0.3 one has to say so."""
    request = SendMessageRequest(configuration=SendMessageConfiguration())
    request.MergeFrom(sent(name, text))
    return request


async def shown_card(gateway, name="player"):
    """An agent's card, and its JSON."""
    async with httpx.AsyncClient(timeout=20) as http:
        address = f"{gateway.address}/agents/{name}"
        answer = await http.get(f"{address}/.well-known/agent-card.json")
        return await A2ACardResolver(http, address).get_agent_card(), answer.json()


def earlier(card):
    """A card with the addresses for clients of A2A 0.3 alone."""
    kept = AgentCard()
    kept.CopyFrom(card)
    del kept.supported_interfaces[:]
    kept.supported_interfaces.extend(
        each for each in card.supported_interfaces if each.protocol_version == EARLIER
    )
    return kept


@contextlib.asynccontextmanager
async def transport_to(gateway, binding, **config):
    """The SDK's own transport of A2A 0.3 to the agent."""
    card, _ = await shown_card(gateway)
    async with httpx.AsyncClient(timeout=20) as http:
        settings = ClientConfig(supported_protocol_bindings=[binding], httpx_client=http, **config)
        client = ClientFactory(settings).create(earlier(card))
        assert "Compat" in type(client._transport).__name__
        yield client._transport


# The SDK's server answers REST of 0.3 with the error object of 1.0, which its own client does not know.
@pytest.mark.parametrize(
    ("binding", "error"), [("JSONRPC", TaskNotFoundError), ("HTTP+JSON", MethodNotFoundError)]
)
async def test_a_client_of_an_earlier_a2a_sends_streams_subscribes_asks_and_cancels(
    stage, binding, error
):
    """By what the agent's card says, over JSON-RPC and REST."""
    clerk = Clerk()
    await stage.host(clerk, training=False, idempotent=False)
    async with (
        serving(stage.bus, a2a_03=True) as gateway,
        transport_to(gateway, binding) as agent,
    ):
        clerk.go.set()
        answer = await agent.send_message(message("m1", "chunks"))
        assert TaskState.TASK_STATE_COMPLETED == answer.task.status.state
        task = await agent.get_task(GetTaskRequest(id=answer.task.id))
        assert answer.task.artifacts == task.artifacts
        clerk.go.clear()
        begun = agent.send_message_streaming(message("m2", "chunks"))
        first = (await anext(begun)).task.id
        await begun.aclose()
        later = agent.subscribe(SubscribeToTaskRequest(id=first))
        assert first == (await anext(later)).task.id
        clerk.go.set()
        *_, last = [event async for event in later]
        assert TaskState.TASK_STATE_COMPLETED == last.status_update.status.state
        clerk.go.clear()
        waiting = agent.send_message_streaming(message("m3", "chunks"))
        third = (await anext(waiting)).task.id
        canceled = await agent.cancel_task(CancelTaskRequest(id=third))
        assert TaskState.TASK_STATE_CANCELED == canceled.status.state
        await waiting.aclose()
        with pytest.raises(error):
            await agent.get_task(GetTaskRequest(id="absent"))


async def test_a_task_of_one_version_is_there_for_clients_of_the_other(stage):
    """Both ask the same agent, and one card names both, A2A 1.0 first."""
    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with (
        serving(stage.bus, a2a_03=True) as gateway,
        transport_to(gateway, "JSONRPC") as agent,
    ):
        card, shown = await shown_card(gateway)
        versions = [each.protocol_version for each in card.supported_interfaces]
        assert ["1.0", "1.0", "1.0", EARLIER, EARLIER] == versions
        url = f"{gateway.address}/agents/player/v0.3"
        assert (EARLIER, url) == (shown["protocolVersion"], shown["url"])
        answer = await agent.send_message(message("tck-complete-task"))
        async with httpx.AsyncClient() as http:
            client = ClientFactory(ClientConfig(httpx_client=http)).create(card)
            task = await client.get_task(GetTaskRequest(id=answer.task.id))
        assert TaskState.TASK_STATE_COMPLETED == task.status.state


async def test_a_gateway_serves_an_earlier_a2a_only_where_it_is_asked_to(stage):
    """Else cards do not name it, and its address is not there."""
    await stage.host(ConformanceAgent(), training=False)
    async with serving(stage.bus) as gateway, httpx.AsyncClient() as http:
        card, shown = await shown_card(gateway)
        assert [] == list(earlier(card).supported_interfaces)
        assert "url" not in shown
        for path in ("", "/v1/message:send"):
            answer = await http.post(f"{gateway.address}/agents/player/v0.3{path}", json={})
            assert 404 == answer.status_code


@pytest.mark.grpc
async def test_a_client_of_an_earlier_a2a_reaches_the_only_agent_over_grpc(stage):
    """Its requests cannot name an agent: where there are two, cards do not offer it, and it is refused."""
    import grpc

    await stage.host(ConformanceAgent(), training=False, idempotent=False)
    async with serving(stage.bus, grpc_port=0, a2a_03=True) as gateway:
        async with transport_to(
            gateway, "GRPC", grpc_channel_factory=grpc.aio.insecure_channel
        ) as agent:
            events = [e async for e in agent.send_message_streaming(message("tck-stream-001"))]
            kinds = [event.WhichOneof("payload") for event in events]
            assert ["task", "status_update", "artifact_update", "status_update"] == kinds
            answer = await agent.send_message(message("tck-complete-task"))
            assert "Hello from TCK" == answer.task.status.message.parts[0].text
            with pytest.raises(TaskNotFoundError):
                await agent.get_task(GetTaskRequest(id="absent"))
            await stage.host(ConformanceAgent(), training=False, name="other")
            while "GRPC" in [
                each.protocol_binding
                for each in earlier((await shown_card(gateway))[0]).supported_interfaces
            ]:
                await asyncio.sleep(0.05)
            with pytest.raises(Exception, match="cannot name an agent"):
                await agent.get_task(GetTaskRequest(id="absent"))
