"""What A2A's integration kit is run against: `python -m ... KIT_PYTHON KIT RESULTS AGENT [AGENT...]`.

A broker of its own, an agent host without training, a gateway before it, a push dispatcher, and a
door: the kit looks for an agent's card and its JSON-RPC at the root of a port.
"""

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

from odradek.agents.gateway.server import Gateway
from odradek.agents.host.host import Host
from odradek.agents.push.process import PushDispatcher
from odradek.agents.push.settings import PushSettings
from odradek.agents.settings import AgentSettings, GatewaySettings
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.schemas.topics import CARDS
from tests.support.agents.conformance_site import serving

from .agent import InstructionAgent

AGENT = "itk"
LOCAL = "127.0.0.1"
DRIVER = Path(__file__).with_name("kit.py")
PASSED_ON = ("a2a-version", "content-type", "accept")


def door(address, http):
    """An application that hands the card and JSON-RPC at its root to an agent of the gateway.

    Args:
        address: The agent's, at the gateway.
        http: Client to the gateway.
    """

    async def pass_on(request, url):
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        body = await request.body()
        asked = http.build_request(request.method, url, content=body, headers=headers)
        answer = await http.send(asked, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            {"content-type": answer.headers["content-type"]},
            background=BackgroundTask(answer.aclose),
        )

    async def card(request):
        return await pass_on(request, f"{address}/.well-known/agent-card.json")

    async def call(request):
        return await pass_on(request, address)

    return Starlette(
        routes=[
            Route("/.well-known/agent-card.json", card),
            Route("/jsonrpc/", call, methods=["POST"]),
        ]
    )


@contextlib.asynccontextmanager
async def opened(address):
    """The door within the block; gives its port."""
    async with httpx.AsyncClient(timeout=None) as http:
        config = uvicorn.Config(door(address, http), port=0, log_level="warning")
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext
        listening = config.bind_socket()
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def examine(bootstrap, card, python, kit, arguments):
    """Serve, run the kit, and return its exit code."""
    bus = BusSettings(bootstrap_servers=bootstrap)
    await ensure_topics(bus, [(CARDS.name, CARDS)])
    card.write_text('{"defaultInputModes": ["*/*"]}', encoding="utf-8")
    settings = AgentSettings(
        name=AGENT, training=False, concurrency=64, push=True, webhook_hosts=LOCAL, card=card
    )
    host = Host(settings, bus, InstructionAgent(kit))
    gateway = Gateway(GatewaySettings(port=0, grpc_port=0, a2a_03=True), bus)
    push = PushDispatcher(PushSettings(webhook_hosts=LOCAL), bus)
    async with (
        serving(push, gateway, host),
        opened(f"{gateway.address}/agents/{AGENT}") as port,
    ):
        process = await asyncio.create_subprocess_exec(
            python, str(DRIVER), kit, str(port), *arguments, cwd=kit
        )
        return await process.wait()


def main():
    python, kit, *arguments = sys.argv[1:]
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "card.json"
        return asyncio.run(examine(broker.bootstrap_servers, card, python, kit, arguments))


if __name__ == "__main__":
    sys.exit(main())
