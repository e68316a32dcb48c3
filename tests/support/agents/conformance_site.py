"""Run A2A's conformance kit: `python -m ... KIT_PYTHON KIT [arguments of its pytest]`.

A broker of its own, an agent host without training, a gateway before it, and a push dispatcher.
"""

import asyncio
import sys
import tempfile
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
    services = (push, gateway, host)
    tasks = [await running(service) for service in reversed(services)]
    command = ["-m", "pytest", "tests/compatibility", "-q", "--tb=line", "-p", "no:cacheprovider"]
    address = f"--sut-host={gateway.address}/agents/{AGENT}"
    process = await asyncio.create_subprocess_exec(
        python, *command, address, "--webhook-host", LOCAL, *arguments, cwd=kit
    )
    code = await process.wait()
    for service in services:
        service.stop()
    await asyncio.gather(*tasks)
    return code


def main():
    python, kit, *arguments = sys.argv[1:]
    with LocalBroker() as broker:
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / "card.json"
            return asyncio.run(conform(broker.bootstrap_servers, card, python, kit, arguments))


if __name__ == "__main__":
    sys.exit(main())
