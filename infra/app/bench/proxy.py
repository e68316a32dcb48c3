"""What the proxy costs: CPU of an acked turn, and the time that it adds to a call.

The process under test has one core, load and mock engine the other. Direct calls, calls through a
bare capture loop (`bare.py`) and calls through the proxy alternate, so that a noisy machine is
noisy for all. Every call is an episode's new turn with other messages and other token ids: deltas
save nothing here. Episodes that are over are sealed between two measurements, as hosts do.
"""

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import msgspec
import uvloop

from odradek.infra.app.bench.harness.cpu_profile import written
from odradek.infra.app.bench.harness.load import (
    CHAT,
    IN_FLIGHT,
    WARM_UP,
    WORKLOADS,
    LoadTarget,
    LoadTest,
    Workload,
)
from odradek.infra.app.bench.harness.processes import pin, pinned, started, two_cores
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import (
    BusSettings,
    consumer,
    delete_topics,
    ensure_topics,
    partitions_of,
    running,
)
from odradek.infra.runtime.episode_tokens import Claims, mint, new_key
from odradek.schemas.codec import header
from odradek.schemas.topics import TURNS

EPISODE_TURNS: Final = 10
FEW: Final = 1000
"""Calls in which each part of a turn is seen."""
TURN: Final = "odradek.turn.v1"
EPISODES: Final = 32
"""At once: an agent as a rule has one call in flight."""

Address = Callable[[int], tuple[str, str]]
"""Path and bearer token of the nth call."""
Addresses = Callable[[str], Address]
"""The same for a key that signs."""

OPTIONS: Final = (
    click.Option(["--repeats"], type=click.IntRange(1), default=12, show_default=True,
                 help="Measurements of each kind; figures are their medians."),
    click.Option(["--calls"], type=click.IntRange(50), default=1000, show_default=True,
                 help="Calls of a measurement at 32 in flight; a quarter as many at one."),
    click.Option(["--durability"], type=click.Choice(["required", "best_effort"]),
                 default="required", show_default=True, help="The proxy's own setting."),
    click.Option(["--workload", "workloads"], type=click.Choice(list(WORKLOADS)), multiple=True,
                 default=["chat"], show_default=True,
                 help="chat: 1,000 ids and 64 sampled; stream: the same in 65 chunks; "
                      "long: 16,000 ids. May be given several times; chat is always measured."),
    click.Option(["--parts"], is_flag=True,
                 help="What the CPU of a turn is spent on, of the bare loop's and of ours."),
    click.Option(["--peers"], is_flag=True,
                 help="Other proxies beside ours: those that scripts/bench-peers installed."),
)  # fmt: skip


class SeenTurn(msgspec.Struct):
    """What the count of losses reads of a turn."""

    episode_id: str
    writer: str
    seq: int
    error: str = ""
    untrainable: str = ""


class BenchSite(msgspec.Struct, frozen=True):
    """Where a benchmark runs."""

    bus: BusSettings
    folder: Path
    tested: int | None
    """Core of the process under test."""
    load: int | None
    """Core of everything else."""


def run(
    *,
    repeats: int = 12,
    calls: int = 1000,
    durability: str = "required",
    workloads: tuple[str, ...] = ("chat",),
    parts: bool = False,
    peers: bool = False,
) -> dict[str, Any]:
    """Measure the proxy: CPU per acked turn and added latency, with a mock engine.

    Beside it a bare capture loop, and with --peers other proxies, in the same run. Without
    ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="odradek-bench-")))
        tested, load = two_cores()
        place = BenchSite(stack.enter_context(log_of(load)), folder, tested, load)
        stack.enter_context(pinned(load))
        found = uvloop.run(_measure(place, CHAT, repeats, calls, durability))
        more = [WORKLOADS[name] for name in dict.fromkeys(workloads) if name != CHAT.name]
        # Longer replies cost more: the same time for each workload, roughly.
        found["workloads"] = {
            one.name: uvloop.run(_measure(place, one, repeats, max(50, calls // 4), durability))
            for one in more
        }
        if parts:
            found["parts_us"] = uvloop.run(_spent(place, max(FEW, repeats * calls)))
        if peers:
            from odradek.infra.app.bench.peers import measure

            found["peers"] = uvloop.run(measure(place, repeats, calls))
        return found


@contextmanager
def log_of(core: int | None) -> Iterator[BusSettings]:
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
    place: BenchSite, workload: Workload, repeats: int, calls: int, durability: str
) -> dict[str, Any]:
    """One workload on the engine itself, the bare loop and the proxy."""
    await ensure_topics(place.bus)
    bare_bus = place.bus.model_copy(update={"topic_prefix": f"{place.bus.topic_prefix}bare."})
    await ensure_topics(bare_bus)
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(mock_engine(place, workload))
            targets = [engine]
            if not workload.stream:  # the bare loop knows no streams
                targets.append(stack.enter_context(_bare(place, bare_bus, engine.port)))
            proxy = stack.enter_context(our_proxy(place, engine.port, durability))
            load = LoadTest(workload, [*targets, proxy])
            await load.all(repeats, calls)
        return {
            **_figures(load, workload, durability),
            **await count(place.bus, proxy.answered),
            "cores": os.cpu_count(),
        }
    finally:
        await delete_topics(place.bus)
        await delete_topics(bare_bus)


def _figures(load: LoadTest, workload: Workload, durability: str) -> dict[str, Any]:
    figures = load.figures()
    found: dict[str, Any] = {
        "payload": {"prompt_ids": workload.prompt_ids, "sampled": workload.sampled},
        "durability": durability,
        **figures,
        "added_p50_ms": round(
            figures["proxy"]["c1"]["p50_ms"] - figures["direct"]["c1"]["p50_ms"], 4
        ),
    }
    if "bare" in figures:
        found["times_bare"] = {f"c{n}": round(load.times("proxy", "bare", n), 3) for n in IN_FLIGHT}
    return found


@contextmanager
def mock_engine(place: BenchSite, workload: Workload) -> Iterator[LoadTarget]:
    """The mock engine, as the target of direct calls."""
    sizes = (str(workload.prompt_ids), str(workload.sampled))
    with started(
        "odradek.infra.app.bench.harness.mock_engine", *sizes, folder=place.folder, core=place.load
    ) as engine:
        port = int(engine.wait_for("\n"))
        yield LoadTarget("direct", engine, port, _plain)


async def _spent(place: BenchSite, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds a turn with 32 in flight that the bare loop and the proxy spend on each part."""
    await ensure_topics(place.bus)
    found = {}
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(mock_engine(place, CHAT))
            files = {name: place.folder / f"{name}.parts" for name in ("bare", "proxy")}
            targets = [
                stack.enter_context(_bare(place, place.bus, engine.port, files["bare"])),
                stack.enter_context(our_proxy(place, engine.port, watched=files["proxy"])),
            ]
            load = LoadTest(CHAT, targets)
            for target in targets:
                await load.one(target, 32, WARM_UP)
                target.process.child.send_signal(signal.SIGUSR1)
                sample = await load.one(target, 32, calls)
                target.process.child.send_signal(signal.SIGUSR2)
                counts = written(files[target.name])
                each = sample.cpu_ms * 1000 / sum(counts.values())
                found[target.name] = {part: round(n * each, 1) for part, n in counts.items()}
        return found
    finally:
        await delete_topics(place.bus)


