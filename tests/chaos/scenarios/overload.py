"""The trainer stands still while tasks keep coming: what is bounded, what grows, what is refused.

The trainer is stopped by SIGSTOP: it neither dies nor answers, as on a machine that swaps. Training
tasks wait behind the dispatcher's credit; evaluations go on, so that every process has work.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from typing import Any
from uuid import uuid4

from odradek.infra.bus import BusSettings, consumer, delete_topics, ensure_topics, partitions_of
from odradek.infra.bus import running as opened
from odradek.infra.client import publish_tasks
from odradek.schemas import codec
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import Batch, GroupOpened, Step, Task, raw
from odradek.schemas.topics import BATCHES, EPISODES, STEPS
from odradek.streams.verify.report import verify
from tests.chaos.run import make_model
from tests.chaos.verification import oracle
from tests.chaos.workload import TIMEOUTS
from tests.chaos.world import World

GROUP_SIZE = 4
OPEN_GROUPS = 48
OPEN_EVALS = 16
ROWS_PER_STEP = 16
EVALS_PER_S = 1.0
SETTLE = 0.25
"""Share of the pause after which memory is expected to be flat: caches have filled by then."""
PATIENCE_S = 180.0


@dataclass
class Seen:
    """What the log says, followed while it grows."""

    out: dict[str, set[str]] = field(default_factory=lambda: {"train": set(), "eval": set()})
    """Tasks that were sent and have no batch yet, by purpose."""
    story: list[tuple[float, int, str, Any]] = field(default_factory=list)
    """(broker's or writer's time, order at equal times, what, which): one clock, one machine."""
    batches: dict[str, int] = field(default_factory=dict)
    """Offset of each training task's batch."""
    expected: set[str] = field(default_factory=set)
    closed: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def feed(self, topic: str, offset: int, value: bytes, at: float) -> None:
        """One record of episodes, batches or steps."""
        if topic.endswith(EPISODES.name):
            event: Any = codec.decode(value, GroupOpened)
            self.out[event.purpose].add(event.task_id)
            self.story.append((at, 2, f"sent {event.purpose}", event.task_id))
            if event.purpose == "train":
                self.expected.add(event.task_id)
        elif topic.endswith(BATCHES.name):
            event = codec.decode(value, Batch)
            self.closed[event.purpose] += 1
            self.story.append((at, 0, f"closed {event.purpose}", (offset, event.task_id)))
            if event.purpose == "train":
                self.batches[event.task_id] = offset
            self.out[event.purpose].discard(event.task_id)
        else:
            event = codec.decode(value, Step)
            self.passed = max(self.passed, event.position)
            self.story.append((at, 1, "passed", event.position))
            self.steps += event.optimized
            self.refused.update(refusal.reason for refusal in event.refused)

    def most_out(self) -> dict[str, int]:
        """The most groups out at once: training until the trainer passed, evaluation until closed.

        What gave a credit was written before what was sent on it, so times put them in order,
        whatever order the topics were read in.
        """
        out: dict[str, set[str]] = {"train": set(), "eval": set()}
        most = {"train": 0, "eval": 0}
        closed: dict[int, str] = {}
        passed = 0
        for _, _, what, which in sorted(self.story, key=lambda one: one[:2]):
            verb, _, purpose = what.partition(" ")
            if verb == "sent":
                out[purpose].add(which)
            elif what == "closed eval":
                out["eval"].discard(which[1])
            elif verb == "closed":
                closed[which[0]] = which[1]
            else:
                passed = max(passed, which)
            for at in [at for at in closed if at < passed]:
                out["train"].discard(closed.pop(at))
            most = {name: max(most[name], len(tasks)) for name, tasks in out.items()}
        return most


