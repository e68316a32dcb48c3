"""One run: publish, kill by the plan, wait until all is passed, end, count."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from odradek.infra.bus import (
    BusSettings,
    consumer,
    delete_topics,
    ensure_topics,
    partitions_of,
    rows,
)
from odradek.infra.bus import running as opened
from odradek.infra.client import publish_tasks
from odradek.schemas import codec
from odradek.schemas.events import Batch, Step
from odradek.schemas.topics import BATCHES, MIXED, STEPS
from tests.chaos.kill_plan import IN_TRANSACTION, PROCESSES, VERB_OF, Plan, Round, plan
from tests.chaos.processes.engine import TROUBLE
from tests.chaos.targets import BESIDE
from tests.chaos.verification import log, recovery_times, verifier
from tests.chaos.verification.verdict import Given
from tests.chaos.workload import Workload
from tests.chaos.world import MAX_ATTEMPTS, RUNS_AT_ONCE, Broke, World

HOSTS = len(PROCESSES["agent"])
PARTITIONS = 6
OPEN_GROUPS = 240
POINT_S = 40.0
"""How long an armed process may take to pass its point, before a kill by the clock stands in."""
AHEAD = 0.12
"""Share of the tasks that may be published beyond where the next kill strikes."""
QUIET_S = 2.0
"""Until stages have committed progress without results."""
OPEN = 8
"""Tasks that are open at least while kills go on: victims must have something to come back to."""
TRICKLE_S = 5.0
"""Over so long the tasks of one kill are published, if they are needed for that."""
Tell = Callable[[int, int, int], None]
"""Told batches closed, of how many, and kills so far."""


class Run:
    """A run under way."""

    def __init__(self, workload: Workload, servers: str, folder: Path, tell: Tell) -> None:
        self.workload = workload
        while folder.exists():  # a trainer would go on with what it finds there
            folder = folder.with_name(f"{folder.name}+")
        folder.mkdir(parents=True)
        self.folder = folder
        self.bus = BusSettings(
            bootstrap_servers=servers,
            topic_prefix=f"c{uuid4().hex[:8]}.",
            topic_partitions=PARTITIONS,
        )
        self.beside = [
            kind(folder, workload.seed) for name, kind in BESIDE.items() if name in workload.targets
        ]
        self.world = World(
            folder,
            self.bus,
            workload.model,
            open_groups=OPEN_GROUPS,
            rows_per_step=workload.rows_per_step,
            wrap=workload.wrap,
            others=workload.processes,
            env={
                **({TROUBLE: str(workload.seed)} if "engine" in workload.targets else {}),
                **workload.env,
            },
        )
        for beside in self.beside:
            beside.join(self.world)
        self.plan = (
            Plan(workload.seed, workload.rounds, dict(workload.first))
            if workload.rounds or workload.first
            else plan(workload.seed, workload.targets, workload.kills)
        )
        self.tasks = workload.tasks
        self.batches = 0
        self.end = 0
        """Offset after the last batch; markers of transactions have offsets, too."""
        self.passed = 0
        """Offset of the first batch that the trainer has not passed."""
        self.published = 0
        self.allowed = AHEAD
        """Share of the tasks that may be published."""
        self._moved = self._trickled = time.monotonic()
        self._tell = tell
        self._beside: list[asyncio.Task[None]] = []
        self.calm = asyncio.Event()
        """Set once all kills are over, and what was published is done."""

    @property
    def share(self) -> float:
        """Share of the tasks that are closed."""
        return self.batches / len(self.tasks)

    async def run(self) -> dict[str, Any]:
        """All of it; the keys of `chaos --json`."""
        started = time.monotonic()
        await ensure_topics(self.bus, rows({name for each in self.beside for name in each.agents}))
        broke = ""
        codes: dict[str, int | None] = {}
        try:
            try:
                for process, point in self.plan.first.items():
                    self.world.processes[process].arms.append(point)
                await self.world.start()
                self.began = time.monotonic()
                await self._load()
                self.load_s = time.monotonic() - self.began
            except (Broke, TimeoutError) as error:
                broke = str(error) or "the processes did not start in time"
            finally:
                codes = await self.world.stop()
            return await self._count(broke, codes, started)
        finally:
            with suppress(Exception):
                await delete_topics(self.bus)

    async def _load(self) -> None:
        self._moved = time.monotonic()
        watching = asyncio.create_task(self._watch())
        beside = asyncio.ensure_future(
            self.workload.during(self) if self.workload.during else asyncio.sleep(0)
        )
        publishing = asyncio.create_task(self._publish())
        loads = [asyncio.create_task(each.load(self)) for each in self.beside]
        self._beside = [watching, publishing, *loads]
        try:
            for process in self.plan.first:
                await self._point(process, before=0)
            for one in self.plan.rounds:
                self.allowed = max(self.allowed, one.at + AHEAD)
                await self._round(one)
            if self.workload.during is not None and not self.workload.paced:
                self.allowed = 1.0
            await self.until(beside.done)
            await beside
            self.allowed = 1.0
            await self.until(self._finished)
            await asyncio.sleep(QUIET_S)
            await self.until(lambda: self.world.loaded)
            self.calm.set()
            for load in loads:
                await self.until(load.done)
                await load  # what ended it early ends the run
        finally:
            for task in (*self._beside, beside):
                task.cancel()
            await asyncio.gather(*self._beside, beside, return_exceptions=True)

    async def _publish(self) -> None:
        """Publish as far as the plan has come, so that every kill meets work, and leaves some."""
        while self.published < len(self.tasks):
            upto = min(len(self.tasks), round(self.allowed * len(self.tasks)))
            if upto > self.published:
                await publish_tasks(self.tasks[self.published : upto], bus=self.bus)
                self.published = upto
                self._moved = time.monotonic()
            await asyncio.sleep(0.1)

    def _trickle(self) -> None:
        """A task more where few are open, at a pace at which they last for all kills."""
        now = time.monotonic()
        pause = TRICKLE_S * max(1, self.plan.kills) / len(self.tasks)
        if now - self._trickled >= pause and self.published - self.batches < OPEN:
            self._trickled = now
            self.allowed = max(self.allowed, (self.published + 1) / len(self.tasks))

    def _finished(self) -> bool:
        return self.batches >= len(self.tasks) and self.passed >= self.end

    async def _watch(self) -> None:
        """Follow batches and steps, as committed."""
        reader = consumer(self.bus)
        async with opened(reader, self.bus):
            on = [
                *await partitions_of(reader, self.bus.topic(BATCHES.name)),
                *await partitions_of(reader, self.bus.topic(STEPS.name)),
            ]
            reader.assign(on)
            await reader.seek_to_beginning(*on)
            while True:
                for where, messages in (await reader.getmany(timeout_ms=100)).items():
                    for message in messages:
                        self._moved = time.monotonic()
                        if where.topic.endswith(STEPS.name):
                            step = codec.decode(message.value, Step)
                            mixed = step.topic == MIXED.name
                            behind = step.source if mixed else step.position
                            self.passed = max(self.passed, behind)
                        else:
                            codec.decode(message.value, Batch)
                            self.batches += 1
                            self.end = message.offset + 1
                self._tell(self.batches, len(self.tasks), len(self.world.deaths))

    async def until(self, true: Callable[[], bool], *, hold: bool = False) -> None:
        """Wait until something is true, unless the run is stuck; `hold`: nothing need move."""
        while not true():
            self.world.check()
            for task in self._beside:
                if task.done():
                    task.result()
            if hold:
                self._moved = time.monotonic()
            if time.monotonic() - self._moved > self.workload.stall_s:
                raise Broke(
                    f"nothing moves for {self.workload.stall_s:g} s: {self.batches} of {len(self.tasks)} "
                    f"batches, the trainer has passed {self.passed}"
                )
            await asyncio.sleep(0.02)

    async def _round(self, one: Round) -> None:
        """Wait for its moment, kill, and see the armed restarts die at their points."""
        await self.until(lambda: self.share >= one.at)
        strikes = time.monotonic() + one.wait_s
        while time.monotonic() < strikes:
            self._trickle()
            await asyncio.sleep(0.02)
        process = self.world.processes[one.process]
        process.arms.extend(one.arms)
        await self._kill(one.process)
        for _ in one.arms:
            await self._point(one.process)

    async def _kill(self, name: str) -> None:
        process = self.world.processes[name]
        before = len(process.deaths)
        await self.until(process.kill)
        await self.until(lambda: len(process.deaths) > before)

    async def _point(self, name: str, before: int | None = None) -> None:
        """Wait for a death at a crash point; where it is not passed in time, kill by the clock.

        Args:
            name: Whose.
            before: How many it had died at before; as many as until now, if not given.
        """
        process = self.world.processes[name]

        def died() -> int:
            return sum(1 for death in process.deaths if death.point)

        before = died() if before is None else before
        ends = time.monotonic() + POINT_S
        while died() == before and time.monotonic() < ends:
            if self._idle() and process.ready.is_set() and self.allowed >= 1.0:
                break  # nothing is left that could bring it to its point
            self._trickle()
            await self.until(lambda: True)
            await asyncio.sleep(0.02)
        if died() == before:
            await self._kill(name)

    def _idle(self) -> bool:
        """Whether everything that was published has been done."""
        return self.batches >= self.published > 0 and self.passed >= self.end

    async def _count(
        self, broke: str, codes: dict[str, int | None], started: float
    ) -> dict[str, Any]:
        self.log = await log.read(self.bus.bootstrap_servers, self.bus.topic_prefix)
        sizes = {task.task_id: task.group_size for task in self.tasks}
        verdict = verifier.judge(self.log, self._given(sizes, ended=not broke))
        deaths = self.world.deaths
        measured = recovery_times.measure(self.log, deaths, PARTITIONS)
        unasked = {
            process.name: process.unasked for process in self.world.ever.values() if process.unasked
        }
        dirty = {name: code for name, code in codes.items() if code != 0}
        if dirty and not broke:
            broke = f"these did not end in order: {dirty}"
        found = {
            "seed": self.workload.seed,
            "episodes": sum(sizes.values()),
            "kills": len(deaths),
            "kills_in_transaction": sum(_within(death.point) for death in deaths),
            "lost": verdict.of("lost"),
            "duplicated": verdict.of("duplicated"),
            **recovery_times.summary(measured),
            "targets": list(self.workload.targets),
            "wrong": verdict.of("wrong"),
            "checks": verdict.checks,
            "broke": broke,
            "published": self.published,
            "counts": dict(verdict.counts),
            "exclusions": dict(verdict.exclusions),
            "dead_letters": dict(verdict.letters),
            "unasked_ends": unasked,
            "deaths": measured,
            "cpu_s": {
                process.name: round(process.cpu_at_end, 1)
                for process in self.world.processes.values()
            },
            "load_s": round(getattr(self, "load_s", 0.0), 1),
            "wall_s": round(time.monotonic() - started, 1),
        }
        found["ok"] = verdict.clean and not broke and not (unasked.keys() - self.workload.may_end)
        (self.folder / "result.json").write_text(json.dumps(found, indent=1))
        return found

    def _given(self, sizes: dict[str, int], *, ended: bool) -> Given:
        """What the verifier is told beside the log."""
        ends = {"agent": 0, "proxy": 0, "http-agent": 0}
        for name, one in self.world.ever.items():
            if (verb := VERB_OF.get(name, name.partition("-")[0])) in ends:
                ends[verb] += len(one.deaths) + one.restarts + len(one.unasked)
        upsets = self.workload.upsets
        lost = None if upsets is None else (upsets + ends["agent"]) * RUNS_AT_ONCE
        cut = None if upsets is None else ends["proxy"] * HOSTS * RUNS_AT_ONCE
        return Given(
            seed=self.workload.seed,
            tasks=sizes,
            seen=self.world.seen,
            rows_per_step=self.workload.rows_per_step,
            max_attempts=MAX_ATTEMPTS,
            ended=ended,
            lost_attempts=lost,
            cut_attempts=cut,
            served=self.world.served,
            agent_losses=ends["http-agent"] * RUNS_AT_ONCE,
            **{name: path for each in self.beside for name, path in each.journals.items()},
            rescored="rescore" in self.workload.targets,
            strays=frozenset(self.workload.strays),
        )


def _within(point: str) -> bool:
    return point.partition(":")[0] in IN_TRANSACTION


def make_model(folder: Path) -> Path:
    """A tiny random model for the trainer, made in a process of its own: torch stays out of ours."""
    if not (folder / "config.json").is_file():
        code = (
            "import sys; from odradek.trainer.engine.tiny import make_tiny; "
            "make_tiny(sys.argv[1], [], steps=0)"
        )
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    return folder


async def once(
    workload: Workload, servers: str, folder: Path, tell: Tell = lambda *_: None
) -> dict[str, Any]:
    """One run."""
    return await Run(workload, servers, folder, tell).run()


def repeat(workload: Workload) -> str:
    """The command that repeats a run."""
    return (
        f"scripts/prove chaos --seed {workload.seed} --episodes {workload.episodes} --kills {workload.kills} "
        f"--targets {','.join(workload.targets)}"
    )
