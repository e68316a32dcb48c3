"""Load on HTTP targets in alternating order, and its cost for each of them."""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import track

from odradek.infra.app.bench.harness import raw_http
from odradek.infra.app.bench.harness.processes import MeasuredProcess
from odradek.infra.errors import ProjectError

WARM_UP: Final = 300
IN_FLIGHT: Final = (1, 32)


class Workload(msgspec.Struct, frozen=True):
    """The payload of every call of a measurement."""

    name: str
    prompt_ids: int
    sampled: int
    stream: bool = False

    def body(self, number: int) -> bytes:
        """A chat completion with messages of its own, so that deltas save nothing."""
        words = " ".join(f"{number * 7919 + n * 31:x}" for n in range(self.prompt_ids * 3 // 5))
        payload: dict[str, Any] = {
            "model": "policy",
            "messages": [
                {"role": "system", "content": "You are a player."},
                {"role": "user", "content": words},
            ],
            "temperature": 1.0,
            "max_tokens": self.sampled,
        }
        if self.stream:
            payload["stream"] = True
        return json.dumps(payload).encode()


CHAT: Final = Workload("chat", prompt_ids=1000, sampled=64)
STREAM: Final = Workload("stream", prompt_ids=1000, sampled=64, stream=True)
LONG: Final = Workload("long", prompt_ids=16_000, sampled=64)
WORKLOADS: Final = {workload.name: workload for workload in (CHAT, STREAM, LONG)}


class LoadTarget(msgspec.Struct):
    """The address of calls, and the process whose CPU time counts."""

    name: str
    process: MeasuredProcess
    port: int
    address: Callable[[int], tuple[str, str]]
    """Path and bearer token of the nth call."""
    over: Callable[[], list[tuple[str, str]]] = list
    """Paths and tokens of requests between two measurements; they count for neither."""
    answered: int = 0
    """Calls answered with 200, warm-up included."""


class Measurement(msgspec.Struct):
    """One measurement."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float
    """Of the process under test, a call."""


class LoadTest:
    """Calls of one workload on some targets."""

    def __init__(self, workload: Workload, targets: list[LoadTarget]) -> None:
        self.workload = workload
        self.targets = targets
        self._samples: dict[tuple[str, int], list[Measurement]] = {}
        self._next_number = 0

    async def measure_all(self, repeats: int, calls: int, warm_up: int = WARM_UP) -> None:
        """Warm up, then measure the targets in alternating order."""
        for target in self.targets:
            await self.measure(target, 32, warm_up)
        console = Console(stderr=True)
        for repeat in track(
            range(repeats),
            f"{self.workload.name}: {', '.join(target.name for target in self.targets)}",
            console=console,
            refresh_per_second=1,
            transient=True,
            disable=not console.is_terminal,
        ):
            order = self.targets[:: 1 if repeat % 2 == 0 else -1]
            for in_flight, n in zip(IN_FLIGHT, (max(50, calls // 4), calls), strict=True):
                for target in order:
                    sample = await self.measure(target, in_flight, n)
                    self._samples.setdefault((target.name, in_flight), []).append(sample)

    async def measure(self, target: LoadTarget, in_flight: int, calls: int) -> Measurement:
        """One measurement. Raises ProjectError for an answer other than 200."""
        requests = iter([self._request(target) for _ in range(calls)])
        times: list[float] = []
        async with connections(target.port, in_flight) as clients:
            cpu, begun = target.process.cpu_ms(), time.perf_counter()
            await asyncio.gather(*(_worker(client, requests, times) for client in clients))
            wall = time.perf_counter() - begun
            cpu_used = target.process.cpu_ms() - cpu
            for path, token in target.over():
                await _ask(clients[0], raw_http.request(path, "bench", b"{}", token=token))
        target.answered += calls
        times.sort()
        return Measurement(
            p50_ms=statistics.median(times),
            p99_ms=times[min(len(times) - 1, int(len(times) * 0.99))],
            per_s=calls / wall,
            cpu_ms=cpu_used / calls,
        )

    def _request(self, target: LoadTarget) -> bytes:
        number, self._next_number = self._next_number, self._next_number + 1
        path, token = target.address(number)
        host = f"127.0.0.1:{target.port}"
        return raw_http.request(path, host, self.workload.body(number), token=token)

    def times(self, target: str, baseline: str, in_flight: int) -> float:
        """How many times the CPU of a call to `baseline` a call to `target` takes.

        The median over the repeats, each by itself: what slows a machine for seconds slows both.
        """
        pairs = zip(
            self._samples[target, in_flight], self._samples[baseline, in_flight], strict=True
        )
        return statistics.median(sample.cpu_ms / base.cpu_ms for sample, base in pairs)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Per target and number in flight: medians of the repeats, and every repeat."""
        medians: dict[str, dict[str, Any]] = {}
        for (name, in_flight), samples in self._samples.items():
            columns = {
                field: [getattr(sample, field) for sample in samples]
                for field in Measurement.__struct_fields__
            }
            medians.setdefault(name, {})[f"c{in_flight}"] = {
                **{field: round(statistics.median(v), 4) for field, v in columns.items()},
                "repeats": columns,
            }
        return medians


async def _worker(
    client: raw_http.HTTPConnection, requests: Iterator[bytes], times: list[float]
) -> None:
    for request in requests:
        begun = time.perf_counter()
        await _ask(client, request)
        times.append((time.perf_counter() - begun) * 1000)


async def _ask(client: raw_http.HTTPConnection, request: bytes) -> None:
    status, body = await client.ask(request)
    if status != 200:
        raise ProjectError(f"a call of the benchmark was answered {status}: {body[:300]!r}")


@asynccontextmanager
async def connections(port: int, n: int) -> AsyncIterator[list[raw_http.HTTPConnection]]:
    """Connections to a port of this machine."""
    clients = [await raw_http.connect("127.0.0.1", port) for _ in range(n)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
