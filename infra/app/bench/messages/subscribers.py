"""Many who follow one task: `python -m ...bench.messages.subscribers KIND AGENT URL N EVENTS`.

KIND is `sse`, streams of the gateway's (URL is the agent's there), or `native`, streams of
KafkaTransport. One task streams EVENTS chunks, each with its number
and the moment at which its agent made it; N subscribers take note of when each one came. Prints as
JSON how late the last subscriber of each chunk had it, and how many chunks were missing or twice.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import uvloop
from a2a.types import StreamResponse, SubscribeToTaskRequest

from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.infra.app.bench.messages.agent import STREAM
from odradek.infra.app.bench.messages.requests import message
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError

EVERY_MS: Final = 50
CHUNK: Final = re.compile(rb"chunk (\d+) ([0-9.]+)")
HELD_BACK: Final = 20
"""Chunks at the beginning that come while subscribers still connect; they are not counted."""


class Arrivals:
    """When chunks came to subscribers."""

    def __init__(self, subscribers: int) -> None:
        self.made: dict[int, float] = {}
        """By number: when its agent made it, in seconds of the epoch."""
        self.last: dict[int, float] = {}
        """By number: when the last subscriber had it."""
        self.heard: list[Counter[int]] = [Counter() for _ in range(subscribers)]

    def take(self, subscriber: int, number: int, made: float) -> None:
        """A chunk came to a subscriber."""
        self.made[number] = made
        self.last[number] = time.time()
        self.heard[subscriber][number] += 1

    def figures(self, events: int) -> dict[str, Any]:
        """Milliseconds from a chunk's making to its last subscriber; what was missing or twice.

        A subscriber is to have every chunk from the first that it heard to the end.
        """
        late = [
            (self.last[number] - self.made[number]) * 1000
            for number in range(HELD_BACK, events)
            if number in self.made
        ]
        wanted = [(heard, range(min(heard, default=0), events)) for heard in self.heard]
        return {
            "n": len(self.heard),
            "events": events,
            "p50_ms": round(float(np.percentile(late, 50)), 3),
            "p99_ms": round(float(np.percentile(late, 99)), 3),
            "gaps": sum(heard[number] == 0 for heard, numbers in wanted for number in numbers),
            "duplicates": sum(max(0, n - 1) for heard in self.heard for n in heard.values()),
        }


async def _sse(url: str, task_id: str, hear: Callable[[int, float], None]) -> None:
    """One stream of the gateway's, until it ends."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"POST {parts.path}/v1/tasks/{task_id}:subscribe HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "A2A-Version: 1.0\r\nContent-Length: 0\r\n\r\n".encode()
    )
    status = await reader.readline()
    if b" 200 " not in status:
        raise ProjectError(f"the gateway refused a stream: {status!r} {await reader.read(1000)!r}")
    try:
        while line := await reader.readline():
            if line.startswith(b"data:") and b'"artifactUpdate"' in line:
                chunk = CHUNK.search(line)
                assert chunk is not None
                hear(int(chunk[1]), float(chunk[2]))
            elif line == b"0\r\n":
                return
    finally:
        writer.close()


async def _native(
    transport: KafkaTransport, task_id: str, hear: Callable[[int, float], None]
) -> None:
    """One stream over Kafka, until it ends."""
    async with aclosing(transport.subscribe(SubscribeToTaskRequest(id=task_id))) as events:
        async for event in events:
            if event.HasField("artifact_update"):
                _hear(event, hear)


def _hear(event: StreamResponse, hear: Callable[[int, float], None]) -> None:
    chunk = CHUNK.search(event.artifact_update.artifact.parts[0].text.encode())
    assert chunk is not None
    hear(int(chunk[1]), float(chunk[2]))


async def _main(kind: str, agent: str, url: str, subscribers: int, events: int) -> None:
    arrivals = Arrivals(subscribers)
    async with KafkaConnection(BusSettings(), group="bench") as connection:
        transport = KafkaTransport(connection, agent)
        request = message(f"{STREAM} {events} {EVERY_MS}")
        request.configuration.return_immediately = True
        task_id = (await transport.send_message(request)).task.id

        def hearer(number: int) -> Callable[[int, float], None]:
            return lambda chunk, made: arrivals.take(number, chunk, made)

        await asyncio.gather(
            *(
                _sse(url, task_id, hearer(number))
                if kind == "sse"
                else _native(transport, task_id, hearer(number))
                for number in range(subscribers)
            )
        )
    print(json.dumps(arrivals.figures(events)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