@contextmanager
def _bare(
    place: BenchSite, bus: BusSettings, engine_port: int, watched: Path | None = None
) -> Iterator[LoadTarget]:
    with started(
        *_watch(watched), "odradek.infra.app.bench.harness.baseline", str(engine_port), folder=place.folder,
        core=place.tested, env=_kafka(bus),
    ) as bare:  # fmt: skip
        yield LoadTarget("bare", bare, int(bare.wait_for("\n")), _plain)


@contextmanager
def our_proxy(
    place: BenchSite,
    engine_port: int,
    durability: str = "required",
    addresses: Addresses | None = None,
    watched: Path | None = None,
) -> Iterator[LoadTarget]:
    """The proxy, with tokens of access; the nth call goes where `addresses` of the key says.

    Under observation (`where.py`) if a file for its counts is named.
    """
    key = new_key()
    env = {
        **_kafka(place.bus),
        "ODRADEK_TOKEN_KEYS": key,
        "ODRADEK_ENGINE_URL": f"http://127.0.0.1:{engine_port}",
        "ODRADEK_PROXY_DURABILITY": durability,
        "ODRADEK_PROXY_AUTH": "required",
    }
    with started(
        *_watch(watched), "odradek.infra.app.cli", "proxy", "--port", "0", folder=place.folder,
        core=place.tested, env=env,
    ) as proxy:  # fmt: skip
        said = proxy.wait_for("ready: proxy")
        port = int(said.split("listens on http://127.0.0.1:")[1].split(",")[0])
        if addresses is not None:
            yield LoadTarget("proxy", proxy, port, addresses(key))
            return
        episodes = Episodes(key)
        yield LoadTarget("proxy", proxy, port, episodes.address, episodes.over)


def _watch(file: Path | None) -> tuple[str, ...]:
    return () if file is None else ("odradek.infra.app.bench.harness.cpu_profile", str(file))


def _kafka(bus: BusSettings) -> dict[str, str]:
    return {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
    }


def _plain(_: int) -> tuple[str, str]:
    return "/v1/chat/completions", ""


class Episodes:
    """Episodes with ten turns each; as many of them at once as calls in flight."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._open: dict[tuple[int, int], tuple[str, str]] = {}
        """By wave and place in it."""

    def address(self, number: int) -> tuple[str, str]:
        """Path and token of the nth call."""
        wave, at = divmod(number, EPISODES * EPISODE_TURNS)
        place = wave, at % EPISODES
        if place not in self._open:
            name = _name(place)
            token = mint(Claims(sub=name, agent="bench"), [self._key])
            self._open[place] = (f"/e/{name}/v1/chat/completions", token)
        return self._open[place]

    def over(self) -> list[tuple[str, str]]:
        """Seals of the waves that a later one has followed: path and host's token, each once."""
        last = max((wave for wave, _ in self._open), default=0)
        ended = [place for place in self._open if place[0] < last]
        host = mint(Claims(sub="*", scope="host"), [self._key])
        for place in ended:
            del self._open[place]
        return [(f"/e/{_name(place)}/seal", host) for place in ended]


def _name(place: tuple[int, int]) -> str:
    return f"bench-{place[0]}-{place[1]}"


async def count(bus: BusSettings, acked: int) -> dict[str, Any]:
    """Hold the topic against what was acknowledged."""
    decode = msgspec.json.Decoder(SeenTurn).decode
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
                    if header(record.headers, "ce_type") != TURN:
                        continue
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
    }
