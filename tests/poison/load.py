"""A load with 1 % poison through the real intake, assembler and grouper, on a real broker.

The same good records run with and without poison, in alternating order, at a fixed rate; and once
with poison in every other stretch of five seconds, which cancels what else goes on on the machine
and so is what the ratio is taken from. Each run is held against what was sent: every poison is a dead letter with its place, a reason of its own and
its bytes; every good group a batch; no process ended. Latency is by the broker's and the writers'
stamps on one machine: from the end of an episode (the later of EpisodeSealed and reward) to its Episode on
`rl.episodes.v1`, and from the last end of a group to its Batch.
"""

import asyncio
import itertools
import json
import math
import random
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from odradek.infra.app.bench.streams import StageProcess, SyntheticEpisodes
from odradek.infra.app.local_kafka.broker import LocalBroker
from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    consumer,
    delete_topics,
    ensure_topics,
    partitions_of,
    producer,
    record_of,
    running,
)
from odradek.schemas import codec
from odradek.schemas.codec import header
from odradek.schemas.events import (
    Batch,
    EpisodeHead,
    EpisodeSealed,
    GroupsEvent,
    Reward,
    TurnsEvent,
)
from odradek.schemas.ids import key_bytes, partition_for
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, REWARDS, TURNS
from odradek.streams.dead_letters import send_again
from odradek.streams.verify.report import verify
from tests.support.schemas.poison_records import Poison, corpus

SIZE, TURNS_EACH = 8, 10
PARTITIONS = 4
STRETCH_S = 5.0
QUIET_S = 60.0
"""How long a run may take, once all is sent, until its last batch or letter."""


class Sent:
    """What a run wrote, as far as it must be found again."""

    def __init__(self) -> None:
        self.poison: dict[tuple[str, int, int], Poison] = {}
        self.good = 0
        self.groups: set[str] = set()
        self.pending: list[asyncio.Future[Any]] = []
        self.began = time.time()

    def calm(self, at: float) -> bool:
        """Whether a Unix time lies in a stretch without poison, where stretches alternate."""
        return int((at - self.began) / STRETCH_S) % 2 == 0


async def one_run(
    servers: str, records: int, rate: float, every: int, seed: int, *, stretches: bool = False
) -> dict[str, Any]:
    """One run; every n-th record is poison, 0 for none, or only in every other stretch."""
    bus = BusSettings(
        bootstrap_servers=servers,
        topic_prefix=f"poison{uuid4().hex[:8]}.",
        topic_partitions=PARTITIONS,
    )
    await ensure_topics(bus)
    try:
        async with AsyncExitStack() as stack:
            stages = [
                await stack.enter_async_context(StageProcess(bus, verb, "kafka"))
                for verb in ("intake", "assemble", "group")
            ]
            await asyncio.gather(*(stage.ready() for stage in stages))
            sent = await load(bus, records, rate, every, seed, stretches=stretches)
            batches = await settled(bus, BATCHES.name, len(sent.groups))
            letters = await settled(bus, DLQ.name, len(sent.poison))
            ended = sum(stage._process.returncode is not None for stage in stages)
        figures = {
            "records": sent.good + len(sent.poison),
            "poison": len(sent.poison),
            "groups": len(sent.groups),
            "batches": batches,
            "dead_letters": letters,
            "process_restarts": ended,
            "wrong": await judged(bus, sent),
            "latency_ms": await latency(bus, sent if stretches else None),
        }
        report = await verify(bus)
        figures["lost"], figures["duplicated"] = len(report.lost), len(report.duplicated)
        if sent.poison:
            figures["replayed"] = await replayed(bus, len(sent.poison))
        return figures
    finally:
        await delete_topics(bus)


