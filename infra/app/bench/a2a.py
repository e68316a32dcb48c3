"""What A2A over Kafka costs beside the SDK's own HTTP, and what it holds.

One agent, an echo, is served three ways: by a host on the bus, by the SDK's own server over HTTP,
and by the SDK's handler in the client's process, which has no transport at all. Clients are
processes of their own, started anew for each repeat; their order alternates. What is tested (host,
server, gateway) has one core, client and broker the other.
"""

import asyncio
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import msgspec
import uvloop
from rich.console import Console
from rich.progress import track

from odradek.infra.app.bench.harness.processes import (
    MeasuredProcess,
    pin,
    started,
    two_cores,
)
from odradek.infra.app.bench.harness.site import BenchSite, kafka, log_and_broker
from odradek.infra.app.bench.messages.agent import NAME
from odradek.infra.app.bench.messages.backlog import offline
from odradek.infra.app.local_kafka.server import free_ports
from odradek.infra.bus import ensure_topics
from odradek.schemas.topics import CARDS

PACKAGE: Final = "odradek.infra.app.bench.messages"
NATIVE: Final = 20
"""Subscribers that read Kafka themselves, as a second row."""
PATIENCE_S: Final = 600.0

OPTIONS: Final = (
    click.Option(["--repeats"], type=click.IntRange(1), default=5, show_default=True,
                 help="Measurements of each kind; figures are their medians."),
    click.Option(["--sends"], type=click.IntRange(100), default=2000, show_default=True,
                 help="Messages of a measurement at 32 in flight; a quarter as many at one."),
    click.Option(["--partitions"], type=click.IntRange(1), default=1, show_default=True,
                 help="Of the agent's topics, as many as hosts could share the work. One host is "
                      "measured; a topic has 12 where nothing else is said, and each has "
                      "transactions of its own."),
    click.Option(["--subscribers"], type=click.IntRange(1), default=200, show_default=True,
                 help="Streams of server-sent events on one task."),
    click.Option(["--events"], type=click.IntRange(30), default=200, show_default=True,
                 help="Events of that task, one every 50 ms."),
    click.Option(["--offline"], type=click.IntRange(2), default=10_000, show_default=True,
                 help="Requests to an agent that is down."),
)  # fmt: skip


def run(
    *,
    repeats: int = 5,
    sends: int = 2000,
    partitions: int = 1,
    subscribers: int = 200,
    events: int = 200,
    offline: int = 10_000,
) -> dict[str, Any]:
    """Measure A2A over Kafka beside the A2A SDK's own HTTP, on this machine.

    `added_p50_ms` is what a message and its reply take longer over KafkaTransport than with the
    SDK's client and server over HTTP, one in flight. `hop_cpu_ms` is the CPU of client and host a
    message, less that of the SDK's handler in the client's process, 32 in flight. Without
    ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="odradek-bench-")))
        tested, load = two_cores()
        bus, broker = stack.enter_context(log_and_broker(load))
        bus = bus.model_copy(update={"topic_partitions": partitions})
        place = A2ASite(BenchSite(bus, folder, tested, load), broker)
        asyncio.run(ensure_topics(bus, [(CARDS.name, CARDS)]))
        figures = _sends(place, repeats, sends)
        figures["subscribers"] = _subscribers(place, subscribers, events)
        figures["offline"] = uvloop.run(_offline(place, offline))
        figures["partitions"] = partitions
        figures["cores"] = os.cpu_count()
        return figures


class A2ASite(msgspec.Struct, frozen=True):
    """Where A2A is measured."""

    bench: BenchSite
    broker: int | None
    """Process id of the broker, if it is ours."""

    @contextmanager
    def tested(
        self, *command: str, ready: str, port: int = 0
    ) -> Iterator[tuple[MeasuredProcess, str]]:
        """A process on the core under test, once it has said that it is ready; what it said."""
        env = {**self._env(), "ODRADEK_GATEWAY_PORT": str(port)}
        with started(
            *command, folder=self.bench.folder, core=self.bench.tested, env=env
        ) as process:
            yield process, process.wait_for(ready)

    def client(self, *arguments: str) -> dict[str, Any]:
        """What a client says when it has ended."""
        env = self._env()
        with started(
            *arguments, folder=self.bench.folder, core=self.bench.load, env=env
        ) as process:
            report = process.wait_for("}\n", PATIENCE_S)
        parsed: dict[str, Any] = json.loads(report.splitlines()[-1])
        return parsed

    def _env(self) -> dict[str, str]:
        partitions = str(self.bench.bus.topic_partitions)
        return {**kafka(self.bench.bus), "ODRADEK_TOPIC_PARTITIONS": partitions}

    @contextmanager
    def host(self) -> Iterator[MeasuredProcess]:
        """The agent's host on the bus."""
        with self.tested(f"{PACKAGE}.agent", "kafka", ready="ready: agent") as (process, _):
            yield process

    @contextmanager
    def gateway(self) -> Iterator[tuple[MeasuredProcess, str]]:
        """A gateway, and the agent's URL there."""
        (port,) = free_ports(1)
        command = ("odradek.infra.app.cli", "gateway")
        with self.tested(*command, ready="ready: gateway", port=port) as (process, _):
            yield process, f"http://127.0.0.1:{port}/agents/{NAME}"


