"""R5: the same load and the same kills on Faust's `exactly_once` and on ours, counted side by side.

N conversations of T turns and a reward flow for some twenty seconds into two workers; each of them
is ended once (SIGTERM, or SIGKILL). Whoever ends, told or by itself, is started again a second later.
What counts is what a read_committed reader sees at the end: conversations that never came out are
lost, those that came out again are duplicated.

`scripts/prove chaos --only R5 --json docs/figures/r5.json`
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click

from odradek.infra.app.local_kafka import LocalBroker
from odradek.infra.bus import BusSettings, delete_topics, ensure_topics, producer, running
from odradek.infra.runtime.process import die_with_parent
from odradek.schemas import codec, events
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import EPISODES, TURNS, Topic
from tests.chaos.verification.log import records
from tests.chaos.world import odradek
from tests.support.suite.child_processes import python_path

PARTITIONS: Final = 6
LOAD_S: Final = 20.0
KILLS: Final = ((0.3, 0), (0.6, 1))
"""(share of the load, worker)"""
DOWN_S: Final = 1.0
QUIET_S: Final = 240.0
"""No conversation came out for so long after the load: nothing more will. Longer than a session (6 s),
a rebalance and a transaction that its writer left open (60 s by default) take together, and than any
pause that was seen to end."""
AT_MOST_S: Final = 600.0
WRITER: Final = "w"
TURNS_EACH: Final = 4


class Faust:
    """Faust, exactly once, with a table; its workers have names that outlive restarts, as ours do."""

    name = "faust exactly_once"
    named = True

    def __init__(self, bus: BusSettings, folder: Path) -> None:
        self.bus, self.folder = bus, folder
        self.source, self.sink = "turns", "episodes"

    async def prepare(self) -> None:
        rows = [Topic(name=name, key="id") for name in (self.source, self.sink)]
        await ensure_topics(self.bus, [(row.name, row) for row in rows])

    def worker(self, number: int) -> tuple[str, ...]:
        return (
            sys.executable, "-m", "tests.chaos.processes.faust_exactly_once", self.bus.bootstrap_servers,
            self.bus.topic_prefix, str(PARTITIONS), str(self.folder / f"data-{number}"),
            f"worker-{number}" if self.named else "",
        )  # fmt: skip

    def record(self, episode: str, turn: int, turns: int) -> tuple[bytes, Any]:
        kind = "sealed" if turn == turns + 2 else "opened" if turn == 0 else "turn"
        return json.dumps({"kind": kind, "turn": turn}).encode(), ()

    def emitted(self, record: Any) -> str | None:
        return str(record.key.decode())

    def whole(self, record: Any, turns: int) -> bool:
        return bool(json.loads(record.value) == list(range(turns + 2)))


class FaustUnnamed(Faust):
    """Faust as it is set up if nothing is said about `consumer_group_instance_id`."""

    name = "faust exactly_once, unnamed members"
    named = False


class Ours:
    """`odradek assemble`, which the same stories go through as they do in production."""

    name = "odradek assemble"

    def __init__(self, bus: BusSettings, folder: Path) -> None:
        self.bus, self.folder = bus, folder
        self.source, self.sink = TURNS.name, EPISODES.name

    async def prepare(self) -> None:
        await ensure_topics(self.bus)

    def worker(self, number: int) -> tuple[str, ...]:
        return odradek("assemble", "--instance", f"worker-{number}")

    def record(self, episode: str, turn: int, turns: int) -> tuple[bytes, Any]:
        event: Any
        if turn == 0:
            event = events.EpisodeOpened(
                episode_id=episode, task_id=episode, agent="r5", sample=0, group_size=1,
                rewards={"score": 1.0},
            )  # fmt: skip
        elif turn == turns + 1:
            event = events.Reward(episode_id=episode, component="score", value=1.0, source="/r5")
        elif turn > turns:
            event = events.EpisodeSealed(episode_id=episode, writer=WRITER, n_turns=turns)
        else:
            event = events.Turn(
                episode_id=episode, turn_id=f"{episode}/{turn}", writer=WRITER, seq=turn - 1
            )
        headers = codec.headers(event, source="/r5", subject=episode, event_id=f"{episode}/{turn}")
        return codec.encode(event), headers

    def emitted(self, record: Any) -> str | None:
        event = codec.decode(record.value, events.GroupsEvent)
        return event.episode_id if isinstance(event, events.EpisodeHead) else None

    def whole(self, record: Any, turns: int) -> bool:
        event = codec.decode(record.value, events.GroupsEvent)
        # An episode of which a turn is missing is `incomplete`.
        return isinstance(event, events.EpisodeHead) and str(event.outcome) == "completed"


SYSTEMS: Final = {"faust": Faust, "faust-unnamed": FaustUnnamed, "odradek": Ours}
SIGNALS: Final = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
ALL: Final = tuple((system, how) for system in SYSTEMS.values() for how in SIGNALS.values())


class Worker:
    """One process and its log; whoever ends it or not, it is started again a second later."""

    def __init__(self, command: tuple[str, ...], env: dict[str, str], log: Path) -> None:
        self._command, self._env, self._log = command, env, log
        self._from = 0
        self._stopping = False
        self._watcher: asyncio.Task[None] | None = None
        self._asked = False
        self.unasked: list[int] = []
        """Exit codes of ends that nobody asked for."""
        self.child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        await self._spawn()
        self._watcher = asyncio.create_task(self._watch())

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._from = log.tell()
            self.child = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env={**os.environ, **self._env},
                start_new_session=True, preexec_fn=die_with_parent(),
            )  # fmt: skip

    async def _watch(self) -> None:
        while self.child is not None:
            code = await self.child.wait()
            if self._stopping:
                return
            if not self._asked:
                self.unasked.append(code)
            self._asked = False
            await asyncio.sleep(DOWN_S)
            await self._spawn()

    async def ready(self) -> None:
        while b"ready: " not in self._log.read_bytes()[self._from :]:
            await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals, wait_s: float = 20.0) -> None:
        """End it, at the latest by SIGKILL."""
        child, self._asked = self.child, True
        assert child is not None
        with suppress(ProcessLookupError):
            child.send_signal(number)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), wait_s)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()

    async def stop(self) -> None:
        """End it for good."""
        self._stopping = True
        if self._watcher is not None:
            await self.end(signal.SIGTERM)
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)


def stories(n: int, turns: int) -> Iterator[tuple[str, int]]:
    """(conversation, event) in the order of sending: fifty conversations are open at a time."""
    for first in range(0, n, 50):
        for event in range(turns + 3):
            for number in range(first, min(first + 50, n)):
                yield f"e{number:06d}", event


async def measure(
    system: Any, how: signal.Signals, n: int, turns: int, say: Any = lambda _: None
) -> dict[str, Any]:
    """One run; what came out, how often, and the longest silence."""
    await system.prepare()
    bus = system.bus
    env = {
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": bus.bootstrap_servers,
        "ODRADEK_TOPIC_PREFIX": bus.topic_prefix,
        "PYTHONPATH": python_path(),
    }
    workers = [
        Worker(system.worker(number), env, system.folder / f"worker-{number}.log")
        for number in range(2)
    ]
    seen = Seen(system)
    try:
        for worker in workers:
            await worker.start()
        async with asyncio.timeout(60):
            for worker in workers:
                await worker.ready()
        watching = asyncio.create_task(seen.watch())
        killing = asyncio.create_task(_kill(workers, how, say))
        await _load(system, n, turns)
        await killing
        began = time.monotonic()
        while len(seen.times) < n and not watching.done():
            quiet = time.monotonic() - max(seen.last, began)
            if quiet > QUIET_S or time.monotonic() - began > AT_MOST_S:
                break
            await asyncio.sleep(0.1)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
    # Counted once more from the beginning, when nobody writes any more.
    names = [bus.topic(system.sink)]
    found: Counter[str] = Counter()
    whole = set()
    async for record in records(bus.bootstrap_servers, names):
        if (name := system.emitted(record)) is not None:
            found[name] += 1
            if system.whole(record, turns):
                whole.add(name)
    return {
        "system": system.name,
        "kill": how.name,
        "conversations": n,
        "lost": n - len(found),
        "duplicated": sum(found.values()) - len(found),
        "incomplete": len(found.keys() - whole),
        "ended_by_themselves": sum(len(worker.unasked) for worker in workers),
        "longest_pause_s": round(seen.pause, 1),
    }


class Seen:
    """What has come out so far, as a committed reader sees it."""

    def __init__(self, system: Any) -> None:
        self.times: dict[str, float] = {}
        self.last = time.monotonic()
        self.pause = 0.0
        self._system = system

    async def watch(self) -> None:
        from odradek.infra.client import records as follow

        async for record in follow(self._system.sink, since="beginning", bus=self._system.bus):
            name = self._system.emitted(_Keyed(record.key, record.value))
            if name is None:
                continue
            now = time.monotonic()
            if self.times:
                self.pause = max(self.pause, now - self.last)
            self.last = now
            self.times.setdefault(name, now)


class _Keyed:
    def __init__(self, key: str | None, value: bytes | None) -> None:
        self.key, self.value = (key or "").encode(), value


async def _load(system: Any, n: int, turns: int) -> None:
    bus = system.bus
    pace_s = LOAD_S / (n * (turns + 3))
    async with running(producer(bus, linger_ms=5), bus) as client:
        began = time.monotonic()
        sent = []
        for number, (episode, turn) in enumerate(stories(n, turns)):
            ahead = began + number * pace_s - time.monotonic()
            if ahead > 0.01:
                await asyncio.sleep(ahead)
            value, headers = system.record(episode, turn, turns)
            sent.append(
                await client.send(
                    bus.topic(system.source),
                    key=episode.encode(),
                    value=value,
                    headers=list(headers),
                    partition=partition_for(episode, PARTITIONS),
                )
            )
        await asyncio.gather(*sent)


async def _kill(workers: list[Worker], how: signal.Signals, say: Any) -> None:
    began = time.monotonic()
    for share, number in KILLS:
        await asyncio.sleep(max(0.0, began + share * LOAD_S - time.monotonic()))
        say(f"{how.name} to worker {number}")
        await workers[number].end(how)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--conversations", type=click.IntRange(50), default=2000, show_default=True)
@click.option("--turns", type=click.IntRange(1), default=TURNS_EACH, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result there.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder of the logs; kept.")
@click.option("--system", type=click.Choice([*SYSTEMS]), help="One of them.")
@click.option("--signal", "how", type=click.Choice([*SIGNALS]), help="One of them.")
def main(
    conversations: int,
    turns: int,
    out: Path | None,
    keep: Path | None,
    system: str | None,
    how: str | None,
) -> None:
    """Count what two kills lose and double, on Faust's exactly_once and on ours."""
    cases = [
        (one, number)
        for name, one in SYSTEMS.items()
        for signal_name, number in SIGNALS.items()
        if system in {None, name} and how in {None, signal_name}
    ]
    sys.exit(compare(conversations, turns, out, keep, cases))


