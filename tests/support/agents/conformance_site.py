"""Run A2A's conformance kit: `python -m ... KIT_PYTHON KIT [arguments of its pytest]`.

A broker of its own, an agent host without training, a gateway before it, and a push dispatcher.
"""

import asyncio
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

from odradek.agents.gateway.server import Gateway
from odradek.agents.host.host import Host
from odradek.agents.push.process import PushDispatcher
from odradek.agents.push.settings import PushSettings
from odradek.agents.settings import AgentSettings, GatewaySettings
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.schemas.topics import CARDS

from .conformance_agent import ConformanceAgent

AGENT = "tck"
LOCAL = "127.0.0.1"


async def running(service):
    """A service's task, once it serves. Raises what ended it before."""
    task = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        await task
    return task


@asynccontextmanager
async def serving(*services):
    """Within the block the services run; the first ends first, and begins last."""
    tasks = [await running(service) for service in reversed(services)]
    yield
    for service in services:
        service.stop()
    await asyncio.gather(*tasks)


async def conform(bootstrap, card, python, kit, arguments):
    """Serve, run the kit, and return its exit code."""
    bus = BusSettings(bootstrap_servers=bootstrap)
    await ensure_topics(bus, [(CARDS.name, CARDS)])
    # The kit takes the right refusal of a media type for a failure: its agent refuses none.
    card.write_text('{"name": "conformance", "defaultInputModes": ["*/*"]}', encoding="utf-8")
    settings = AgentSettings(
        name=AGENT,
        training=False,
        idempotent=False,
        concurrency=64,
        push=True,
        webhook_hosts=LOCAL,
        card=card,
    )
    host = Host(settings, bus, ConformanceAgent())
    gateway = Gateway(GatewaySettings(port=0, grpc_port=0), bus)
    push = PushDispatcher(PushSettings(webhook_hosts=LOCAL), bus)
    async with serving(push, gateway, host):
        command = [
            "-m", "pytest", "tests/compatibility", "-q", "--tb=line", "-p", "no:cacheprovider",
            f"--sut-host={gateway.address}/agents/{AGENT}", "--webhook-host", LOCAL,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(python, *command, *arguments, cwd=kit)
        return await process.wait()


def main():
    python, kit, *arguments = sys.argv[1:]
    with LocalBroker() as broker:
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "card.json"
            return asyncio.run(conform(broker.bootstrap_servers, card, python, kit, arguments))


if __name__ == "__main__":
    sys.exit(main())
