"""Broker and network faults under a whole run: what happens beside the load, and the runs.

Each act waits for its moment, hurts the broker or the way to it, and heals it again. Nobody else
lifts a finger: the processes wait, refuse, or end and are started again by their watcher.

`python -m tests.chaos.scenarios.outages R2 400`
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from odradek.schemas.events import Timeouts
from tests.chaos import run as runs
from tests.chaos import world
from tests.chaos.faults.broker import Broker, Disk, small_disk
from tests.chaos.faults.tcp_relay import FaultyLink
from tests.chaos.kill_plan import VERB_OF
from tests.chaos.run import Run, once
from tests.chaos.workload import Workload

PATIENT = 10_000
"""While the broker is away, processes may end and be started again as often as they like."""
STALL_S = 240.0
TIMEOUTS = Timeouts(call_s=30, attempt_s=180, seal_s=90, reward_s=300, group_s=3600)
"""Longer than the outages: what is late because the broker was away must not be left out."""


class Outage:
    """What a run is run over, and what was done to it.

    Args:
        broker: The broker.
        link: The relay before it, in which the processes talk to it; None if they talk straight.
        disk: The small disk under it.
    """

    def __init__(
        self, broker: Broker, link: FaultyLink | None = None, disk: Disk | None = None
    ) -> None:
        self.broker = broker
        self.link = link
        self.disk = disk
        self.told: list[tuple[float, str]] = []
        """What was done, and when, in seconds from the start."""
        self._begun = time.monotonic()

    def say(self, what: str) -> None:
        """Note what was done."""
        self.told.append((round(time.monotonic() - self._begun, 1), what))


Act = Callable[[Run, Outage], Awaitable[None]]


async def until(run: Run, share: float) -> None:
    """Wait until that share of the tasks is closed."""
    await run.until(lambda: run.share >= share)


async def kill_and_restart(run: Run, outage: Outage, times: int = 3) -> None:
    """SIGKILL the broker under load and start it on its data, several times."""
    for number in range(times):
        await until(run, (number + 0.5) / (times + 1))
        await outage.broker.kill()
        outage.say("broker killed")
        outage.say(f"broker answers, {await outage.broker.start():.1f} s after its start")


async def freeze(run: Run, outage: Outage, for_s: float = 45.0) -> None:
    """SIGSTOP the broker, SIGCONT it later."""
    await until(run, 0.3)
    outage.broker.freeze()
    outage.say("broker frozen")
    await asyncio.sleep(for_s)
    outage.broker.thaw()
    outage.say("broker thawed")


async def full_disk(run: Run, outage: Outage) -> None:
    """Take the broker's last byte; once it has halted, make room and start it."""
    assert outage.disk is not None
    await until(run, 0.3)
    outage.disk.fill()
    outage.say("disk full")
    async with asyncio.timeout(120):
        while outage.broker.pid is not None:
            await asyncio.sleep(0.1)
    outage.say("broker halted")
    await asyncio.sleep(10)
    outage.disk.clear()
    await outage.broker.stop()
    await outage.broker.start()
    outage.say("room made, broker started")
    for line in outage.broker.cut_off():
        outage.say(line)


async def bad_network(run: Run, outage: Outage, down_s: float = 30.0) -> None:
    """Latency and slices all the time; resets, half-open connections, a freeze, 30 s of nothing."""
    link = outage.link
    assert link is not None
    link.conditions.latency_s, link.conditions.jitter_s = 0.002, 0.01
    link.conditions.slice_bytes = 1400
    for share in (0.1, 0.2, 0.3):
        await until(run, share)
        outage.say(f"{link.reset(0.5)} of {len(link.links)} connections reset")
    await until(run, 0.4)
    outage.say(f"{link.strand(0.3)} connections half open")
    await until(run, 0.5)
    link.freeze()
    outage.say("nothing passes")
    await asyncio.sleep(8)
    link.thaw()
    outage.say("it passes again")
    await until(run, 0.6)
    await link.down()
    outage.say("down")
    await asyncio.sleep(down_s)
    await link.up()
    outage.say("up")


ACTS: dict[str, tuple[Act, ...]] = {
    "R2": (kill_and_restart, freeze),
    "R10": (bad_network,),
    "R11": (full_disk,),
}


@contextmanager
def patient() -> Iterator[None]:
    """Let processes end and be started again for as long as an outage may take."""
    before, world.CRASH_LOOP = world.CRASH_LOOP, PATIENT
    try:
        yield
    finally:
        world.CRASH_LOOP = before


async def play(act: Act, workload: Workload, folder: Path) -> dict[str, Any]:
    """One run with one act beside it: the keys of `chaos --json`, and what was done when."""
    data = folder / "kafka"
    data.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(small_disk(data, 600)) if act is full_disk else None
        port = world.free_port()
        link = None
        if act is bad_network:
            link = FaultyLink(f"127.0.0.1:{port}", seed=workload.seed)
            await stack.enter_async_context(link)
        broker = Broker(data, port=port, advertised=link.port if link else None)
        await stack.enter_async_context(broker)
        outage = Outage(broker, link, disk)

        async def during(run: Run) -> None:
            await act(run, outage)

        told = {
            name: getattr(TIMEOUTS, name) for name in ("call_s", "attempt_s", "seal_s", "reward_s")
        }
        workload = replace(
            workload,
            during=during,
            timeouts=TIMEOUTS,
            stall_s=STALL_S,
            upsets=None,
            may_end=frozenset(VERB_OF),
            env={**workload.env, "ODRADEK_TASK_TIMEOUTS": json.dumps(told)},
        )
        with patient():
            found = await once(workload, broker.bootstrap_servers, folder / "run")
    return {**found, "act": act.__name__, "told": outage.told}


def case(name: str) -> Callable[[str, Path, Path, int, int], Awaitable[dict[str, Any]]]:
    """All acts of a test as `scripts/prove chaos --only` runs them; each has a broker of its own."""

    async def acts(_: str, logs: Path, model: Path, seed: int, episodes: int) -> dict[str, Any]:
        found = []
        for act in ACTS[name]:
            workload = Workload(seed, episodes, 0, (), model)
            found.append(await play(act, workload, logs / act.__name__))
        worst = next((one for one in found if not one["ok"]), found[-1])
        return {**worst, "acts": {one["act"]: one["told"] for one in found}}

    return acts


async def main(name: str, episodes: int) -> bool:
    """Every act of a test; False if one of them found something."""
    folder = Path(tempfile.mkdtemp(prefix="odradek-outage-"))
    model = runs.make_model(folder / "model")
    clean = True
    for act in ACTS[name]:
        found = await play(act, Workload(0, episodes, 0, (), model), folder / act.__name__)
        clean = clean and found["ok"]
        print(json.dumps({**found, "deaths": None}, indent=1))
    print(f"logs: {folder}", file=sys.stderr)
    return clean


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main(sys.argv[1], int(sys.argv[2]))) else 1)
