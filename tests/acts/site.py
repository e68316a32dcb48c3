"""`scripts/acts`: what passes at the SDK's own server passes through Kafka. `python -m … FOLDER [--write]`.

One agent, twice: behind the A2A SDK's server in memory, and behind a gateway, Kafka and an agent host.
"""

import asyncio
import contextlib
import sys
from collections import Counter

import httpx
import uvicorn
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import AgentInterface
from starlette.applications import Starlette
from starlette.routing import Mount

from odradek.agents.cards.card import card
from odradek.agents.gateway.server import Gateway
from odradek.agents.host.host import Host
from odradek.agents.settings import AgentSettings, GatewaySettings
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.schemas.topics import CARDS
from tests.support.agents.conformance_site import running
from tests.support.agents.conformance_table import PAGE, written

from .agent import ScenarioAgent
from .runner import outcome, scenarios
from .transports import Subject

AGENT = "acts"
BEGIN = "<!-- written by scripts/acts -->\n"
TRANSPORTS = ("jsonrpc", "rest")
SUBJECTS = ("the SDK in memory", "through Kafka")
EXPLAINED = {"STREAM-MSG-001"}
"""Passes at the SDK's server alone; docs/a2a-conformance.md says why."""
AT_ONCE = 4
CALL_S = 30.0


def in_memory(address):
    """The SDK's own server of the agent."""
    shown = card(AGENT, prefix="", push=True)
    del shown.supported_interfaces[:]
    for binding, url in (("JSONRPC", address), ("HTTP+JSON", f"{address}/v1")):
        shown.supported_interfaces.append(
            AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
        )
    handler = DefaultRequestHandlerV2(
        agent_executor=ScenarioAgent(),
        task_store=InMemoryTaskStore(),
        agent_card=shown,
        push_config_store=InMemoryPushNotificationConfigStore(),
    )
    rest = Starlette(routes=create_rest_routes(handler))
    routes = [*create_agent_card_routes(shown), *create_jsonrpc_routes(handler, "/")]
    return Starlette(routes=[*routes, Mount("/v1", rest)])


@contextlib.asynccontextmanager
async def served(make):
    """An application within the block; gives its address."""
    config = uvicorn.Config(lambda: None, port=0, log_level="critical", lifespan="off")
    listening = config.bind_socket()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config.app = make(address)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield address
    finally:
        server.should_exit = server.force_exit = True
        await task


@contextlib.asynccontextmanager
async def through_kafka(bus):
    """The agent behind a host and a gateway; gives its address."""
    await ensure_topics(bus, [(CARDS.name, CARDS)])
    settings = AgentSettings(name=AGENT, training=False, concurrency=64, push=True)
    host = Host(settings, bus, ScenarioAgent())
    gateway = Gateway(GatewaySettings(port=0), bus)
    services = (gateway, host)
    tasks = [await running(service) for service in reversed(services)]
    try:
        yield f"{gateway.address}/agents/{AGENT}"
    finally:
        for service in services:
            service.stop()
        await asyncio.gather(*tasks)


async def examine(folder, subject):
    """How each scenario ends, by its file and its id."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(test, variables):
        async with places:
            return await outcome(subject, test, variables)

    cases = list(scenarios(folder))
    ends = await asyncio.gather(*(one(test, known) for _, test, known in cases))
    return {(file, test["id"]): end for (file, test, _), end in zip(cases, ends, strict=True)}


async def compare(bootstrap, folder):
    """The ends of all scenarios, by subject and transport."""
    bus = BusSettings(bootstrap_servers=bootstrap)
    ends = {}
    limits = httpx.Limits(max_connections=64)
    async with (
        served(in_memory) as memory,
        through_kafka(bus) as kafka,
        httpx.AsyncClient(timeout=CALL_S, limits=limits) as http,
    ):
        for name, address in zip(SUBJECTS, (memory, kafka), strict=True):
            for transport in TRANSPORTS:
                subject = Subject(http, transport, address, f"{address}/v1")
                ends[name, transport] = await examine(folder, subject)
    return ends


def differences(ends):
    """What passes at the SDK's server and not through Kafka, and what else differs."""
    reference, tested = SUBJECTS
    worse, better = [], []
    for transport in TRANSPORTS:
        for case, (before, _) in ends[reference, transport].items():
            now, why = ends[tested, transport][case]
            if before == "passed" != now:
                worse.append(f"{case[1]} over {transport}: {why}")
            elif now == "passed" != before:
                better.append(f"{case[1]} over {transport}")
    return worse, better


def table(ends):
    """Markdown: a row for each file, a pair of columns for each transport."""
    heads = [f"{transport}, {name}" for transport in TRANSPORTS for name in SUBJECTS]
    counts = {
        (file, name, transport): Counter()
        for (name, transport), cases in ends.items()
        for file, _ in cases
    }
    for (name, transport), cases in ends.items():
        for (file, _), (end, _) in cases.items():
            counts[file, name, transport][end] += 1
    lines = [f"| file | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]

    def cell(count):
        return f"{count['passed']} / {count['failed']} / {count['skipped']}"

    columns = [(name, transport) for transport in TRANSPORTS for name in SUBJECTS]
    files = sorted({file for file, _, _ in counts})
    for file in files:
        row = " | ".join(cell(counts[file, *column]) for column in columns)
        lines.append(f"| `{file}` | {row} |")
    sums = [sum((counts[file, *column] for file in files), Counter()) for column in columns]
    lines.append(f"| **all** | {' | '.join(cell(count) for count in sums)} |")
    return "\n".join(lines) + "\n"


def main():
    folder, *options = sys.argv[1:]
    with LocalBroker() as broker:
        ends = asyncio.run(compare(broker.bootstrap_servers, folder))
    worse, better = differences(ends)
    for (name, transport), cases in ends.items():
        for (file, case), (end, why) in cases.items():
            if end == "failed":
                print(f"{name}, {transport}: {file} {case}: {why}")
    print(table(ends))
    print(*(f"passes only through Kafka: {each}" for each in better), sep="\n")
    print(*(f"passes only at the SDK's server: {each}" for each in worse), sep="\n")
    if "--write" in options:
        PAGE.write_text(written(PAGE.read_text(), table(ends), begin=BEGIN))
    return any(each.split()[0] not in EXPLAINED for each in worse)


if __name__ == "__main__":
    sys.exit(main())
