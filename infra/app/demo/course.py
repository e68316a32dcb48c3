"""The demo's course: learn until greedy play is good enough, then drain and count."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from odradek.infra.app.demo.cost import Costs
from odradek.infra.app.project.tasks import epochs, read
from odradek.infra.app.session.evaluation import Evaluation, EvaluationRound, sampled
from odradek.infra.app.session.progress import RunView
from odradek.infra.app.session.training import TrainingCourse
from odradek.infra.bus import KafkaAppender
from odradek.infra.errors import InfraError
from odradek.schemas.events import Task

AHEAD: Final = 8
"""Training tasks that stand in the log beyond those that the dispatcher may have out."""
SURE: Final = 3
"""Greedy rounds in a row that must reach the target."""
SAMPLES: Final = 96
"""Episodes of a sampled round."""
STUCK_S: Final = 120.0
"""How long nothing may happen before the demo gives up."""


class DemoStuck(InfraError):
    """Nothing happened for too long; the logs tell more."""


@dataclass(frozen=True, kw_only=True)
class DemoAims:
    """The aims of a demo."""

    target: float = 0.9
    max_steps: int = 300
    kill: tuple[str, ...] = ()
    """Processes to kill once each, by kill -9."""
    kill_every: int = 6
    """Steps between two kills."""


@dataclass
class DemoPhase:
    """A part of the run."""

    name: str
    began: float
    ended: float = 0.0


@dataclass
class DemoCourse(TrainingCourse):
    """Training, evaluations and kills, from the first task to the last closed group."""

    aims: DemoAims = field(default_factory=DemoAims)
    view: RunView | None = None
    costs: Costs = field(default_factory=Costs)
    phases: list[DemoPhase] = field(default_factory=list)
    kills: list[tuple[str, int, float]] = field(default_factory=list)
    """(process, step, time) of what was killed."""

    async def learn(self) -> None:
        """All of it. Raises DemoStuck when nothing moves any more."""
        metering = asyncio.create_task(self.costs.run(self.session.supervisor))
        try:
            async with self.appender() as appender:
                await self._learn(appender)
        finally:
            metering.cancel()
        self.phase("")

    async def _learn(self, appender: KafkaAppender) -> None:
        evaluation = Evaluation(appender, self.session.watch, rounds=self.rounds)
        greedy = self.evaluation_tasks()
        chance = sampled(greedy, SAMPLES)
        self.phase("evaluating the model as it begins")
        await evaluation.run("greedy", greedy)
        await evaluation.run("sampled", chance)
        supply = self._supply()
        while True:
            self.phase("training")
            await self._train(appender, evaluation, greedy, supply)
            self.phase("draining")
            await self._drain()
            await self.session.supervisor.stop("trainer")
            await self._let_followers_end()
            self.phase("evaluating the model as it is now")
            last = await evaluation.run("greedy", greedy)
            await evaluation.run("sampled", chance)
            if last.success >= self.aims.target or self._capped:
                return
            for name in ("trainer", *self._followers):
                await self.session.supervisor.restart(name)

    def phase(self, name: str) -> None:
        """Begin a part of the run."""
        now = time.time()
        if self.phases:
            self.phases[-1].ended = now
        if name:
            self.phases.append(DemoPhase(name, now))
        if self.view is not None:
            self.view.phase = name

    def _supply(self) -> Iterator[Task]:
        """The project's tasks again and again, each time under fresh ids."""
        tasks = read(self.session.project.folder / "tasks.jsonl")
        for epoch in itertools.count():
            yield from epochs(tasks, 1, first=epoch)

    @property
    def _capped(self) -> bool:
        return self.session.tally.last_step >= self.aims.max_steps

    def _reached(self, since: int) -> bool:
        rounds = [evaluation for evaluation in self.rounds[since:] if evaluation.kind == "greedy"]
        return len(rounds) >= SURE and all(
            evaluation.success >= self.aims.target for evaluation in rounds[-SURE:]
        )

    async def _train(
        self,
        appender: KafkaAppender,
        evaluation: Evaluation,
        greedy: list[Task],
        supply: Iterator[Task],
    ) -> None:
        """Keep tasks coming until the target is reached, all kills are done, or the cap is."""
        tally = self.session.tally
        room = self.session.project.value("dispatch", "open_groups") + AHEAD
        every = self.session.project.evaluation.every
        since, begun = len(self.rounds), tally.last_step
        evaluated = tally.version
        running: asyncio.Task[EvaluationRound] | None = None
        progress, progress_at = -1, time.monotonic()
        while not self._capped:
            if self._reached(since) and len(self.kills) == len(self.aims.kill):
                break
            missing = room - self.open_tasks
            if missing >= AHEAD:
                await self.publish(appender, list(itertools.islice(supply, missing)))
            if running is not None and running.done():
                running.result()
                running = None
            if running is None and tally.version >= evaluated + every:
                evaluated = tally.version
                running = asyncio.create_task(evaluation.run("greedy", greedy))
            self._kill_next(tally.last_step - begun)
            if len(tally.episodes) + tally.last_step != progress:
                progress, progress_at = len(tally.episodes) + tally.last_step, time.monotonic()
            if time.monotonic() > progress_at + STUCK_S:
                raise DemoStuck(
                    f"nothing happened for {STUCK_S:g} s at step {tally.last_step}: see "
                    f"{self.session.project.work / 'logs'}"
                )
            await self.changed()
        if running is not None:
            await running

    def _kill_next(self, steps: int) -> None:
        at = len(self.kills)
        if at < len(self.aims.kill) and steps >= self.aims.kill_every * (at + 1):
            name = self.aims.kill[at]
            try:
                self.session.supervisor.kill(name)
            except ProcessLookupError:
                return  # it is down already: wait until it is back
            self.kills.append((name, self.session.tally.last_step, time.time()))

    @property
    def _followers(self) -> list[str]:
        """Processes of the trainers beside the one that leads."""
        return [f"trainer-{one.name}" for one, _ in self.session.project.followers]

    async def _let_followers_end(self) -> None:
        """Wait until the others have read as far as the trainer that led, and end them."""
        tally = self.session.tally
        until = time.monotonic() + STUCK_S
        runs = [one.name for one, _ in self.session.project.followers]
        while time.monotonic() < until and any(
            tally.beside.get(run, -1) < tally.position for run in runs
        ):
            await self.changed()
        for name in self._followers:
            await self.session.supervisor.stop(name)

    async def _drain(self) -> None:
        """Wait until every published task's group is closed. Raises DemoStuck."""
        before, moved = self.open_tasks, time.monotonic()
        while self.open_tasks:
            await self.changed()
            if self.open_tasks != before:
                before, moved = self.open_tasks, time.monotonic()
            if time.monotonic() > moved + STUCK_S:
                raise DemoStuck(
                    f"{before} groups never closed: see {self.session.project.work / 'logs'}"
                )
