"""Many agents that wait at once: does the proxy take them all, and what does each cost in memory.

Every call is an episode of its own, with a connection of its own. The mock engine answers none of
them before all have arrived. `python -m odradek.infra.app.bench.waiting PROMPT_IDS SAMPLED` is
that engine; it prints its port.
"""

import asyncio
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import uvloop

from odradek.infra.app.bench.harness import raw_http
from odradek.infra.app.bench.harness.load import LoadTarget, Workload
from odradek.infra.app.bench.harness.mock_engine import VARIANTS, reply
from odradek.infra.app.bench.harness.processes import pinned, started, two_cores
from odradek.infra.app.bench.harness.site import Address, BenchSite, count, log_of, our_proxy
from odradek.infra.bus import delete_topics, ensure_topics
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.descriptors import raise_limit

WARM_UP: Final = 200
PATIENCE_S: Final = 300.0
RELEASE: Final = b"POST /release"
WAVE: Final = 500
"""Calls that are begun together. A listener holds 4,096 connections that nobody has accepted, and
TCP tries again more and more slowly beyond; engine and load share a core here."""
SPARE: Final = 200
"""Descriptors that the proxy needs besides two for each call."""

OPTIONS: Final = (
    click.Option(["--calls"], type=click.IntRange(1), default=8000, show_default=True,
                 help="Calls that wait at once."),
    click.Option(["--prompt-ids"], type=click.IntRange(1), default=1000, show_default=True,
                 help="Length of each prompt."),
    click.Option(["--sampled"], type=click.IntRange(1), default=64, show_default=True,
                 help="Length of each reply."),
)  # fmt: skip


def run(*, calls: int = 8000, prompt_ids: int = 1000, sampled: int = 64) -> dict[str, Any]:
    """Measure the proxy's memory for each of many calls that wait at once.

    Needs two descriptors for each call: the processes raise their soft limit to the hard one
    (`ulimit -Hn`). Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started.
    """
    if (limit := raise_limit()) < 2 * calls + SPARE:
        raise ProjectError(
            f"{calls} calls need {2 * calls + SPARE} descriptors and the hard limit is {limit}: "
            "raise it (`ulimit -Hn`), or ask for fewer --calls"
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="odradek-bench-")))
        tested, load = two_cores()
        place = BenchSite(stack.enter_context(log_of(load)), folder, tested, load)
        stack.enter_context(pinned(load))
        return uvloop.run(_measure(place, Workload("waiting", prompt_ids, sampled), calls))


async def _measure(place: BenchSite, workload: Workload, calls: int) -> dict[str, Any]:
    await ensure_topics(place.bus)
    sizes = (str(workload.prompt_ids), str(workload.sampled))
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(
                started(
                    "odradek.infra.app.bench.waiting", *sizes, folder=place.folder, core=place.load
                )
            )
            port = int(engine.wait_for("\n").split()[0])
            proxy = stack.enter_context(our_proxy(place, port, addresses=_agents))
            figures = await _wait(port, proxy, workload, calls)
        return {**figures, **await count(place.bus, proxy.answered)}
    finally:
        await delete_topics(place.bus)


async def _wait(port: int, proxy: LoadTarget, workload: Workload, calls: int) -> dict[str, Any]:
    for number in range(WARM_UP):
        await _call(proxy, workload, -1 - number)
    await _tell(port, b"POST /count")
    before_kb, cpu_ms, began = proxy.process.rss_kb(), proxy.process.cpu_ms(), time.time()
    asking = await _begin(port, proxy, workload, calls)
    all_here = time.time()
    waiting_kb = proxy.process.rss_kb()
    await _tell(port, RELEASE)
    statuses = await asyncio.gather(*asking)
    answered = time.time()
    refused = sum(status != 200 for status in statuses)
    return {
        "calls": calls,
        "payload": {"prompt_ids": workload.prompt_ids, "sampled": workload.sampled},
        "refused": refused,
        "kb_per_waiting_call": round((waiting_kb - before_kb) / calls, 2),
        "rss_mb": {
            "before": round(before_kb / 1024, 1),
            "waiting": round(waiting_kb / 1024, 1),
            "after": round(proxy.process.rss_kb() / 1024, 1),
        },
        "arrived_s": round(all_here - began, 2),
        "answered_s": round(answered - all_here, 2),
        "cpu_ms": round((proxy.process.cpu_ms() - cpu_ms) / calls, 3),
        "cores": os.cpu_count(),
    }