def compare(
    conversations: int,
    turns: int,
    out: Path | None,
    keep: Path | None = None,
    cases: Sequence[tuple[Any, signal.Signals]] = ALL,
) -> int:
    """All systems, both signals; 1 if ours lost or doubled anything."""
    found = []
    with LocalBroker() as broker, tempfile.TemporaryDirectory(prefix="odradek-r5-") as scratch:
        for system, how in cases:
            folder = (keep or Path(scratch)) / f"{system.__name__}-{how.name}"
            folder.mkdir(parents=True)
            bus = BusSettings(
                bootstrap_servers=broker.bootstrap_servers,
                topic_prefix=f"r5{uuid4().hex[:6]}.",
                topic_partitions=PARTITIONS,
            )
            found.append(asyncio.run(_once(system(bus, folder), how, conversations, turns)))
            click.echo(json.dumps(found[-1]))
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    return int(
        any(
            one["lost"] or one["duplicated"] or one["incomplete"]
            for one in found
            if one["system"] == Ours.name
        )
    )


async def _once(system: Any, how: signal.Signals, n: int, turns: int) -> dict[str, Any]:
    try:
        return await measure(system, how, n, turns, lambda told: click.echo(told, err=True))
    finally:
        await delete_topics(system.bus)


if __name__ == "__main__":
    main()
