"""SendMessage and back: `python -m ...bench.messages.requests KIND ADDRESS N [NAME=PID ...]`.

KIND is how the agent is reached: `kafka` over KafkaTransport (ADDRESS is its name), `http` with the
SDK's client (ADDRESS is its URL), `inside` by calling the SDK's handler in this process. Sends N
messages at 32 in flight and a quarter as many at one. Prints figures of both as JSON: times, and
the CPU of this process and of those that are named.
"""

import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import uvloop
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.server.context import ServerCallContext
from a2a.types import AgentCard, Message, Part, Role, SendMessageRequest, Task, TaskState

from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.infra.app.bench.harness.processes import cpu_ms_of
from odradek.infra.app.bench.messages.agent import described, handler
from odradek.infra.bus import BusSettings
from odradek.infra.errors import ProjectError

IN_FLIGHT: Final = (1, 32)
WARM_UP: Final = 200
IDLE_S: Final = 2.0
VERSION: Final = {"A2A-Version": "1.0"}

Ask = Callable[[SendMessageRequest], Awaitable[Task]]
"""Sends a message and returns the task."""


def message(text: str, *, context_id: str = "", message_id: str = "") -> SendMessageRequest:
    """A request that sends a text."""
    name = message_id or uuid.uuid4().hex
    return SendMessageRequest(
        message=Message(
            message_id=name, context_id=context_id, role=Role.ROLE_USER, parts=[Part(text=text)]
        )
    )


@asynccontextmanager
async def over_kafka(agent: str) -> AsyncIterator[Ask]:
    """Natively over Kafka."""
    async with KafkaConnection(BusSettings(), group="bench") as connection:
        transport = KafkaTransport(connection, agent)

        async def ask(request: SendMessageRequest) -> Task:
            return (await transport.send_message(request)).task

        yield ask


@asynccontextmanager
async def over_http(url: str) -> AsyncIterator[Ask]:
    """With the SDK's client over HTTP."""
    # Given up before the server does: a request on a connection that is being closed is an error.
    limits = httpx.Limits(max_connections=max(IN_FLIGHT), keepalive_expiry=IDLE_S)
    async with httpx.AsyncClient(
        limits=limits, timeout=60, trust_env=False, headers=VERSION
    ) as client:
        transport = JsonRpcTransport(client, AgentCard(), url)

        async def ask(request: SendMessageRequest) -> Task:
            return (await transport.send_message(request)).task

        yield ask


@asynccontextmanager
async def inside(_: str) -> AsyncIterator[Ask]:
    """The SDK's handler in this process: what a send costs without any transport."""
    served = handler(described("http://127.0.0.1/"))

    async def ask(request: SendMessageRequest) -> Task:
        answer = await served.on_message_send(request, ServerCallContext())
        assert isinstance(answer, Task)
        return answer

    yield ask


KINDS: Final = {"kafka": over_kafka, "http": over_http, "inside": inside}


async def measure(ask: Ask, in_flight: int, sends: int, watched: dict[str, int]) -> dict[str, Any]:
    """Send so many messages. Raises ProjectError for a task that is not completed.

    Returns:
        `p50_ms`, `p99_ms`, `per_s`, and `cpu_ms` of each process a send.
    """
    requests = iter([message(f"hello {number}") for number in range(sends)])
    times_ms: list[float] = []

    async def work() -> None:
        for request in requests:
            begun = time.perf_counter()
            task = await ask(request)
            times_ms.append((time.perf_counter() - begun) * 1000)
            if task.status.state != TaskState.TASK_STATE_COMPLETED:
                raise ProjectError(f"a task was not completed: {task.status}")

    before = {name: cpu_ms_of(pid) for name, pid in watched.items()}
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    wall_s = time.perf_counter() - begun
    times_ms.sort()
    return {
        "p50_ms": statistics.median(times_ms),
        "p99_ms": times_ms[min(len(times_ms) - 1, int(len(times_ms) * 0.99))],
        "per_s": sends / wall_s,
        "cpu_ms": {name: (cpu_ms_of(pid) - before[name]) / sends for name, pid in watched.items()},
    }


async def _main(kind: str, address: str, sends: int, watched: dict[str, int]) -> None:
    async with KINDS[kind](address) as ask:
        await measure(ask, max(IN_FLIGHT), WARM_UP, {})
        figures = {
            f"c{count}": await measure(ask, count, sends if count > 1 else sends // 4, watched)
            for count in IN_FLIGHT
        }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    named = dict(argument.split("=") for argument in sys.argv[4:])
    uvloop.run(
        _main(
            sys.argv[1],
            sys.argv[2],
            int(sys.argv[3]),
            {"client": os.getpid(), **{name: int(pid) for name, pid in named.items()}},
        )
    )
