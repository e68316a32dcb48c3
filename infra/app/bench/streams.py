"""How fast turns become episodes and batches, through the broker and in transactions.

Stories are written first (with the intake running, so that rewards stand where they would); then
assembler and grouper start as processes of their own, and the clock runs from the moment the first
of them owns its partitions until the last batch stands on `rl.batches.v1`. What is lost is counted
from the topics.
"""

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import click
from msgspec import Raw

from odradek.infra.app.bench.harness.processes import peak_rss_mb
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import (
    BusSettings,
    at_offsets,
    delete_topics,
    ensure_topics,
    producer,
    start,
    to_end,
)
from odradek.infra.errors import BusError
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import (
    Completion,
    EpisodeOpened,
    EpisodeSealed,
    Event,
    GroupOpened,
    Prompt,
    Reply,
    Request,
    Reward,
    Timeouts,
    Turn,
    VersionSpan,
)
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import BATCHES, EPISODES, REWARDS, TURNS, Topic
from odradek.streams.verify.report import verify

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHUNK: Final = 50
"""Groups that are played at once."""

SLOW: Final = Timeouts(call_s=100, attempt_s=3000, seal_s=30, reward_s=3000, group_s=9000)


OPTIONS: Final = (
    click.Option(["--repeats"], type=click.IntRange(1), default=3, show_default=True,
                 help="Runs; the one with the median throughput is reported."),
    click.Option(["--turns"], type=click.IntRange(100), default=100_000, show_default=True,
                 help="Turns of a run."),
    click.Option(["--turns-per-episode"], type=click.IntRange(1), default=10, show_default=True),
    click.Option(["--sampled"], type=click.IntRange(1), default=2, show_default=True,
                 help="Token ids that a turn samples; 2 makes small turns of some 390 bytes."),
    click.Option(["--prompt"], type=click.IntRange(1), default=4, show_default=True,
                 help="Token ids that a turn's prompt adds."),
    click.Option(["--partitions"], type=click.IntRange(1), default=4, show_default=True),
    click.Option(["--assemblers"], type=click.IntRange(1), default=2, show_default=True,
                 help="Processes that share the partitions."),
    click.Option(["--driver"], type=click.Choice(["kafka", "faust"]), default="kafka",
                 show_default=True),
)  # fmt: skip


def run(**options: Any) -> dict[str, Any]:
    """Measure turns to episodes to batches, through the broker, in transactions.

    Stories are written first; the clock runs from the moment the first stage owns its partitions
    until the last batch stands on its topic. What is lost is counted from the topics.

    Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for the measurement.
    """
    servers = options.pop("bootstrap_servers", "") or BusSettings().bootstrap_servers
    with ExitStack() as stack:
        if not servers:
            servers = stack.enter_context(LocalBroker()).bootstrap_servers
        return asyncio.run(repeated(bootstrap_servers=servers, **options))


async def repeated(*, repeats: int = 1, **options: Any) -> dict[str, Any]:
    """The run with the median throughput of `repeats`; all throughputs stand beside it."""
    runs = [await measure(**options) for _ in range(repeats)]
    rates = sorted(figures["turns_per_s"] for figures in runs)
    median = statistics.median_low(rates)
    chosen = next(figures for figures in runs if figures["turns_per_s"] == median)
    return chosen | {"runs": rates, "lost": sum(figures["lost"] for figures in runs)}


async def measure(
    *,
    turns: int = 100_000,
    turns_per_episode: int = 10,
    group_size: int = 8,
    partitions: int = 4,
    sampled: int = 2,
    prompt: int = 4,
    assemblers: int = 2,
    driver: str = "kafka",
    bootstrap_servers: str,
) -> dict[str, Any]:
    """One run.

    Args:
        turns: How many turns in all; rounded to whole groups.
        turns_per_episode: Each continues the one before.
        group_size: Episodes of a batch.
        partitions: Of each topic but the batches.
        sampled: Token ids that a turn samples.
        prompt: Token ids that a turn's prompt adds.
        assemblers: How many processes assemble; they share the partitions.
        driver: `kafka` or `faust`.
        bootstrap_servers: Where Kafka is.

    Returns:
        The keys of `odradek bench streams --json` (design.md, section 7). `stages` are input
        records per second of CPU that the stage itself used; `turns_per_s` is by the clock.
    """
    bus = BusSettings(
        bootstrap_servers=bootstrap_servers,
        topic_prefix=f"bench{uuid4().hex[:8]}.",
        topic_partitions=partitions,
    )
    groups = max(1, round(turns / turns_per_episode / group_size))
    shape = (groups, group_size, turns_per_episode)
    stories = SyntheticEpisodes(shape, prompt, sampled)
    await ensure_topics(bus)
    try:
        return await _drain(bus, stories, driver, assemblers)
    finally:
        await delete_topics(bus)


