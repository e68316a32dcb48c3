"""`scripts/prove gateways`: kill -9 gateways under load; no message is lost, and none comes twice."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import httpx

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.app.local_kafka.server import free_ports
from odradek.infra.bus import BusSettings, ensure_topics
from odradek.schemas.topics import AGENT_TOPICS, CARDS, agent_topic
from tests.chaos.processes.echo import HEARD, WORDS

ROOT = Path(__file__).parents[2]
AGENT = "echo"
WAIT_S = 300.0
TRY_S = 20.0
"""How long one try may take; the next goes to another gateway."""
PAUSE_S = 0.5


class GatewayProcess:
    """A gateway as a process of its own, at a port that it keeps."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}/agents/{AGENT}/v1"

    async def start(self) -> None:
        """Start it, and return at once."""
        command = ("gateway", "--port", str(self.port))
        self.process = await launched(command, self._environment, self._log)

    async def kill(self) -> None:
        """With SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


async def launched(
    command: tuple[str, ...], environment: dict[str, str], log: Path
) -> asyncio.subprocess.Process:
    """An `odradek` process."""
    program = str(Path(sys.executable).with_name("odradek"))
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            program, *command, cwd=ROOT, env=environment, stdout=file, stderr=file
        )


class StreamClient:
    """One message, and its stream over however many connections it takes.

    Args:
        name: The message's id and its text.
        gateways: Where it may ask.
    """

    def __init__(self, name: str, gateways: list[GatewayProcess]) -> None:
        self.name = name
        self._gateways = gateways
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.tries = 0

    @property
    def over(self) -> bool:
        """Whether it has seen the end of its task."""
        return bool(self.events) and "COMPLETED" in json.dumps(self.events[-1][1])

    async def run(self, http: httpx.AsyncClient) -> None:
        """Send the message again, with the last id, until the task's end was seen."""
        part = {"text": self.name}
        body = {"message": {"messageId": self.name, "role": "ROLE_USER", "parts": [part]}}
        while not self.over:
            gateway = self._gateways[(self.tries + hash(self.name)) % len(self._gateways)]
            self.tries += 1
            headers = {"A2A-Version": "1.0"}
            if self.events:
                headers["Last-Event-ID"] = self.events[-1][0]
            try:
                async with (
                    asyncio.timeout(TRY_S),
                    http.stream(
                        "POST", f"{gateway.url}/message:stream", json=body, headers=headers
                    ) as answer,
                ):
                    await self._read(answer)
            except (httpx.HTTPError, TimeoutError):
                await asyncio.sleep(PAUSE_S)

    async def _read(self, answer: httpx.Response) -> None:
        name = ""
        async for line in answer.aiter_lines():
            field, _, text = line.partition(": ")
            if field == "id":
                name = text
            elif field == "data" and name:
                self.events.append((name, json.loads(text)))
                name = ""

    def problem(self) -> str:
        """What is wrong with what it saw; "" if nothing is."""
        generations = [int(name.split(".")[2]) for name, _ in self.events]
        words = [
            part["text"]
            for _, event in self.events
            for part in event.get("artifactUpdate", {}).get("artifact", {}).get("parts", [])
        ]
        if generations != list(range(generations[0], generations[0] + len(generations))):
            return f"{self.name}: generations {generations}"
        first = self.events[0][1].get("task", {})
        parts = [part for artifact in first.get("artifacts", []) for part in artifact["parts"]]
        shown = [part["text"] for part in parts] + words
        return "" if shown == [str(n) for n in range(WORDS)] else f"{self.name}: words {shown}"


async def prove(bus: BusSettings, folder: Path, *, messages: int, kills: int) -> dict[str, Any]:
    """Run it; what came of the messages, and what is wrong."""
    heard = folder / "heard"
    environment = os.environ | {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_AGENT_TRAINING": "false",
        "ODRADEK_AGENT_CONCURRENCY": "100",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        HEARD: str(heard),
    }
    if bus.topic_partitions:
        environment["ODRADEK_TOPIC_PARTITIONS"] = str(bus.topic_partitions)
    required = [(agent_topic(row, AGENT), row) for row in AGENT_TOPICS]
    await ensure_topics(bus, [(CARDS.name, CARDS), *required])
    gateways = [GatewayProcess(environment, folder / f"gateway-{n}.log") for n in range(2)]
    agent = ("agent", "tests.chaos.processes.echo:Echo", "--name", AGENT)
    host = await launched(agent, environment, folder / "host.log")
    clients = [StreamClient(f"m{number}", gateways) for number in range(messages)]
    try:
        for gateway in gateways:
            await gateway.start()
        limits = httpx.Limits(max_connections=messages)
        async with (
            asyncio.timeout(WAIT_S),
            httpx.AsyncClient(limits=limits, timeout=TRY_S) as http,
            asyncio.TaskGroup() as group,
        ):
            for client in clients:
                group.create_task(client.run(http))
            for number in range(kills):
                # Amid the load: some clients are through, and some are not.
                wanted = len(clients) * (number + 1) // (kills + 2)
                while sum(bool(client.events) for client in clients) < wanted:
                    await asyncio.sleep(0.05)
                victim = gateways[number % len(gateways)]
                await victim.kill()
                await victim.start()
    finally:
        for process in (host, *(gateway.process for gateway in gateways)):
            if process.returncode is None:
                process.terminate()
                await process.wait()
    counts = Counter(heard.read_text().split())
    return {
        "messages": messages,
        "kills": kills,
        "connections": sum(client.tries for client in clients),
        "problems": [
            *(problem for client in clients if (problem := client.problem())),
            *(f"{c.name} was heard {counts[c.name]} times" for c in clients if counts[c.name] != 1),
        ],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--messages", type=click.IntRange(4), default=200, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=4, show_default=True)
def main(messages: int, kills: int) -> None:
    """Kill -9 two gateways in turn, while clients stream through them and connect again.

    Each message is heard once by its agent, and each client sees each event once.
    """
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        prefix = f"{uuid4().hex[:6]}."
        bus = BusSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)
        run = asyncio.run(prove(bus, Path(folder), messages=messages, kills=kills))
    click.echo(json.dumps({**run, "problems": run["problems"][:10]}))
    sys.exit(bool(run["problems"]))


if __name__ == "__main__":
    main()
