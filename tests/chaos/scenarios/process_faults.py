"""Cases that are more than kills: zombies, wrong clocks, rolling restarts.

Each stands alone: `scripts/prove chaos --only R3`.
"""

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from odradek.schemas import events
from tests.chaos.run import PARTITIONS, Run, once
from tests.chaos.scenarios import outages
from tests.chaos.verification import recovery_times
from tests.chaos.verification.log import Log
from tests.chaos.workload import TIMEOUTS, Workload

ZOMBIES = ("assembler-0", "agent-0")
STOPPED_S = 12.0
"""Longer than the session timeout, so that others own the partitions."""
OFF = {
    "assembler-0": 600,
    "assembler-1": -600,
    "grouper": -600,
    "intake": 600,
    "dispatcher": 600,
    "agent-0": -600,
    "agent-1": 600,
    "trainer": -600,
}
ROLLED = 12
"""Hosts that a roll upsets at most: four times the partitions are dealt anew among three."""
Result = dict[str, Any]


async def zombie(servers: str, folder: Path, model: Path, seed: int, episodes: int) -> Result:
    """R3: frozen past the rebalance, then awake: nothing of what it does becomes visible."""
    taken: list[str] = []

    async def freeze(run: Run) -> None:
        for number, name in enumerate(ZOMBIES):
            await run.until(lambda at=number: run.share >= 0.1 + 0.3 * at)
            process = run.world.processes[name]
            os.kill(process.pid, signal.SIGSTOP)
            heir = run.world.processes[name[:-1] + "1"]
            await run.until(lambda heir=heir: len(heir.partitions()) == PARTITIONS, hold=True)
            taken.append(name)
            os.kill(process.pid, signal.SIGCONT)

    workload = Workload(
        seed, episodes, 0, ("assemble", "agent"), model, during=freeze,
        upsets=1, may_end=frozenset(ZOMBIES),
    )  # fmt: skip
    found = await once(workload, servers, folder)
    return found | {"zombies": taken, "ok": found["ok"] and tuple(taken) == ZOMBIES}


def off(
    name: str,
    command: tuple[str, ...],
    module: tuple[str, ...] = ("tests.chaos.processes.skewed_clock",),
) -> Any:
    """A process' command with its clock off, and perhaps with a fault."""
    seconds = OFF.get(name, 0)
    return (sys.executable, "-m", *module, str(seconds), *command[3:])


async def clocks(servers: str, folder: Path, model: Path, seed: int, episodes: int) -> Result:
    """R12: clocks off by ten minutes either way: what is overdue ends, and nothing else does."""
    # A token lasts as long as a run may; with the defaults that is more than ten minutes.
    times = replace(TIMEOUTS, attempt_s=600, call_s=60, reward_s=5, group_s=4000)
    workload = Workload(seed, episodes, 4, ("assemble",), model, off, quiet=True, timeouts=times)
    return await once(workload, servers, folder)


async def rolling(servers: str, folder: Path, model: Path, seed: int, episodes: int) -> Result:
    """R14: one assembler and one host become three, each is restarted, and one is left."""
    kinds = {"assembler": ("assemble", "--instance"), "agent": _agent()}
    spans: list[tuple[float, float]] = []

    async def roll(run: Run) -> None:
        await run.until(lambda: run.share >= 0.05)
        began = time.time()
        for number in (1, 2):
            for kind, verb in kinds.items():
                name = f"{kind}-{number}"
                run.world.add(name, run.world.command(name, (*verb, name))).start()
        await run.until(lambda: all(one.ready.is_set() for one in run.world.processes.values()))
        for number in (0, 1, 2):
            for kind in kinds:
                process = run.world.processes[f"{kind}-{number}"]
                await process.restart()
                await run.until(process.ready.is_set)
        for number in (2, 1):
            for kind in kinds:
                await run.world.processes.pop(f"{kind}-{number}").stop()
        spans.append((began, time.time()))

    workload = Workload(
        seed, episodes, 0, ("assemble", "agent"), model, during=roll,
        processes={"assembler-1": (), "agent-1": ()}, upsets=ROLLED,
    )  # fmt: skip
    run = Run(workload, servers, folder, lambda *_: None)
    found = await run.run()
    pauses = gaps(run.log, *spans[0]) if spans else []
    told = {share: recovery_times.quantile(pauses, share) for share in (0.5, 0.99, 1.0)}
    return found | {"pause_s": {"p50": told[0.5], "p99": told[0.99], "max": told[1.0]}}


def gaps(log: Log, begin: float, end: float) -> list[float]:
    """Seconds between an episode and the next of the same input partition, in a span of time."""
    at: defaultdict[int, list[float]] = defaultdict(list)
    for record, event in log.episodes:
        if isinstance(event, events.Episode) and begin <= record.timestamp / 1000 <= end:
            place = recovery_times.partition_for(event.episode_id, PARTITIONS)
            at[place].append(record.timestamp / 1000)
    return [
        round(after - before, 3)
        for times in map(sorted, at.values())
        for before, after in pairwise(times)
    ]


def _agent() -> tuple[str, ...]:
    return ("agent", "tests.chaos.processes.agent:play", "--name", "scripted", "--instance")


CASES: dict[str, Callable[[str, Path, Path, int, int], Any]] = {
    "R3": zombie,
    "R12": clocks,
    "R14": rolling,
    **{name: outages.case(name) for name in outages.ACTS},
}
