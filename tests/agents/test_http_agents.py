"""A2A agents behind HTTP, on the SDK's own server, as workers of the bus."""

import asyncio

import pytest
import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    Part,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route

from odradek.agents.binding import MODEL
from odradek.agents.errors import RunnerError
from odradek.agents.runners.http import HttpRunner

pytestmark = pytest.mark.broker


class Foreign(AgentExecutor):
    """Knows nothing of this project but the extension; does what its message says."""

    def __init__(self):
        self.heard = []
        self.cancelled = asyncio.Event()
        self.hung = asyncio.Event()

    async def execute(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            await event_queue.enqueue_event(
                Task(id=context.task_id, context_id=context.context_id, status=status,
                     history=[context.message])
            )  # fmt: skip
        await updater.start_work()
        model = dict(dict(context.message.metadata).get(MODEL, {}))
        self.heard.append((context.get_user_input(), model, context.call_context.state["headers"]))
        text = context.get_user_input()
        if text == "ask":
            await updater.requires_input(updater.new_agent_message([Part(text="which?")]))
            return
        if text == "hang":
            self.hung.set()
            await asyncio.Event().wait()
        for number in range(3):
            part = Part(text=str(number))
            await updater.add_artifact([part], artifact_id="a", append=number > 0)
        await updater.complete(updater.new_agent_message([Part(text="done")]))

    async def cancel(self, context, event_queue):
        self.cancelled.set()
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


class Server:
    """The SDK's server; where it listens follows from its first start."""

    def __init__(self, agent, *, binding="JSONRPC", streaming=True, elsewhere="", port=0):
        self.agent = agent
        config = uvicorn.Config(Starlette(), log_config=None, lifespan="off", port=port)
        self._socket = config.bind_socket()
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        path = "/rest" if binding == "HTTP+JSON" else "/"
        card = AgentCard(
            name="foreign", description="d", version="1",
            capabilities=AgentCapabilities(streaming=streaming),
            supported_interfaces=[
                AgentInterface(url=(elsewhere or f"http://localhost:{self.port}") + path,
                               protocol_binding=binding, protocol_version="1.0")
            ],
            default_input_modes=["text/plain"], default_output_modes=["text/plain"],
        )  # fmt: skip
        self.handler = DefaultRequestHandlerV2(agent, InMemoryTaskStore(), card)
        config.app = Starlette(
            routes=[
                *create_agent_card_routes(card),
                *create_jsonrpc_routes(self.handler, "/"),
                *create_rest_routes(self.handler, path_prefix="/rest"),
            ]
        )
        self._server = uvicorn.Server(config)

    async def __aenter__(self):
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_):
        self._server.should_exit = self._server.force_exit = True
        await self._task
        await self.handler.aclose()
        self._socket.close()


def texts(records, episode):
    from odradek.agents.binding.responses import read_stream

    events = [read_stream(record.value) for record in records if record.key == episode]
    return [
        e.artifact_update.artifact.parts[0].text for e in events if e.HasField("artifact_update")
    ]


@pytest.mark.parametrize(
    ("binding", "streaming"), [("JSONRPC", True), ("HTTP+JSON", True), ("JSONRPC", False)]
)
async def test_an_agent_that_nobody_here_wrote_plays_a_sample(stage, binding, streaming):
    """Its message says where its model is, and headers do; its answers and questions are relayed."""
    async with Server(agent := Foreign(), binding=binding, streaming=streaming) as server:
        await stage.host(HttpRunner(server.url))
        await stage.send("m1", given="ask", answers=["go on"])
        await stage.ended("m1")
    episode = stage.episode("m1")
    assert [(episode, "completed", "")] == stage.proxy.seals
    assert ["ask", "go on"] == [text for text, _, _ in agent.heard]
    _, model, headers = agent.heard[0]
    assert (f"{stage.proxy.url}/e/{episode}/v1", "policy") == (model["base_url"], model["model"])
    assert (model["api_key"], MODEL) == (headers["x-odradek-api-key"], headers["a2a-extensions"])
    shown = texts(await stage.read("a2a.events.player"), episode)
    assert (["0", "1", "2"] if streaming else ["0"]) == shown


async def test_a_run_that_is_called_off_is_called_off_there_as_well(stage):
    """So is one whose time is over."""
    async with Server(agent := Foreign()) as server:
        await stage.host(HttpRunner(server.url))
        await stage.send("m1", given="hang", timeouts={"attempt_s": 1.0})
        await stage.ended("m1")
        async with asyncio.timeout(60):
            await agent.cancelled.wait()
    assert ["timed_out"] == [seal[1] for seal in stage.proxy.seals]


async def test_a_sample_whose_agent_was_killed_is_played_by_its_successor(stage):
    """The attempt is given up; the next one waits for the agent to come up, and counts alone."""
    async with Server(agent := Foreign()) as server:
        await stage.host(HttpRunner(server.url))
        await stage.send("m1", given="hang", max_attempts=2)
        async with asyncio.timeout(60):
            await agent.hung.wait()
    second = Foreign()
    second.execute = answering(second)
    async with Server(second, port=server.port):
        await stage.ended("m1", attempt=2)
    assert [(stage.episode("m1", 2), "completed", "")] == stage.proxy.seals


def answering(agent):
    async def execute(context, event_queue):
        message = TaskUpdater(event_queue, context.task_id, context.context_id)
        await event_queue.enqueue_event(message.new_agent_message([Part(text="here I am")]))

    return execute


@pytest.mark.parametrize("how", ["card", "redirect"])
async def test_a_token_goes_to_no_other_host(stage, how):
    """Neither where its card leads elsewhere, nor by a redirect."""
    async with Server(other := Foreign()) as elsewhere:
        if how == "card":
            server = Server(Foreign(), elsewhere=elsewhere.url)
        else:
            server = Server(Foreign())

            async def away(request):
                return RedirectResponse(elsewhere.url, status_code=307)

            server._server.config.app.routes.insert(1, Route("/", away, methods=["POST"]))
        async with server:
            await stage.host(HttpRunner(server.url))
            await stage.send("m1", given="go", max_attempts=1)
            await stage.ended("m1")
    assert [] == other.heard
    (aborted,) = [e for e in await stage.story() if type(e).__name__ == "EpisodeAborted"]
    assert "upstream_failed" == aborted.reason
    assert ("other hosts" if how == "card" else "307") in aborted.error


def test_what_is_no_address_is_refused_at_once():
    """In one line that says what to do."""
    with pytest.raises(RunnerError, match="begin it with http"):
        HttpRunner("localhost:9999")
