"""What the proxy costs: CPU of an acked turn, and the time that it adds to a call.

The proxy has one core, load and mock engine the other; direct calls and calls through the proxy
alternate, so that a noisy machine is noisy for both. Every call is an episode's new turn with
other messages and other token ids: deltas save nothing here.
"""

import asyncio
import json
import os
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import msgspec
import uvloop

from odradek.infra.bench import wire
from odradek.infra.bench.processes import Measured, pin, pinned, started, two_cores
from odradek.infra.bus import (
    BusSettings,
    consumer,
    delete_topics,
    ensure_topics,
    partitions_of,
    running,
)
from odradek.infra.errors import ProjectError
from odradek.infra.local.broker import LocalBroker
from odradek.infra.tokens import Claims, mint, new_key
from odradek.schemas.topics import TURNS

PROMPT_IDS: Final = 1000
SAMPLED: Final = 64
EPISODE_TURNS: Final = 10
WARM_UP: Final = 300

OPTIONS: Final = (
    click.Option(["--repeats"], type=click.IntRange(1), default=5, show_default=True,
                 help="Measurements of each kind; figures are their medians."),
    click.Option(["--calls"], type=click.IntRange(50), default=2000, show_default=True,
                 help="Calls of a measurement at 32 in flight; a quarter as many at one."),
    click.Option(["--durability"], type=click.Choice(["required", "best_effort"]),
                 default="required", show_default=True, help="The proxy's own setting."),
)  # fmt: skip


class Seen(msgspec.Struct):
    """What the count of losses reads of a turn."""

    episode_id: str
    writer: str
    seq: int
    error: str = ""
    untrainable: str = ""


class Sample(msgspec.Struct):
    """One measurement."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float
    """Of the process under test, a call."""


def run(*, repeats: int = 5, calls: int = 2000, durability: str = "required") -> dict[str, Any]:
    """Measure the proxy: CPU per acked turn and added latency, with a mock engine.

    Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="odradek-bench-")))
        tested, load = two_cores()
        bus = stack.enter_context(_bus(load))
        stack.enter_context(pinned(load))
        return uvloop.run(_measure(bus, folder, (tested, load), repeats, calls, durability))


@contextmanager
def _bus(core: int | None) -> Iterator[BusSettings]:
    """Topics of the benchmark's own, on the given cluster or on a broker of its own."""
    given = BusSettings()
    prefix = f"bench-{secrets.token_hex(4)}."
    if given.bootstrap_servers:
        yield given.model_copy(update={"topic_prefix": prefix})
        return
    with LocalBroker() as broker:
        if broker.pid is not None:
            pin(core, broker.pid)
        yield BusSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)


async def _measure(
    bus: BusSettings,
    folder: Path,
    cores: tuple[int | None, int | None],
    repeats: int,
    calls: int,
    durability: str,
) -> dict[str, Any]:
    tested, load = cores
    key = new_key()
    await ensure_topics(bus)
    try:
        with started(
            "odradek.infra.bench.engine", str(PROMPT_IDS), str(SAMPLED), folder=folder, core=load
        ) as engine:
            engine_port = int(engine.wait_for("\n"))
            env = _environment(bus, key, engine_port, durability)
            with started(
                "odradek.infra.cli", "proxy", "--port", "0", folder=folder, core=tested, env=env
            ) as proxy:
                said = proxy.wait_for("ready: proxy")
                port = int(said.split("listens on http://127.0.0.1:")[1].split(",")[0])
                run_ = Run(key, Target(engine, engine_port), Target(proxy, port))
                await run_.all(repeats, calls)
        return {**run_.figures(durability), **await _count(bus, run_.acked)}
    finally:
        await delete_topics(bus)


def _environment(bus: BusSettings, key: str, engine_port: int, durability: str) -> dict[str, str]:
    return {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "ODRADEK_TOKEN_KEYS": key,
        "ODRADEK_ENGINE_URL": f"http://127.0.0.1:{engine_port}",
        "ODRADEK_PROXY_DURABILITY": durability,
        "ODRADEK_PROXY_AUTH": "required",
    }


class Target(msgspec.Struct):
    """Where calls go, and whose CPU time counts."""

    process: Measured
    port: int


