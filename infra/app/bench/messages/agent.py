"""The measured agent and where it runs: `python -m odradek.infra.app.bench.messages.agent KIND`.

KIND is `kafka`, a host on the bus (with ODRADEK_* as usual), or `http`, the A2A SDK's own server
with its store in memory, which prints its port.
"""

import asyncio
import logging
import sys
import time
from typing import Any, Final

import uvicorn
import uvloop
from a2a.helpers.proto_helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Part
from starlette.applications import Starlette

from odradek.agents.gateway.server import bound
from odradek.agents.host.host import Host
from odradek.agents.settings import AgentSettings
from odradek.infra.bus import BusSettings
from odradek.infra.runtime.process import serve

NAME: Final = "bench"
"""The agent's."""
STREAM: Final = "stream"
"""How a message begins that asks for a stream: `stream EVENTS MILLISECONDS`, one event so often."""


class EchoAgent(AgentExecutor):
    """Completes a task with the message's own text, or streams numbered chunks of an artifact."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK."""
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if context.current_task is None:  # the SDK's own server wants it first
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        text = context.get_user_input()
        if text.startswith(STREAM):
            _, events, every_ms = text.split()
            await updater.start_work()
            await _stream(updater, int(events), int(every_ms) / 1000)
        await updater.complete(updater.new_agent_message([Part(text=text)]))

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. Nothing here lasts long."""


async def _stream(updater: TaskUpdater, events: int, every_s: float) -> None:
    """Chunks that say their number and when they were made, in seconds of the epoch."""
    begins = time.time()
    for number in range(events):
        await asyncio.sleep(begins + number * every_s - time.time())
        chunk = Part(text=f"chunk {number} {time.time():.6f}")
        last = number == events - 1
        await updater.add_artifact([chunk], artifact_id="out", append=number > 0, last_chunk=last)


def described(url: str) -> AgentCard:
    """The agent's card for HTTP."""
    return AgentCard(
        name=NAME,
        description="Says what it hears.",
        version="1",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )


def handler(card: AgentCard) -> DefaultRequestHandlerV2:
    """The SDK's own handler of the agent, with its store in memory."""
    return DefaultRequestHandlerV2(
        agent_executor=EchoAgent(), task_store=InMemoryTaskStore(), agent_card=card
    )


async def _http() -> None:
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    card = described(f"http://127.0.0.1:{port}/")
    routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler(card), "/")]
    print(f"listens on {port}", flush=True)
    config = uvicorn.Config(Starlette(routes=routes), log_level="warning", access_log=False)
    await uvicorn.Server(config).serve([listening])


async def _kafka() -> None:
    settings = AgentSettings(name=NAME, training=False, concurrency=64)
    await serve(Host(settings, BusSettings(), EchoAgent()), "agent")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    uvloop.run({"kafka": _kafka, "http": _http}[sys.argv[1]]())
