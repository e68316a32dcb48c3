"""Evaluations while a run trains elsewhere: driven by the policies that its trainer announces."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from odradek.infra.app.session.evaluation import Evaluation, EvaluationRound
from odradek.infra.app.session.follower import RunFollower
from odradek.infra.bus import (
    BusSettings,
    KafkaAppender,
    Record,
    at_offsets,
    event_of,
    reader,
)
from odradek.infra.errors import ProjectError
from odradek.schemas.events import Policy, Task
from odradek.schemas.topics import POLICIES

log = logging.getLogger("odradek")


@dataclass
class EvaluationSchedule:
    """Says which announced policies are evaluated: pure.

    Attributes:
        every: Optimizer steps between two evaluations.
        last: Step of the last one; None before the first.
    """

    every: int
    last: int | None = None

    def due(self, policy: Policy) -> bool:
        """Whether a policy is the next to be evaluated.

        The first is, whatever its step: it is what the others are compared with. Then that of each
        multiple of `every` is, or the first one after it. A trainer that went on from an earlier
        step is evaluated anew from there on.
        """
        if self.last is not None and policy.step < self.last:
            self.last = policy.step
        return self.last is None or policy.step // self.every > self.last // self.every

    def evaluated(self, policy: Policy) -> None:
        """A policy has been evaluated."""
        self.last = policy.step


@dataclass
class EvaluationCourse:
    """Evaluates a run's policies.

    Args:
        bus: Where Kafka is.
        policy: The name that the run's weights go by.
        tasks: What is played; their ids are made anew for each round.
        schedule: When.
        watch: Reads results; it begins at the topics' ends.
        on_round: Called with each round.
        timeout_s: How long a round may take before it counts with what has come.
    """

    bus: BusSettings
    policy: str
    tasks: list[Task]
    schedule: EvaluationSchedule
    watch: RunFollower
    on_round: Callable[[EvaluationRound], None]
    timeout_s: float
    _newest: Policy | None = None
    _names: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, *, once: bool = False) -> None:
        """Evaluate for ever, or only the policy that is in force now.

        A policy that comes while another is evaluated waits, and only the newest one does: agents
        could sample no other by then.

        Raises ProjectError where no policy was announced that could be evaluated once.
        """
        offset = await self._read_policies()
        if once and self._newest is None:
            met = ", ".join(sorted(map(repr, self._names))) or "none"
            raise ProjectError(
                f"no policy {self.policy!r} was announced; there are: {met}. A trainer announces "
                "its first weights as it starts"
            )
        listening = asyncio.Event()
        async with asyncio.TaskGroup() as work:
            tasks = [
                work.create_task(self.watch.read(listening.set)),
                work.create_task(self._follow_policies(offset)),
            ]
            await listening.wait()
            appender = await KafkaAppender.connect(self.bus, linger_ms=5)
            try:
                evaluation = Evaluation(appender, self.watch, timeout_s=self.timeout_s)
                await self._evaluate(evaluation, once=once)
            finally:
                await appender.aclose()
            for task in tasks:
                task.cancel()

    async def _evaluate(self, evaluation: Evaluation, *, once: bool) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            policy = self._newest
            if policy is None or not (once or self.schedule.due(policy)):
                continue
            greedy = all(task.sampling.get("temperature") == 0 for task in self.tasks)
            made = await evaluation.run(
                "greedy" if greedy else "sampled", self.tasks, of=(policy.step, policy.version)
            )
            self.watch.tally.forget()
            self.schedule.evaluated(policy)
            self.on_round(made)
            if once:
                return

    async def _read_policies(self) -> int:
        """Note the policy in force, none of those before; returns the offset behind it."""
        offset = 0
        async with aclosing(reader.to_end(self.bus, POLICIES.name)) as records:
            async for record in records:
                offset = record.offset + 1
                self._note(record)
        return offset

    async def _follow_policies(self, offset: int) -> None:
        start = at_offsets(self.bus, {(POLICIES.name, 0): offset})
        async with aclosing(reader.follow(self.bus, POLICIES.name, start=start)) as records:
            async for record in records:
                self._note(record)

    def _note(self, record: Record) -> None:
        event: Policy | None = event_of(record, Policy)
        if event is None:
            return
        self._names.add(event.name)
        if event.name == self.policy:
            self._newest = event
            self._changed.set()
