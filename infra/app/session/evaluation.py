"""Evaluation: tasks with `purpose: eval`, through the same bus as all others."""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

from odradek.infra.app.session.follower import RunFollower
from odradek.infra.app.session.stats import success_of
from odradek.infra.bus import KafkaAppender
from odradek.infra.client import fresh, publish_task
from odradek.schemas.events import Task


@dataclass(frozen=True)
class EvaluationRound:
    """One evaluation."""

    kind: str
    """`greedy` or `sampled`."""
    step: int
    version: int
    """In force when its tasks were published."""
    success: float
    episodes: int
    at: float


@dataclass
class Evaluation:
    """Publishes rounds of evaluation and reads their results from the tally.

    Args:
        appender: Where tasks go.
        watch: Where results come from.
        timeout_s: How long a round may take before it counts with what has come.
    """

    appender: KafkaAppender
    watch: RunFollower
    timeout_s: float = 120.0
    rounds: list[EvaluationRound] = field(default_factory=list)

    async def run(self, kind: str, tasks: list[Task]) -> EvaluationRound:
        """One round: success over the episodes that count."""
        chosen = [msgspec.structs.replace(task, purpose="eval") for task in fresh(tasks)]
        tally = self.watch.tally
        step, version = tally.last_step, tally.version
        await asyncio.gather(*(publish_task(self.appender, task) for task in chosen))
        task_ids = {task.task_id for task in chosen}
        try:
            async with asyncio.timeout(self.timeout_s):
                while not task_ids <= tally.closed:
                    self.watch.changed.clear()
                    await self.watch.changed.wait()
        except TimeoutError:
            pass
        episodes = [p for p in tally.episodes if p.task_id in task_ids and p.counts]
        finished = EvaluationRound(
            kind, step, version, success_of(episodes), len(episodes), time.time()
        )
        self.rounds.append(finished)
        return finished


def sampled(tasks: list[Task], group_size: int) -> list[Task]:
    """The same tasks, sampled as in training."""
    return [msgspec.structs.replace(task, sampling={}, group_size=group_size) for task in tasks]