async def load(
    bus: BusSettings, records: int, rate: float, every: int, seed: int, *, stretches: bool
) -> Sent:
    """Write stories at a rate, with poison made from the record that stands before it."""
    good = records - (records // every if every else records // 100)
    groups = math.ceil(good / (SIZE * (TURNS_EACH + 3) + 1))
    stories = SyntheticEpisodes((groups, SIZE, TURNS_EACH), 4, 2)
    sent, draw = Sent(), random.Random(seed)
    kinds = itertools.count()
    due = draw.randrange(1, every) if every else 0
    """The good record behind which the next poison stands: one in each stretch of records."""
    started = time.perf_counter()
    async with running(producer(bus, linger_ms=5), bus) as client:
        for story in stories:
            if story is None:
                await asyncio.gather(*sent.pending)
                sent.pending.clear()
                continue
            topic, key, event = story
            value = codec.encode(event)
            headers = codec.headers(event, source="/load", subject=key, event_id=key)
            partition = partition_for(key, PARTITIONS)
            await write(client, bus, sent, topic.name, key.encode(), value, partition, headers)
            sent.good += 1
            if topic is EPISODES:
                sent.groups.add(key)
            if sent.good == due:
                stretch = sent.good // (every - 1) + 1
                due = stretch * (every - 1) + draw.randrange(1, every - 1)
                if stretches and sent.calm(time.time()):
                    continue
                found = corpus(value, key, PARTITIONS, headers)
                poison = found[next(kinds) % len(found)]
                await write(client, bus, sent, topic.name, poison.key, poison.value,
                            poison.partition, headers, poison)  # fmt: skip
            ahead = started + (sent.good + len(sent.poison)) / rate - time.perf_counter()
            if ahead > 0.005:
                await asyncio.sleep(ahead)
        await asyncio.gather(*sent.pending)
    return sent


async def write(
    client: Any, bus: BusSettings, sent: Sent, topic: str, key: bytes | None, value: bytes | None,
    partition: int, headers: Any, poison: Poison | None = None,
) -> None:  # fmt: skip
    """Send a record; poison is remembered by its place."""
    future = await client.send(
        bus.topic(topic), key=key, value=value, partition=partition, headers=list(headers)
    )
    sent.pending.append(future)
    if poison is not None:
        done = await future
        sent.poison[topic, done.partition, done.offset] = poison


async def stream(bus: BusSettings, *topics: str) -> Any:
    """All committed records of topics, a few at a time: some of them are huge."""
    async with running(consumer(bus, max_poll_records=20), bus) as reader:
        wanted = [one for name in topics for one in await partitions_of(reader, bus.topic(name))]
        reader.assign(wanted)
        ends = await reader.end_offsets(wanted)
        await reader.seek_to_beginning(*wanted)
        while any([await reader.position(one) < ends[one] for one in wanted]):
            for messages in (await reader.getmany(timeout_ms=100)).values():
                for message in messages:
                    yield record_of(message, bus)


async def settled(bus: BusSettings, topic: str, n: int) -> int:
    """Wait until a topic holds n committed records or the time is up; return how many it holds."""
    deadline = time.monotonic() + QUIET_S
    while True:
        count = 0
        async for _ in stream(bus, topic):
            count += 1
        if count >= n or time.monotonic() > deadline:
            return count
        await asyncio.sleep(0.5)


async def judged(bus: BusSettings, sent: Sent) -> list[str]:
    """What is wrong with the dead letters: missing, unasked for, or not what was sent."""
    wrong, left = [], dict(sent.poison)
    async for letter in stream(bus, DLQ.name):
        told = {name: header(letter.headers, f"dlq-{name}") for name in ("topic", "reason")}
        place = [int(header(letter.headers, f"dlq-{name}")) for name in ("partition", "offset")]
        poison = left.pop((told["topic"], *place), None)
        if poison is None:
            wrong.append(f"unasked for: {told}")
        elif told["reason"] not in poison.reasons:
            wrong.append(f"{poison.name} called {told['reason']}")
        elif (letter.value, key_bytes(letter.key)) != (poison.value, poison.key):
            wrong.append(f"{poison.name} lost bytes")
    return (wrong + [f"{one.name} at {at} is missing" for at, one in left.items()])[:20]


async def replayed(bus: BusSettings, n: int) -> int:
    """Send all letters again; return how many of them died a second time, being what they are.

    On the right partition and with the stages gone they only stand on their topics: counted there.
    """
    appender = await KafkaAppender.connect(bus)
    count = 0
    try:
        async for letter in stream(bus, DLQ.name):
            await send_again(appender, letter, bus)
            count += 1
    finally:
        await appender.aclose()
    found = 0
    async for record in stream(bus, TURNS.name, EPISODES.name, REWARDS.name):
        found += header(record.headers, "dlq-attempts") == "1"
    return found if count == n else -1


async def latency(bus: BusSettings, sent: Sent | None) -> dict[str, Any]:
    """Milliseconds from the end of an episode to its Episode, and of a group to its Batch.

    With `sent`, apart for stretches without and with poison.
    """
    ended: dict[str, float] = {}
    given: dict[str, float] = {}
    async for record in stream(bus, TURNS.name):
        event = read(record, TurnsEvent)
        if isinstance(event, EpisodeSealed | Reward) and event.episode_id == record.key:
            ended[event.episode_id] = max(ended.get(event.episode_id, 0), record.timestamp)
        if isinstance(event, EpisodeSealed) and event.episode_id == record.key:
            given[event.episode_id] = max(given.get(event.episode_id, 0), record.timestamp)
    async for record in stream(bus, REWARDS.name):
        if (event := read(record, Reward)) and record.key in given:
            given[record.key] = max(given[record.key], record.timestamp)
    assembled, groups = [], {}
    seen = set()
    async for record in stream(bus, EPISODES.name):
        event = read(record, GroupsEvent)
        if isinstance(event, EpisodeHead) and event.episode_id not in seen:
            seen.add(event.episode_id)
            assembled.append((ended[event.episode_id], record.timestamp))
            at = given[event.episode_id]
            groups[event.task_id] = max(groups.get(event.task_id, 0), at)
    grouped = []
    async for record in stream(bus, BATCHES.name):
        if event := read(record, Batch):
            grouped.append((groups[event.task_id], record.timestamp))
    every = {"episode": assembled, "batch": grouped}
    if sent is None:
        return {name: percentiles(spans) for name, spans in every.items()}
    return {
        kind: {
            name: percentiles([one for one in spans if sent.calm(one[0]) is calm])
            for name, spans in every.items()
        }
        for kind, calm in (("clean", True), ("poisoned", False))
    }


def read(record: Any, kind: Any) -> Any:
    """The event of a good record, None of another."""
    try:
        return codec.decode(record.value, kind)
    except codec.InvalidRecord:
        return None


def percentiles(spans: list[tuple[float, float]]) -> dict[str, float]:
    """p50 and p99 (nearest rank) of the milliseconds between two times."""
    ranked = sorted((end - begin) * 1000 for begin, end in spans)
    return {
        name: round(ranked[min(len(ranked) - 1, math.ceil(len(ranked) * part) - 1)], 1)
        for name, part in (("p50", 0.5), ("p99", 0.99))
    }


async def compared(
    servers: str, records: int, rate: float, every: int, repeats: int, seed: int
) -> dict[str, Any]:
    """Runs with and without poison, in alternating order; medians of their percentiles."""
    runs: dict[str, list[dict[str, Any]]] = {"clean": [], "poisoned": []}
    for repeat in range(repeats):
        order = ("clean", "poisoned") if repeat % 2 == 0 else ("poisoned", "clean")
        for kind in order:
            part = every if kind == "poisoned" else 0
            figures = await one_run(servers, records, rate, part, seed + repeat)
            click.echo(f"{kind}: {json.dumps(figures)}", err=True)
            runs[kind].append(figures)

    def median(kind: str, what: str, part: str) -> float:
        return statistics.median([one["latency_ms"][what][part] for one in runs[kind]] or [0.0])

    told: dict[str, Any] = {
        kind: {
            what: {part: median(kind, what, part) for part in ("p50", "p99")}
            for what in ("episode", "batch")
        }
        for kind in runs
    }
    every_run = [*runs["clean"], *runs["poisoned"]]
    mixed = await one_run(servers, records, rate, every, seed, stretches=True)
    click.echo(f"alternating: {json.dumps(mixed)}", err=True)
    every_run.append(mixed)
    told["alternating"] = mixed["latency_ms"]
    told["p99_ratio"] = {
        what: round(mixed["latency_ms"]["poisoned"][what]["p99"] / p99, 2)
        for what in ("episode", "batch")
        if (p99 := mixed["latency_ms"]["clean"][what]["p99"])
    }
    for name in ("poison", "dead_letters", "process_restarts", "lost", "duplicated"):
        told[name] = sum(one[name] for one in every_run)
    told["replayed"] = sum(one.get("replayed", 0) for one in every_run)
    told["wrong"] = [line for one in every_run for line in one["wrong"]]
    told["missing_batches"] = sum(one["groups"] - one["batches"] for one in every_run)
    told |= {"records": records, "rate_per_s": rate, "repeats": repeats, "seed": seed, "runs": runs}
    told["passed"] = passed(told)
    return told


def passed(told: dict[str, Any]) -> bool:
    """Everything put aside, nothing else, nobody ended, and the good ones hardly slower."""
    counted = told["poison"] == told["dead_letters"] == told["replayed"]
    zeros = ("process_restarts", "lost", "duplicated", "missing_batches")
    quick = max(told["p99_ratio"].values()) <= 2.0
    return counted and quick and not told["wrong"] and not any(told[name] for name in zeros)


@click.command()
@click.option("--records", default=100_000, show_default=True, help="Of a run, poison included.")
@click.option("--every", default=100, show_default=True, help="One record in so many is poison.")
@click.option("--rate", default=1500.0, show_default=True, help="Records a second.")
@click.option("--repeats", default=3, show_default=True, help="Pairs of runs; 0 for none.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(records: int, every: int, rate: float, repeats: int, seed: int, file: Path | None) -> None:
    """Poison in the load: all put aside, nobody ends, the good ones hardly slower.

    Exit code 1 if not.
    """
    with LocalBroker() as broker:
        servers = broker.bootstrap_servers
        told = asyncio.run(compared(servers, records, rate, every, repeats, seed))
    if file is not None:
        file.write_text(json.dumps(told, indent=2) + "\n")
    click.echo(json.dumps({name: told[name] for name in told if name != "runs"}, indent=2))
    raise SystemExit(0 if told["passed"] else 1)


if __name__ == "__main__":
    main(prog_name="scripts/prove poison")
