"""Where the proxy is measured: a log, a mock engine, the proxy itself, and what came to the log."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from odradek.infra.app.bench.harness.load import LoadTarget, Workload
from odradek.infra.app.bench.harness.processes import pin, started
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import BusSettings, to_end
from odradek.infra.runtime.episode_tokens import Claims, mint, new_key
from odradek.schemas.codec import header
from odradek.schemas.topics import TURNS

EPISODE_TURNS: Final = 10
TURN: Final = "odradek.turn.v1"
EPISODES: Final = 32
"""At once: an agent as a rule has one call in flight."""

Address = Callable[[int], tuple[str, str]]
"""Path and bearer token of the nth call."""
Addresses = Callable[[str], Address]
"""The same for a key that signs."""


class SeenTurn(msgspec.Struct):
    """The fields of a turn that the count of losses reads."""

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


@contextmanager
def log_of(core: int | None) -> Iterator[BusSettings]:
    """Topics of the benchmark's own, on the given cluster or on a broker of its own."""
    with log_and_broker(core) as (bus, _):
        yield bus


@contextmanager
def log_and_broker(core: int | None) -> Iterator[tuple[BusSettings, int | None]]:
    """The same, and the process id of a broker of its own."""
    settings = BusSettings()
    prefix = f"bench-{secrets.token_hex(4)}."
    if settings.bootstrap_servers:
        yield settings.model_copy(update={"topic_prefix": prefix}), None
        return
    with LocalBroker() as broker:
        if broker.pid is not None:
            pin(core, broker.pid)
        bus = BusSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=prefix)
        yield bus, broker.pid


@contextmanager
def mock_engine(place: BenchSite, workload: Workload) -> Iterator[LoadTarget]:
    """The mock engine, as the target of direct calls."""
    sizes = (str(workload.prompt_ids), str(workload.sampled))
    with started(
        "odradek.infra.app.bench.harness.mock_engine", *sizes, folder=place.folder, core=place.load
    ) as engine:
        port = int(engine.wait_for("\n"))
        yield LoadTarget("direct", engine, port, plain)


@contextmanager
def our_proxy(
    place: BenchSite,
    engine_port: int,
    durability: str = "required",
    addresses: Addresses | None = None,
    watched: Path | None = None,
) -> Iterator[LoadTarget]:
    """The proxy, with tokens of access; the nth call goes where `addresses` of the key says.

    Under observation (`cpu_profile.py`) if a file for its counts is named.
    """
    key = new_key()
    env = {
        **kafka(place.bus),
        "ODRADEK_TOKEN_KEYS": key,
        "ODRADEK_ENGINE_URL": f"http://127.0.0.1:{engine_port}",
        "ODRADEK_PROXY_DURABILITY": durability,
        "ODRADEK_PROXY_AUTH": "required",
    }
    with started(
        *observed(watched), "odradek.infra.app.cli", "proxy", "--port", "0", folder=place.folder,
        core=place.tested, env=env,
    ) as proxy:  # fmt: skip
        port = port_of(proxy.wait_for("ready: proxy"))
        if addresses is not None:
            yield LoadTarget("proxy", proxy, port, addresses(key))
            return
        episodes = Episodes(key)
        yield LoadTarget("proxy", proxy, port, episodes.address, episodes.over)


def port_of(output: str) -> int:
    """The port in the line that a proxy writes once it is ready."""
    return int(output.split("listens on http://127.0.0.1:")[1].split(",", maxsplit=1)[0])


def observed(file: Path | None) -> tuple[str, ...]:
    """The start of a command whose CPU is sampled into this file, if there is one."""
    return () if file is None else ("odradek.infra.app.bench.harness.cpu_profile", str(file))


def kafka(bus: BusSettings) -> dict[str, str]:
    """Variables that name the log."""
    return {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
    }


def plain(_: int) -> tuple[str, str]:
    """The path of every call, without a token."""
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
    """Compare the topic with the acknowledged turns."""
    decode = msgspec.json.Decoder(SeenTurn).decode
    identities: list[tuple[str, str, int]] = []
    spoiled = 0
    async for record in to_end(bus, TURNS.name):
        if header(record.headers, "ce_type") != TURN:
            continue
        turn = decode(record.value or b"")
        identities.append((turn.episode_id, turn.writer, turn.seq))
        spoiled += bool(turn.error or turn.untrainable)
    distinct = len(set(identities))
    return {
        "acked": acked,
        "lost": acked - distinct,
        "duplicated": len(identities) - distinct,
        "spoiled": spoiled,
    }