async def _begin(
    port: int, proxy: LoadTarget, workload: Workload, calls: int
) -> "list[asyncio.Task[int]]":
    """Begin all calls, wave by wave; return once all have arrived at the engine."""
    asking: list[asyncio.Task[int]] = []
    patience = time.time() + PATIENCE_S
    while (arrived := int(await _tell(port, b"POST /here"))) < calls:
        if time.time() > patience:
            raise ProjectError(f"{arrived} of {calls} calls arrived within {PATIENCE_S:g} s")
        begin = min(WAVE, calls - len(asking), max(0, arrived + 2 * WAVE - len(asking)))
        asking += [
            asyncio.create_task(_call(proxy, workload, len(asking) + n)) for n in range(begin)
        ]
        await asyncio.sleep(0.01)
    return asking


def _agents(key: str) -> Address:
    """An episode for each call."""

    def address(number: int) -> tuple[str, str]:
        episode = f"waiting-{number}"
        return f"/e/{episode}/v1/chat/completions", mint(Claims(sub=episode), [key])

    return address


async def _call(proxy: LoadTarget, workload: Workload, number: int) -> int:
    """The status of one call of an episode of its own; 0 for a connection that broke."""
    path, token = proxy.address(number)
    request = raw_http.request(path, "bench", workload.body(number), token=token)
    try:
        client = await raw_http.connect("127.0.0.1", proxy.port)
        status, _ = await client.ask(request)
    except OSError:
        return 0
    client.close()
    proxy.answered += status == 200
    return status


async def _tell(port: int, head: bytes) -> bytes:
    """Speak to the engine itself."""
    client = await raw_http.connect("127.0.0.1", port)
    _, body = await client.ask(head + b" HTTP/1.1\r\n\r\n")
    client.close()
    return body


class HeldCalls(asyncio.Protocol):
    """The engine's side of a connection; calls wait together, from `POST /count` on."""

    waiting: "list[HeldCalls] | None" = None
    answers: tuple[bytes, ...] = ()

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: Any = None  # uvloop's transports are no asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self._buffer += data
        while (parsed := raw_http.message(self._buffer)) is not None:
            head, _, length = parsed
            del self._buffer[:length]
            self._take(head)

    def _take(self, head: bytes) -> None:
        gate = type(self)
        if head.startswith(RELEASE):
            for number, connection in enumerate(gate.waiting or ()):
                connection.say(gate.answers[number % VARIANTS])
            gate.waiting = None
        elif head.startswith(b"POST /count"):
            gate.waiting = []
        elif head.startswith(b"POST /v1/chat/completions"):
            if gate.waiting is None:
                self.say(gate.answers[0])
                return
            gate.waiting.append(self)
            return
        elif head.startswith(b"POST /here"):
            self.say(raw_http.response(b"%d" % len(gate.waiting or ())))
            return
        self.say(raw_http.response(b"{}"))

    def say(self, answer: bytes) -> None:
        """Answer."""
        self._transport.write(answer)


async def serve(prompt_ids: int, sampled: int) -> None:
    """Listen on loopback for ever."""
    HeldCalls.answers = tuple(
        raw_http.response(reply(n, prompt_ids, sampled)) for n in range(VARIANTS)
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(HeldCalls, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    raise_limit()
    uvloop.run(serve(*map(int, sys.argv[1:3])))
