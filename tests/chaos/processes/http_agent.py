"""The scripted agent behind HTTP: a server of the A2A SDK that knows of its run what a message says.

`python -m tests.chaos.processes.http_agent PORT`. It plays by the oracle and keeps the agents' journal;
its rewards go to the log as those of a judge do. Where a script says that the model is away, it
forgets its task and hangs up.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import uvicorn
from a2a.helpers import get_data_parts
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette

from odradek.agents.binding import MODEL
from odradek.infra.bus import BusSettings, KafkaAppender
from odradek.infra.client import publish_reward
from odradek.schemas import ids
from odradek.schemas.events import Reward
from tests.chaos.processes import agent
from tests.chaos.verification import oracle

EPISODE = b"x-odradek-episode-id"
ATTEMPTS = 16
"""More than any sample gets."""
THINKS_S = 0.4
"""After its last call, so that kills meet runs."""
SAMPLES = 16
"""More than any group has."""


def address_of(task: str, message: str, episode: str, partitions: int) -> tuple[int, int]:
    """Sample and attempt of a run, which only the ids of its message and episode tell."""
    sample = next(n for n in range(SAMPLES) if ids.message_id(task, n) == message)
    on = ids.partition_for(episode, partitions)
    attempt = next(
        n
        for n in range(1, ATTEMPTS)
        if ids.episode_id(message, n, partition=on, partitions=partitions) == episode
    )
    return sample, attempt


class Lost(Exception):
    """The connection is to break: this run's agent is gone."""


class ScriptedAgent(AgentExecutor):
    """Plays as the agent of the other host does, over its own connection to the log."""

    def __init__(self, appender: KafkaAppender, partitions: int) -> None:
        self._appender = appender
        self._partitions = partitions
        self.store = InMemoryTaskStore()
        self.cut: dict[str, asyncio.Event] = {}
        """By episode, set once its connection is to break."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        """One attempt at one sample."""
        status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
        await event_queue.enqueue_event(
            Task(id=context.task_id, context_id=context.context_id, status=status)
        )
        where = dict(context.message.metadata[MODEL])
        (given,) = get_data_parts(context.message.parts)
        episode = str(where["episode_id"])
        message = context.message.message_id.rpartition("/")[2]
        sample, attempt = address_of(given["task"], message, episode, self._partitions)
        script = oracle.play_of(int(given["seed"]), given["task"], sample, attempt)
        rollout = SimpleNamespace(**where)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await agent.converse(rollout, script)
        await asyncio.sleep(THINKS_S)
        if script.ending == "failed":
            await updater.failed()
        elif script.ending == "upstream_failed":
            await self.store.delete(context.task_id, context.call_context)
            self.cut[episode].set()
            await asyncio.Event().wait()
        else:
            await self._reward(episode, "score", script.score)
            if script.ending != "unrewarded":
                await self._reward(episode, "bonus", script.bonus)
            await updater.complete()

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """The run was called off."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    async def _reward(self, episode: str, component: str, value: float) -> None:
        reward = Reward(episode_id=episode, component=component, value=value, source="/http-agent")
        await publish_reward(self._appender, reward)


class Connections:
    """The server's application; it breaks the connections of runs that are cut."""

    def __init__(self, app: Any, cut: dict[str, asyncio.Event]) -> None:
        self._app = app
        self._cut = cut

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Serve a request; raise Lost where its run is cut meanwhile."""
        episode = dict(scope.get("headers", ())).get(EPISODE, b"").decode()
        if not episode:
            await self._app(scope, receive, send)
            return
        cut = self._cut.setdefault(episode, asyncio.Event())
        serving = asyncio.ensure_future(self._app(scope, receive, send))
        waiting = asyncio.ensure_future(cut.wait())
        try:
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if cut.is_set():
                raise Lost(episode)
            await serving
        finally:
            waiting.cancel()
            serving.cancel()


async def serve(port: int) -> None:
    """Listen on loopback until the process is told to end."""
    bus = BusSettings()
    appender = await KafkaAppender.connect(bus)
    playing = ScriptedAgent(appender, bus.topic_partitions or 1)
    here = f"http://127.0.0.1:{port}/"
    card = AgentCard(
        name="http", description="the scripted agent", version="1",
        capabilities=AgentCapabilities(streaming=True),
        supported_interfaces=[
            AgentInterface(url=here, protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        skills=[AgentSkill(id="play", name="play", description="plays a script", tags=["test"])],
        default_input_modes=["application/json"], default_output_modes=["text/plain"],
    )  # fmt: skip
    handler = DefaultRequestHandlerV2(playing, playing.store, card)
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]
    app = Connections(Starlette(routes=routes), playing.cut)
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="off", loop="uvloop")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print("ready: http-agent", flush=True)
    await serving
    await appender.aclose()


if __name__ == "__main__":
    # Whoever is killed with the run has nothing to put in order.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve(int(sys.argv[1])))