@dataclass
class Memory:
    """Resident bytes of one process over time."""

    at: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def sample(self, pid: int, now: float) -> None:
        """Read it once; a process that is just being restarted is passed over."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        self.at.append(now)
        self.mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def figures(self) -> dict[str, float]:
        """Level, growth and slope, over what came after the settling."""
        first = next((n for n, at in enumerate(self.at) if at >= self.at[-1] * SETTLE), 0)
        at, mb = self.at[first:], self.mb[first:]
        edge = max(len(mb) // 8, 1)
        grown = median(mb[-edge:]) - median(mb[:edge])
        slope = linear_regression(at, mb).slope * 60 if len(mb) > 2 else 0.0
        return {"mb": round(median(mb), 1), "grown_mb": round(grown, 2), "mb_per_min": round(slope, 3)}  # fmt: skip


def tasks(n: int, purpose: Any, seed: int) -> list[Task]:
    """Tasks of the scripted agent, under ids of their own."""
    return [
        Task(
            task_id=f"{purpose}-{uuid4().hex[:12]}", agent=oracle.AGENT, item=str(number),
            input=raw({"seed": seed}), group_size=GROUP_SIZE, purpose=purpose,
            rewards=oracle.REWARDS, failure_reward=oracle.FAILURE, timeouts=TIMEOUTS,
        )
        for number in range(n)
    ]  # fmt: skip


class Overload:
    """One run: train, stop the trainer, wait, let it go on, count."""

    def __init__(self, servers: str, folder: Path, *, pause_s: float, waiting: int) -> None:
        self.bus = BusSettings(
            bootstrap_servers=servers, topic_prefix=f"o{uuid4().hex[:8]}.", topic_partitions=4
        )
        self.pause_s = pause_s
        self.waiting = waiting
        """Training tasks published at once: many more than may be out."""
        self.seen = Seen()
        self.memory: dict[str, Memory] = {}
        self.evals = 0
        env = {
            "ODRADEK_TRAINER_MAX_STALENESS": "1",
            "ODRADEK_DISPATCH_OPEN_EVALS": str(OPEN_EVALS),
        }
        self.world = World(
            folder, self.bus, make_model(folder / "model"), open_groups=OPEN_GROUPS,
            rows_per_step=ROWS_PER_STEP, env=env,
        )  # fmt: skip

    async def run(self) -> dict[str, Any]:
        """All of it, and its figures."""
        await ensure_topics(self.bus)
        try:
            await self.world.start()
            watching = asyncio.create_task(self._watch())
            try:
                await publish_tasks(tasks(self.waiting, "train", 1), bus=self.bus)
                await self._until(lambda: self.seen.steps >= 2)
                at_once = await self._pause()
                await self._until(self._all_passed)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                codes = await self.world.stop()
            report = await verify(self.bus)
            return {
                "pause_s": self.pause_s,
                "evaluations_in_the_pause": self.evals,
                "out_at_most": self.seen.most_out(),
                "open_groups": OPEN_GROUPS,
                "open_evals": OPEN_EVALS,
                "waiting_when_it_went_on": at_once,
                "refused": dict(self.seen.refused),
                "steps": self.seen.steps,
                "memory": {name: one.figures() for name, one in sorted(self.memory.items())},
                "codes": codes,
                "conservation": report.conservation,
                "closed": report.closed,
                "not_closed": report.lines()[:20],
            }
        finally:
            await delete_topics(self.bus)

    async def _pause(self) -> int:
        """Stop the trainer for `pause_s`; return how many batches waited for it in the end."""
        pid = self.world.processes["trainer"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            # No credit is given back any more: what may go out goes out, and closes.
            await self._until(lambda: len(self.seen.expected) - self._behind() >= OPEN_GROUPS)
            await self._until(lambda: not self.seen.out["train"])
            began = time.monotonic()
            await publish_tasks(tasks(3 * OPEN_EVALS, "eval", 2), bus=self.bus)  # more than may go
            while (spent := time.monotonic() - began) < self.pause_s:
                for name, process in self.world.processes.items():
                    if process.pid is not None:
                        self.memory.setdefault(name, Memory()).sample(process.pid, spent)
                await publish_tasks(tasks(int(EVALS_PER_S * 2), "eval", 2), bus=self.bus)
                self.evals += int(EVALS_PER_S * 2)
                self.world.check()
                await asyncio.sleep(2.0)
            return len(self.seen.batches) - self._behind()
        finally:
            os.kill(pid, signal.SIGCONT)

    def _behind(self) -> int:
        return sum(at < self.seen.passed for at in self.seen.batches.values())

    def _all_passed(self) -> bool:
        return (
            len(self.seen.batches) == self.waiting == self._behind() and not self.seen.out["eval"]
        )

    async def _until(self, true: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self.world.check()
                await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        reader = consumer(self.bus)
        async with opened(reader, self.bus):
            on = [
                place
                for row in (EPISODES, BATCHES, STEPS)
                for place in await partitions_of(reader, self.bus.topic(row.name))
            ]
            reader.assign(on)
            await reader.seek_to_beginning(*on)
            while True:
                for where, messages in (await reader.getmany(timeout_ms=100)).items():
                    for message in messages:
                        try:
                            self.seen.feed(
                                where.topic, message.offset, message.value, message.timestamp
                            )
                        except InvalidRecord:
                            continue  # an Episode or a Tick