async def _drain(
    bus: BusSettings, stories: "SyntheticEpisodes", driver: str, assemblers: int
) -> dict[str, Any]:
    groups, size, length = stories.shape
    async with StageProcess(bus, "intake", driver) as intake:
        await intake.ready()
        began = time.time()
        await load(bus, stories)
        load_s = time.time() - began
        await await_count(bus, TURNS, stories.records)
        intake_cpu = intake.cpu_s()
    async with AsyncExitStack() as running:
        verbs = ["group", *["assemble"] * assemblers]
        stages = [
            await running.enter_async_context(StageProcess(bus, verb, driver)) for verb in verbs
        ]
        first = min(await asyncio.gather(*(stage.ready() for stage in stages)))
        last = await await_count(bus, BATCHES, groups)
        group_cpu, *assemble_cpu = [stage.cpu_s() for stage in stages]
        cpu = {"assemble": sum(assemble_cpu), "group": group_cpu}
        rss = sum(stage.rss_mb() for stage in stages)
    wall = last - first
    n = groups * size * length
    report = await verify(bus)
    return {
        "turn_bytes": stories.turn_bytes,
        "turns": n,
        "turns_per_s": round(n / wall, 1),
        "batches_per_s": round(groups / wall, 1),
        "cpu_us_per_turn": round(sum(cpu.values()) / n * 1e6, 2),
        "stages": {
            "intake": round(groups * size / intake_cpu, 1),
            "assemble": round(stories.records / cpu["assemble"], 1),
            "group": round(groups * (size + 1) / cpu["group"], 1),
        },
        "rss_mb": round(rss, 1),
        "lost": len(report.lost) + len(report.open),
        "duplicated": len(report.duplicated),
        "closed": report.closed,
        "wall_s": round(wall, 3),
        "load_per_s": round(n / load_s, 1),
        "driver": driver,
        "assemblers": assemblers,
        "partitions": bus.topic_partitions,
        "durability": "acks=all, transactions, read_committed" if driver == "kafka" else "acks=all",
    }


