"""`scripts/prove doctor`: a2a-doctor reads streams that were recorded while gateways and host died."""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click
import httpx
from a2a.client.card_resolver import A2ACardResolver
from a2a.compat.v0_3 import conversions
from a2a.types import StreamResponse
from google.protobuf.json_format import ParseDict

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import BusSettings
from tests.chaos.gateways import WAIT_S, begun, echo_site
from tests.chaos.stream_client import TRY_S, StreamClient
from tests.chaos.verification.oracle import ECHO

AT_ONCE: Final = 8
"""Streams at once: a host that dies leaves so many tasks."""
RECONNECT: Final = {"reconnect": True}
"""The doctor's mark between two connections of a stream."""
UNCLOSED: Final = re.compile(r"1 warning\(s\) — artifact '\w+' never closed")
"""What it rightly says of a task that its dead host left: the words after that one were never said."""
ROW: Final = re.compile(r"^  [✓⚠✗] (\w+) +(.*)$", re.MULTILINE)
GOOD: Final = "✓"
Lines = list[dict[str, Any]]


async def ask(
    client: StreamClient, places: asyncio.Semaphore, http: httpx.AsyncClient, folder: Path
) -> None:
    """Have a client read its stream to the end, once there is a place for it."""
    async with places:
        await client.run(http, folder / "seen")


async def record(bus: BusSettings, folder: Path, messages: int, kills: int) -> tuple[Any, Any, int]:
    """The agent's card, the clients with what they saw, and how many kills there were."""
    site = await echo_site(bus, folder, "--instance", ECHO, ODRADEK_GATEWAY_A2A_03="true")
    processes = (*site.gateways, site.host)
    address = f"http://127.0.0.1:{site.ports[0]}/agents/{ECHO}"
    clients = [StreamClient(number, f"m{number}", site.urls) for number in range(messages)]
    try:
        for each in processes:
            each.start()
        limits = httpx.Limits(max_connections=messages)
        async with (
            asyncio.timeout(WAIT_S),
            httpx.AsyncClient(limits=limits, timeout=TRY_S) as http,
        ):
            places = asyncio.Semaphore(AT_ONCE)
            asked = [asyncio.create_task(ask(each, places, http, folder)) for each in clients]
            for number in range(kills):
                await begun(clients, messages * (number + 1) // (kills + 2), processes)
                while not processes[number % len(processes)].kill():
                    await asyncio.sleep(0.05)
            await asyncio.gather(*asked)
            card = await A2ACardResolver(http, address).get_agent_card()
    finally:
        await asyncio.gather(*(each.stop() for each in processes))
    return card, clients, sum(len(each.deaths) for each in processes)


def lines_of(client: StreamClient) -> Lines:
    """A stream as the doctor knows it: JSON-RPC answers of A2A 0.3, with a mark at each reconnection.

    The SDK translates. The doctor reads `last_chunk` where A2A has `lastChunk`, so both stand there.
    """
    lines: Lines = []
    for number, (_, event) in enumerate(client.events):
        if number in client.begun[1:]:
            lines.append(RECONNECT)
        answer = conversions.to_compat_stream_response(ParseDict(event, StreamResponse()), 1)
        line = json.loads(answer.model_dump_json(by_alias=True, exclude_none=True))
        if "lastChunk" in line["result"]:
            line["result"]["last_chunk"] = line["result"]["lastChunk"]
        lines.append(line)
    return lines


def examine(doctor: str, card: Path, folder: Path, lines: Lines) -> dict[str, str]:
    """What the doctor says of a stream, by section; what it finds in order is left out."""
    stream = folder / "stream.jsonl"
    whole = [line for line in lines if line != RECONNECT]
    stream.write_text("".join(json.dumps(line) + "\n" for line in whole))
    command = [doctor, "check", "--card", str(card), "--stream", str(stream)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {row[1]: row[2] for row in ROW.finditer(said) if not row[0].lstrip().startswith(GOOD)}
    if not ROW.search(said):
        found["doctor"] = f"it says nothing: {said}"
    # `check` looks for replays under a name that its own part does not use: it is asked by itself.
    stream.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [doctor, "reconnect", str(stream)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if replayed := json.loads(said)["events_replayed"]:
        found["reconnect"] = f"{replayed} replayed"
    return found


def state_of(line: dict[str, Any]) -> str:
    """The state that a line shows; "" where it shows none."""
    return str(line.get("result", {}).get("status", {}).get("state", ""))


FAULTS: Final[dict[str, tuple[str, Callable[[Lines], Lines]]]] = {
    "an event comes again behind a reconnection": (
        "reconnect",
        lambda lines: [*lines[:3], RECONNECT, *lines[2:]],
    ),
    "an event comes twice": ("artifacts", lambda lines: [*lines[:3], *lines[2:]]),
    "the last chunk is missing": ("artifacts", lambda lines: [*lines[:-2], lines[-1]]),
    "the end is missing": ("lifecycle", lambda lines: lines[:-1]),
    "the task goes on behind its end": ("lifecycle", lambda lines: [*lines, lines[-2]]),
}
"""Faults to plant in a good stream, and the section that has to see each."""


def judge(doctor: str, card: Any, clients: Any, folder: Path) -> dict[str, Any]:
    """The doctor's findings over all streams, and over planted faults."""
    path = folder / "card.json"
    path.write_text(
        conversions.to_compat_agent_card(card).model_dump_json(by_alias=True, exclude_none=True)
    )
    counts: Counter[str] = Counter()
    problems: list[str] = []
    good: Lines = []
    for client in clients:
        lines = lines_of(client)
        found = examine(doctor, path, folder, lines)
        counts["events"] += len(client.events)
        counts["reconnections"] += lines.count(RECONNECT)
        counts[state_of(lines[-1])] += 1
        if state_of(lines[-1]) == "failed" and UNCLOSED.match(found.get("artifacts", "")):
            del found["artifacts"]
        if state_of(lines[-1]) == "completed" and not found:
            good = [line for line in lines if line != RECONNECT]
        problems += [f"{client.message}: {part}: {text}" for part, text in found.items()]
    unseen = [
        name
        for name, (part, plant) in FAULTS.items()
        if not good or part not in examine(doctor, path, folder, plant(good))
    ]
    return {"streams": len(clients), **counts, "problems": problems, "faults_unseen": unseen}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--doctor", required=True, help="The program a2a-doctor.")
@click.option("--messages", type=click.IntRange(6), default=60, show_default=True)
@click.option("--kills", type=click.IntRange(1), default=6, show_default=True)
def main(doctor: str, messages: int, kills: int) -> None:
    """Kill -9 two gateways and the host in turn while streams are recorded; a2a-doctor reads them.

    No gap, no event twice, and no task that goes on behind its end. Then faults are planted, and the
    doctor must see each.
    """
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        prefix = f"{uuid4().hex[:6]}."
        bus = BusSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)
        card, clients, dead = asyncio.run(record(bus, folder, messages, kills))
        result = {"kills": dead, **judge(doctor, card, clients, folder)}
    click.echo(json.dumps({**result, "problems": result["problems"][:10]}))
    sys.exit(bool(result["problems"] or result["faults_unseen"]))


if __name__ == "__main__":
    main()