class Run:
    """Loads both targets in turns, and keeps what it measured."""

    def __init__(self, key: str, direct: Target, proxy: Target) -> None:
        self.acked = 0
        """Calls that the proxy answered with 200."""
        self._key = key
        self._targets = {"direct": direct, "proxy": proxy}
        self._samples: dict[tuple[str, int], list[Sample]] = {}
        self._made = 0

    async def all(self, repeats: int, calls: int) -> None:
        """Warm up, then measure both, in alternating order."""
        for name in self._targets:
            await self._one(name, 32, WARM_UP)
        for repeat in range(repeats):
            names = list(self._targets)[:: 1 if repeat % 2 == 0 else -1]
            for in_flight, n in ((1, max(50, calls // 4)), (32, calls)):
                for name in names:
                    sample = await self._one(name, in_flight, n)
                    self._samples.setdefault((name, in_flight), []).append(sample)

    async def _one(self, name: str, in_flight: int, calls: int) -> Sample:
        target = self._targets[name]
        requests = iter([self._request(name, target.port) for _ in range(calls)])
        times: list[float] = []
        async with _connections(target.port, in_flight) as clients:
            cpu, begun = target.process.cpu_ms(), time.perf_counter()
            await asyncio.gather(*(self._worker(client, requests, times) for client in clients))
            wall = time.perf_counter() - begun
            used = target.process.cpu_ms() - cpu
        if name == "proxy":
            self.acked += calls
        times.sort()
        return Sample(
            p50_ms=statistics.median(times),
            p99_ms=times[min(len(times) - 1, int(len(times) * 0.99))],
            per_s=calls / wall,
            cpu_ms=used / calls,
        )

    async def _worker(
        self, client: wire.Client, requests: Iterator[bytes], times: list[float]
    ) -> None:
        for request in requests:
            begun = time.perf_counter()
            status, body = await client.ask(request)
            times.append((time.perf_counter() - begun) * 1000)
            if status != 200:
                raise ProjectError(f"a call of the benchmark was answered {status}: {body[:300]!r}")

    def _request(self, name: str, port: int) -> bytes:
        """A call with messages of its own; every tenth opens an episode."""
        number, self._made = self._made, self._made + 1
        words = " ".join(f"{number * 7919 + n * 31:x}" for n in range(600))
        body = json.dumps(
            {
                "model": "policy",
                "messages": [
                    {"role": "system", "content": "You are a player."},
                    {"role": "user", "content": words},
                ],
                "temperature": 1.0,
                "max_tokens": SAMPLED,
            }
        ).encode()
        if name == "direct":
            return wire.request("/v1/chat/completions", f"127.0.0.1:{port}", body)
        if number % EPISODE_TURNS == 0 or not hasattr(self, "_token"):
            self._episode = f"bench-{number}"
            self._token = mint(Claims(sub=self._episode, agent="bench"), [self._key])
        path = f"/e/{self._episode}/v1/chat/completions"
        return wire.request(path, f"127.0.0.1:{port}", body, token=self._token)

    def figures(self, durability: str) -> dict[str, Any]:
        """Medians of the repeats, and their spread."""
        found: dict[str, Any] = {
            "payload": {"prompt_ids": PROMPT_IDS, "sampled": SAMPLED},
            "durability": durability,
        }
        for (name, in_flight), samples in self._samples.items():
            columns = {
                field: [getattr(sample, field) for sample in samples]
                for field in Sample.__struct_fields__
            }
            found.setdefault(name, {})[f"c{in_flight}"] = {
                **{field: round(statistics.median(v), 4) for field, v in columns.items()},
                "repeats": columns,
            }
        found["added_p50_ms"] = round(
            found["proxy"]["c1"]["p50_ms"] - found["direct"]["c1"]["p50_ms"], 4
        )
        return found


@asynccontextmanager
async def _connections(port: int, n: int) -> AsyncIterator[list[wire.Client]]:
    clients = [await wire.connect("127.0.0.1", port) for _ in range(n)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def _count(bus: BusSettings, acked: int) -> dict[str, Any]:
    """Hold the topic against what was acknowledged."""
    decode = msgspec.json.Decoder(Seen).decode
    seen: list[tuple[str, str, int]] = []
    spoiled = 0
    async with running(consumer(bus), bus) as reader:
        partitions = await partitions_of(reader, bus.topic(TURNS.name))
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        await reader.seek_to_beginning(*partitions)
        left = {p for p in partitions if ends[p] > 0}
        while left:
            for messages in (await reader.getmany(*left, timeout_ms=1000)).values():
                for record in messages:
                    turn = decode(record.value)
                    seen.append((turn.episode_id, turn.writer, turn.seq))
                    spoiled += bool(turn.error or turn.untrainable)
            left = {p for p in left if await reader.position(p) < ends[p]}
    distinct = len(set(seen))
    return {
        "acked": acked,
        "lost": acked - distinct,
        "duplicated": len(seen) - distinct,
        "spoiled": spoiled,
        "cores": os.cpu_count(),
    }
