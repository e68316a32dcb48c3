"""R15: hours of load with kills and pauses at random; what lives through all of it stays as it is.

Half of the processes are spared, so that their memory, descriptors and asyncio tasks can be
compared: the last quarter of the time with the second one. The others are killed or stopped for a
while, one about every `EVERY_S` seconds.
"""

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.kill_plan import PROCESSES, VERB_OF
from tests.chaos.run import Run
from tests.chaos.workload import Workload

SPARED = ("agent-1", "assembler-1", "proxy", "grouper")
EVERY_S = 25.0
OPEN_TASKS = 60
"""Tasks published beyond those that are closed."""
SAMPLE_S = 5.0
LIMITS = {"rss_mb": (1.2, 16.0), "descriptors": (1.0, 16.0), "tasks": (1.5, 40.0)}
"""What is flat: at most so many times as before, plus so much."""
MOST_PER_S = 60
"""Tasks that are made ready; far more than a machine gets through."""


class Soak:
    """A run that lasts as long as it is told to."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.seconds = seconds
        self.samples: list[tuple[float, str, dict[str, float]]] = []
        self.pauses = 0
        self._chance = random.Random(f"soak/{seed}")

    async def during(self, run: Run) -> None:
        """Publish as tasks are closed, strike, and look."""
        began = time.monotonic()
        strike, look = began + EVERY_S, began
        while (now := time.monotonic()) < began + self.seconds:
            run.allowed = min(1.0, (run.batches + OPEN_TASKS) / len(run.tasks))
            if now >= look:
                look = now + SAMPLE_S
                self._look(run, now - began)
            if now >= strike:
                await self._strike(run)
                strike = time.monotonic() + self._chance.uniform(0.4, 1.6) * EVERY_S
            await asyncio.sleep(0.1)
        run.tasks = run.tasks[: run.published]

    async def _strike(self, run: Run) -> None:
        pool = [name for name, verb in VERB_OF.items() if verb != "engine" and name not in SPARED]
        process = run.world.processes[self._chance.choice(pool)]
        if self._chance.random() < 0.6 or process.pid is None:
            process.kill()
            return
        self.pauses += 1
        pid = process.pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self._chance.uniform(0.5, 10.0))
            os.kill(pid, signal.SIGCONT)

    def _look(self, run: Run, at: float) -> None:
        for name in SPARED:
            pid = run.world.processes[name].pid
            with suppress(OSError, ValueError, StopIteration):
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                rss = next(line for line in status if line.startswith("VmRSS:"))
                seen = {
                    "rss_mb": int(rss.split()[1]) / 1024,
                    "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
                    "tasks": float((run.folder / str(pid)).read_text()),
                }
                self.samples.append((at, name, seen))

    def flat(self) -> tuple[dict[str, Any], list[str]]:
        """Second and last quarter of each measure of each process, and what is not flat."""
        told: dict[str, Any] = {}
        grown: list[str] = []
        for name in SPARED:
            for what, (times, plus) in LIMITS.items():
                second = self._of(name, what, 0.25, 0.5)
                last = self._of(name, what, 0.75, 1.0)
                if not second or not last:
                    grown.append(f"{name}: too few samples")
                    break
                before, after = statistics.median(second), statistics.median(last)
                told.setdefault(name, {})[what] = [round(before, 1), round(after, 1)]
                if after > before * times + plus:
                    grown.append(f"{name}: {what} grew from {before:.1f} to {after:.1f}")
        return told, grown

    def _of(self, name: str, what: str, begin: float, end: float) -> list[float]:
        span = (begin * self.seconds, end * self.seconds)
        return [
            seen[what] for at, who, seen in self.samples if who == name and span[0] <= at <= span[1]
        ]


async def soak(
    servers: str, folder: Path, model: Path, seed: int, seconds: float
) -> dict[str, Any]:
    """The run; keys of a chaos run, and `flat`."""
    case = Soak(seed, seconds)

    def watched(_: str, command: tuple[str, ...]) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.chaos.processes.task_counter", ".", *command[3:])

    workload = Workload(
        seed, int(seconds * MOST_PER_S), 0, tuple(PROCESSES), model, watched,
        during=case.during, paced=True, upsets=None, may_end=frozenset(VERB_OF) - {*SPARED},
    )  # fmt: skip
    found = await Run(workload, servers, folder, lambda *_: None).run()
    flat, grown = case.flat()
    return found | {
        "flat": flat,
        "pauses": case.pauses,
        "seconds": seconds,
        "wrong": [*found["wrong"], *grown],
        "ok": found["ok"] and not grown,
    }