def _sends(place: A2ASite, repeats: int, sends: int) -> dict[str, Any]:
    with ExitStack() as stack:
        host = stack.enter_context(place.host())
        gateway, url = stack.enter_context(place.gateway())
        server, said = stack.enter_context(
            place.tested(f"{PACKAGE}.agent", "http", ready="listens on ")
        )
        broker = [f"broker={place.broker}"] if place.broker else []
        host_pid = f"host={host.child.pid}"
        commands = {
            "inside": ("inside", "-", str(sends)),
            "http": (
                "http", f"http://127.0.0.1:{_port(said)}/", str(sends),
                f"server={server.child.pid}",
            ),
            "kafka": ("kafka", NAME, str(sends), host_pid, *broker),
            "gateway": ("http", url, str(sends), host_pid, f"gateway={gateway.child.pid}", *broker),
        }  # fmt: skip
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        console = Console(stderr=True)
        for repeat in track(
            range(repeats), "messages and replies", console=console, refresh_per_second=1,
            transient=True, disable=not console.is_terminal,
        ):  # fmt: skip
            for name in list(commands)[:: 1 if repeat % 2 == 0 else -1]:
                samples[name].append(place.client(f"{PACKAGE}.requests", *commands[name]))
    medians = {name: _medians(repeats_of) for name, repeats_of in samples.items()}
    added = [k["c1"]["p50_ms"] - h["c1"]["p50_ms"] for k, h in _pairs(samples, "kafka", "http")]
    hop = [
        k["c32"]["cpu_ms"]["client"] + k["c32"]["cpu_ms"]["host"] - i["c32"]["cpu_ms"]["client"]
        for k, i in _pairs(samples, "kafka", "inside")
    ]
    return {
        "added_p50_ms": round(statistics.median(added), 3),
        "hop_cpu_ms": round(statistics.median(hop), 3),
        "added_p50_repeats_ms": [round(value, 3) for value in added],
        "hop_cpu_repeats_ms": [round(value, 3) for value in hop],
        "messages": medians,
    }


def _port(said: str) -> int:
    return int(said.split("listens on ")[1].split(maxsplit=1)[0])


def _pairs(samples: dict[str, list[dict[str, Any]]], ours: str, theirs: str) -> Any:
    return zip(samples[ours], samples[theirs], strict=True)


def _medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, with its name as a path."""
    flat = [dict(_flat(sample)) for sample in samples]
    return {name: round(statistics.median(row[name] for row in flat), 4) for name in flat[0]}


def _flat(figures: dict[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, value


def _subscribers(place: A2ASite, subscribers: int, events: int) -> dict[str, Any]:
    command = f"{PACKAGE}.subscribers"
    with place.host(), place.gateway() as (gateway, url):
        before_ms = gateway.cpu_ms()
        figures = place.client(command, "sse", NAME, url, str(subscribers), str(events))
        used_ms = gateway.cpu_ms() - before_ms
        figures["gateway_cpu_ms"] = round(used_ms / (subscribers * events), 4)
        figures["native"] = place.client(command, "native", NAME, "-", str(NATIVE), str(events))
        return figures


async def _offline(place: A2ASite, requests: int) -> dict[str, Any]:
    with place.host():
        pass  # so that the agent's topics are there
    pin(place.bench.load)
    return await offline(place.bench.bus, place.host, requests)
