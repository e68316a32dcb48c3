"""Pools of tasks by how often they were solved lately: pure functions of the log's batches."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from odradek.infra.errors import ProjectError
from odradek.schemas.events import Batch, Task

RECENT: Final = 32
"""Samples of an item that count, the newest ones: earlier ones were another policy's."""


@dataclass(frozen=True)
class SuccessPool:
    """The tasks whose share of successes lies between two bounds, both included.

    Attributes:
        low: The least share.
        high: The largest one.
    """

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> "SuccessPool":
        """A pool such as `0.1:0.9`. Raises ProjectError for anything else."""
        low, _, high = text.partition(":")
        try:
            pool = cls(float(low), float(high))
        except ValueError:
            pool = cls(1, 0)
        if not 0 <= pool.low <= pool.high <= 1:
            raise ProjectError(f"{text!r} is no pool: give two shares from 0 to 1, such as 0.1:0.9")
        return pool

    def tasks(self, tasks: Sequence[Task], rates: Mapping[str, float]) -> list[Task]:
        """Those in the pool, in their order, and those that nobody has played yet."""
        return [task for task in tasks if self.low <= rates.get(task.item, self.low) <= self.high]


def success_rates(batches: Iterable[Batch], success: float, agent: str = "") -> dict[str, float]:
    """The share of successes of each item, over the newest RECENT samples that were trained for.

    Args:
        batches: In the order of the log. Repeated ones of a replay do not count.
        success: The reward from which on a sample counts as a success.
        agent: Only of this agent; "" for all.
    """
    wins: dict[str, deque[bool]] = {}
    for batch in batches:
        ours = batch.purpose == "train" and not batch.origin and agent in {"", batch.agent}
        if ours and batch.item and batch.episodes:
            recent = wins.setdefault(batch.item, deque(maxlen=RECENT))
            recent.extend(pointer.reward >= success for pointer in batch.episodes)
    return {item: sum(recent) / len(recent) for item, recent in wins.items()}