class SyntheticEpisodes:
    """The records of a run, in an order as of many agents at once."""

    def __init__(self, shape: tuple[int, int, int], prompt: int, sampled: int) -> None:
        self.shape = shape
        self._prompt = pack_ids(range(100, 100 + prompt))
        self._sampled = pack_ids(range(200, 200 + sampled))
        self._logprobs = pack_floats([-0.5] * sampled)
        self._per_turn = prompt + sampled
        groups, size, length = shape
        self.records = groups * size * (length + 3)
        """On `rl.turns.v1`: EpisodeOpened, turns, the forwarded reward, EpisodeSealed."""
        self.turn_bytes = len(codec.encode(self._turn("e000000", 1)))

    def __iter__(self) -> Iterator[tuple[Topic, str, Event] | None]:
        """Records by topic and key; None where all before must be acked, as hosts wait for it."""
        groups = self.shape[0]
        for first in range(0, groups, CHUNK):
            chunk = range(first, min(first + CHUNK, groups))
            for group in chunk:
                yield from self._played(group)
            yield None
            for group in chunk:
                yield from self._ended(group)

    def _episodes(self, group: int) -> list[str]:
        size = self.shape[1]
        return [f"e{group * size + sample:06d}" for sample in range(size)]

    def _played(self, group: int) -> Iterator[tuple[Topic, str, Event]]:
        _, size, length = self.shape
        task, episodes = f"t{group:06d}", self._episodes(group)
        yield EPISODES, task, GroupOpened(task_id=task, group_size=size, group_s=SLOW.group_s)
        for sample, episode in enumerate(episodes):
            yield TURNS, episode, self._opened(episode, task, sample)
        for seq in range(length):
            for episode in episodes:
                yield TURNS, episode, self._turn(episode, seq)

    def _ended(self, group: int) -> Iterator[tuple[Topic, str, Event]]:
        for sample, episode in enumerate(self._episodes(group)):
            reward = Reward(
                episode_id=episode, component="game", value=float(sample), source="/agent/b"
            )
            yield REWARDS, episode, reward
            yield (
                TURNS,
                episode,
                EpisodeSealed(episode_id=episode, writer="w", n_turns=self.shape[2]),
            )

    def _opened(self, episode: str, task: str, sample: int) -> EpisodeOpened:
        return EpisodeOpened(
            episode_id=episode,
            task_id=task,
            agent="bench",
            sample=sample,
            group_size=self.shape[1],
            rewards={"game": 1.0},
            timeouts=SLOW,
        )

    def _turn(self, episode: str, seq: int) -> Turn:
        base = f"{episode}-{seq - 1}" if seq else ""
        message = Raw(b'{"role":"user","content":"higher"}')
        return Turn(
            episode_id=episode,
            turn_id=f"{episode}-{seq}",
            writer="w",
            seq=seq,
            request=Request(base=base, prefix_len=2 * seq, messages=(message,)),
            reply=Reply(message=Raw(b'{"role":"assistant","content":"5"}')),
            prompt=Prompt(base=base, prefix_len=self._per_turn * seq, ids=self._prompt),
            completion=Completion(ids=self._sampled, logprobs=self._logprobs),
            versions=(VersionSpan(1, 0, len(self._sampled) // 4),),
        )


async def load(bus: BusSettings, stories: SyntheticEpisodes) -> None:
    """Write all records, each with eight headers."""
    client = producer(bus, linger_ms=5)
    await start(client, bus)
    partitions = {topic.name: bus.partitions(topic) for topic in (TURNS, EPISODES, REWARDS)}
    headers: dict[type, list[tuple[str, bytes]]] = {}
    sent = []
    try:
        for number, story in enumerate(stories):
            if story is None:
                await client.flush()
                continue
            topic, key, event = story
            if type(event) not in headers:
                headers[type(event)] = list(
                    codec.headers(
                        event, source="/proxy/bench", subject=key, event_id="bench",
                        traceparent=TRACE,
                    )
                )  # fmt: skip
            sent.append(
                await client.send(
                    bus.topic(topic.name),
                    key=key.encode(),
                    value=codec.encode(event),
                    headers=headers[type(event)],
                    partition=partition_for(key, partitions[topic.name]),
                )
            )
            if number % 500 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*sent)
    finally:
        await client.stop()


async def await_count(bus: BusSettings, topic: Topic, n: int, timeout_s: float = 120.0) -> float:
    """Wait until a topic holds n committed records; return the last one's time."""
    deadline = time.monotonic() + timeout_s
    arrived, last = 0, 0.0
    begin: dict[tuple[str, int], int] = {}
    while arrived < n:
        if time.monotonic() > deadline:
            raise BusError(f"{arrived} of {n} records came on {topic.name} within {timeout_s:g} s")
        async for record in to_end(bus, topic.name, start=at_offsets(bus, begin)):
            arrived += 1
            last = max(last, record.timestamp)
            begin[topic.name, record.partition] = record.offset + 1
        await asyncio.sleep(0.3)
    return last


class StageProcess:
    """A stage as users start it, in a process of its own."""

    def __init__(self, bus: BusSettings, verb: str, driver: str) -> None:
        self._verb = verb
        self._driver = driver
        self._env = os.environ | {
            "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
            "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
            "ODRADEK_TOPIC_PARTITIONS": str(bus.topic_partitions),
        }
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._reading: asyncio.Task[None] | None = None
        self._cpu_at_start = 0.0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "odradek.infra.app.cli", self._verb, "--driver", self._driver,
            env=self._env, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._reading is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
        await self._reading

    async def ready(self) -> float:
        """When the stage owned its partitions, in Unix seconds."""
        return await asyncio.wait_for(asyncio.shield(self._ready), 60)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        last_line = ""
        async for line in self._process.stderr:
            last_line = line.decode(errors="replace").strip() or last_line
            if "ready:" in last_line and not self._ready.done():
                self._cpu_at_start = self._cpu()
                self._ready.set_result(time.time())
        if not self._ready.done():
            self._ready.set_exception(BusError(f"`odradek {self._verb}` ended: {last_line}"))

    def _cpu(self) -> float:
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def cpu_s(self) -> float:
        """CPU seconds since it was ready, user and system."""
        return max(self._cpu() - self._cpu_at_start, 1 / TICKS_PER_S)

    def rss_mb(self) -> float:
        """The most memory it has held."""
        assert self._process is not None
        return peak_rss_mb(self._process.pid)
