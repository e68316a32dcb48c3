"""A run's counts, from the topics. Pure: events in, figures out."""

from collections import Counter, deque
from dataclasses import dataclass, field

from odradek.schemas.events import Batch, EpisodeHead, Step


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode, as far as figures need it."""

    at: float
    task_id: str
    agent: str
    purpose: str
    item: str
    counts: bool
    success: bool
    reward: float | None
    seconds: float
    children: tuple[float, ...] = ()
    """The own rewards of the agents that its agent asked."""


@dataclass(frozen=True)
class StepFigures:
    """An optimizer step."""

    at: float
    step: int
    version: int
    metrics: dict[str, float]


@dataclass
class RunStats:
    """Counts of a run.

    Args:
        component: The reward component that tells success; empty: the whole reward.
        success: From which value on an episode is a success.
    """

    component: str = ""
    success: float = 1.0
    episodes: list[PlayedEpisode] = field(default_factory=list)
    steps: dict[int, StepFigures] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Task ids of the batches."""
    batches: Counter[str] = field(default_factory=Counter)
    """By purpose."""
    exclusions: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    version: int = 0
    position: int = 0
    """Offset of the first batch that the trainer has not passed."""
    beside: dict[str, int] = field(default_factory=dict)
    """The same of the trainers that do not lead, by run."""

    def episode(self, head: EpisodeHead, at: float) -> None:
        """Count an episode; one that another attempt follows counts for nothing."""
        if head.retry or head.revision or head.unattributed:
            return
        value = head.components.get(self.component) if self.component else head.reward
        self.episodes.append(
            PlayedEpisode(
                at=at,
                task_id=head.task_id,
                agent=head.agent,
                purpose=head.purpose,
                item=head.item,
                counts=head.outcome.counts,
                success=head.outcome.counts and value is not None and value >= self.success,
                reward=head.reward,
                seconds=max(0.0, head.closed_at - head.opened_at),
                children=tuple(
                    sum(child.components.values()) for child in head.children if child.components
                ),
            )
        )

    def batch(self, batch: Batch) -> None:
        """Count a closed group."""
        self.closed.add(batch.task_id)
        self.batches[batch.purpose] += 1
        self.exclusions.update(exclusion.reason for exclusion in batch.exclusions)

    def step(self, step: Step, at: float) -> None:
        """Note a ledger entry. A step that was done again after a crash replaces the first.

        Of a trainer that does not lead only its position counts.
        """
        if step.sampled_by:
            self.beside[step.run] = max(self.beside.get(step.run, 0), step.position)
            return
        self.position = max(self.position, step.position)
        if step.weights:  # else the version is only taken, and no engine has it yet
            self.version = max(self.version, step.version)
        if step.optimized:
            self.steps[step.step] = StepFigures(at, step.step, step.version, step.metrics)

    def forget(self) -> None:
        """Drop episodes, tasks and steps that are counted already, the last step excepted."""
        self.episodes.clear()
        self.closed.clear()
        self.steps = {n: figures for n, figures in self.steps.items() if n == self.last_step}

    @property
    def last_step(self) -> int:
        """The number of optimizer steps so far."""
        return max(self.steps, default=0)

    def episodes_of(self, purpose: str) -> list[PlayedEpisode]:
        """Episodes of one purpose."""
        return [played for played in self.episodes if played.purpose == purpose]

    def rate(self, now: float, window_s: float = 10.0) -> float:
        """Episodes a second, of late."""
        count = 0
        for played in reversed(self.episodes):
            if played.at < now - window_s:
                break
            count += 1
        return count / window_s

    def recent(self, n: int = 64) -> tuple[float, float] | None:
        """Success and mean reward of the last `n` training episodes, None where there is none."""
        last: deque[PlayedEpisode] = deque(maxlen=n)
        for played in reversed(self.episodes):
            if played.purpose == "train" and played.counts:
                last.append(played)
                if len(last) == n:
                    break
        return (success_of(list(last)), reward_of(list(last))) if last else None

    def staleness(self) -> tuple[float, float]:
        """Mean and maximum of the rows' staleness in optimizer steps, over all steps."""
        rows = [(s.metrics.get("staleness_mean", 0.0), s.metrics.get("rows", 0.0))
                for s in self.steps.values()]  # fmt: skip
        total = sum(n for _, n in rows)
        mean = sum(value * n for value, n in rows) / total if total else 0.0
        highest = max(
            (s.metrics.get("staleness_max", 0.0) for s in self.steps.values()), default=0.0
        )
        return mean, highest


def success_of(episodes: list[PlayedEpisode]) -> float:
    """The share of successes."""
    return sum(played.success for played in episodes) / len(episodes) if episodes else 0.0


def reward_of(episodes: list[PlayedEpisode]) -> float:
    """The mean reward of those that have one."""
    values = [played.reward for played in episodes if played.reward is not None]
    return sum(values) / len(values) if values else 0.0
