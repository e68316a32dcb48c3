"""`scripts/prove gateways`: kill -9 gateways under load; no message is lost, and none comes twice."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import click
import httpx

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.schemas.topics import AGENT_TOPICS, CARDS, agent_topic
from tests.chaos.processes.echo import HEARD
from tests.chaos.stream_client import TRY_S, StreamClient
from tests.chaos.verification import log
from tests.chaos.verification.oracle import ECHO, ECHOED
from tests.chaos.verification.stream_checks import streams
from tests.chaos.verification.verdict import Verdict
from tests.chaos.world import Process, free_port, odradek
from tests.support.suite.child_processes import python_path

WAIT_S = 300.0


class EchoSite(NamedTuple):
    """A host of the echo agent and two gateways before it, not started."""

    host: Process
    gateways: tuple[Process, ...]
    ports: tuple[int, ...]
    heard: Path
    """Where the agent notes each message."""

    @property
    def processes(self) -> tuple[Process, ...]:
        """All of them."""
        return (self.host, *self.gateways)

    @property
    def urls(self) -> list[str]:
        """The agent's address at each gateway."""
        return [f"http://127.0.0.1:{port}/agents/{ECHO}/v1" for port in self.ports]


async def echo_site(bus: BusSettings, folder: Path, *options: str, **environment: str) -> EchoSite:
    """Make the topics, and the processes with options of the host and variables for all."""
    heard = folder / "heard"
    heard.touch()
    variables = {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_AGENT_TRAINING": "false",
        "ODRADEK_AGENT_CONCURRENCY": "100",
        "PYTHONPATH": python_path(),
        HEARD: str(heard),
        **environment,
    }

    def process(name: str, *verb: str) -> Process:
        return Process(name, odradek(*verb), variables, folder / f"{name}.log")

    required = [(agent_topic(row, ECHO), row) for row in AGENT_TOPICS]
    await ensure_topics(bus, [(CARDS.name, CARDS), *required])
    ports = (free_port(), free_port())
    gateways = tuple(process(f"gateway-{port}", "gateway", "--port", str(port)) for port in ports)
    agent = ("agent", "tests.chaos.processes.echo:Echo", "--name", ECHO)
    return EchoSite(process("host", *agent, *options), gateways, ports, heard)


async def begun(clients: Sequence[StreamClient], wanted: int, processes: Sequence[Process]) -> None:
    """Return once so many clients have an event. Raises Broke if a process ends again and again."""
    while sum(bool(client.events) for client in clients) < wanted:
        for process in processes:
            if process.failure is not None:
                raise process.failure
        await asyncio.sleep(0.05)


async def prove(bus: BusSettings, folder: Path, *, messages: int, kills: int) -> dict[str, Any]:
    """Run it; what came of the messages, and what is wrong."""
    site, journal = await echo_site(bus, folder), folder / "streams.jsonl"
    processes, gateways = site.processes, site.gateways
    clients = [StreamClient(number, f"m{number}", site.urls) for number in range(messages)]
    try:
        for each in processes:
            each.start()
        limits = httpx.Limits(max_connections=messages)
        async with (
            asyncio.timeout(WAIT_S),
            httpx.AsyncClient(limits=limits, timeout=TRY_S) as http,
            asyncio.TaskGroup() as group,
        ):
            for client in clients:
                group.create_task(client.run(http, journal))
            for number in range(kills):
                # Amid the load: some clients are through, and some are not.
                await begun(clients, len(clients) * (number + 1) // (kills + 2), processes)
                while not gateways[number % len(gateways)].kill():
                    await asyncio.sleep(0.05)
    finally:
        codes = await asyncio.gather(*(each.stop() for each in processes))
    verdict = Verdict()
    topic = bus.topic(f"a2a.events.{ECHO}")
    events = [record async for record in log.records(bus.bootstrap_servers, [topic])]
    streams(events, journal, site.heard, ECHOED, verdict)
    ended = [code for each in processes for code in each.unasked]
    return {
        "messages": messages,
        "kills": sum(len(gateway.deaths) for gateway in gateways),
        "connections": verdict.counts["stream_connections"],
        "problems": [
            *(line for lines in verdict.found.values() for line in lines),
            *(f"a process ended by itself with {code}" for code in ended),
            *(f"a process ended with {code}" for code in codes if code != 0),
        ],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--messages", type=click.IntRange(4), default=200, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=4, show_default=True)
def main(messages: int, kills: int) -> None:
    """Kill -9 two gateways in turn, while clients stream through them and connect again.

    Each message is heard once by its agent, and each client sees each event once. In
    `scripts/prove chaos --targets gateway` the same clients run beside a whole training.
    """
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        prefix = f"{uuid4().hex[:6]}."
        bus = BusSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)
        run = asyncio.run(prove(bus, Path(folder), messages=messages, kills=kills))
    click.echo(json.dumps({**run, "problems": run["problems"][:10]}))
    sys.exit(bool(run["problems"]))


if __name__ == "__main__":
    main()
