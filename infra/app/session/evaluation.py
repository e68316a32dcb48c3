"""Evaluation: tasks with `purpose: eval`, through the same bus as all others."""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

from odradek.infra.app.session.evaluation_rates import PassRate, pass_rates
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
    passes: dict[int, PassRate] = field(default_factory=dict)
    """pass@k over its tasks, by k."""
    left_out: int = 0
    """Samples that ended by no fault of the agent's, or not in time."""
    tasks: int = 0

    def metrics(self) -> dict[str, float]:
        """Its figures under the names of docs/watch-a-run.md."""
        rates = {
            f"eval_pass_{k}{end}": value
            for k, rate in self.passes.items()
            for end, value in (("", rate.value), ("_low", rate.low), ("_high", rate.high))
        }
        return rates | {
            "eval_tasks": float(self.tasks),
            "eval_samples": float(self.episodes),
            "eval_left_out": float(self.left_out),
            "version": float(self.version),
        }

    def line(self) -> str:
        """Its figures in one line."""
        rates = [
            f"pass@{k} {rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"
            for k, rate in self.passes.items()
        ]
        counts = f"{self.tasks} tasks, {self.episodes} samples"
        rest = f", {self.left_out} left out" if self.left_out else ""
        where = f"step {self.step} (version {self.version})"
        return f"{where}: {', '.join(rates) or 'nothing was solved or failed'}; {counts}{rest}"


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

    async def run(
        self, kind: str, tasks: list[Task], *, of: tuple[int, int] | None = None
    ) -> EvaluationRound:
        """One round: success over the episodes that count.

        Args:
            kind: See `EvaluationRound`.
            tasks: Published under fresh ids.
            of: Step and version that it is of; by default those that the tally has.
        """
        chosen = [msgspec.structs.replace(task, purpose="eval") for task in fresh(tasks)]
        tally = self.watch.tally
        step, version = of or (tally.last_step, tally.version)
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
        samples: dict[str, list[bool]] = {task_id: [] for task_id in task_ids}
        for played in episodes:
            samples[played.task_id].append(played.success)
        finished = EvaluationRound(
            *(kind, step, version, success_of(episodes), len(episodes), time.time()),
            passes=pass_rates(samples.values()),
            left_out=sum(task.group_size for task in chosen) - len(episodes),
            tasks=len(chosen),
        )
        self.rounds.append(finished)
        return finished


def sampled(tasks: list[Task], group_size: int) -> list[Task]:
    """The same tasks, sampled as in training."""
    return [msgspec.structs.replace(task, sampling={}, group_size=group_size) for task in tasks]
