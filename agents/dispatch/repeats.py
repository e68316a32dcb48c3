"""Hard tasks again: a task whose group came out badly is published once more. Pure.

A prompt that the policy failed at teaches little by its old samples, and more by fresh ones once it
fails less often. So such a task is published again, as a task of its own, and the policy of then
plays it. Which tasks these are follows from their ids, and so do the ids of the repeats: no state
is kept here, and a repeat that is made again is the same.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from odradek.schemas import ids
from odradek.schemas.events import Batch, Task

ALL: Final = 1 << 64
"""Numbers that a task's id may be drawn to."""


@dataclass(frozen=True)
class RepeatRules:
    """Which tasks are published again.

    Attributes:
        share: Of the hard ones; 0: none.
        below: A group whose mean reward is below this is hard.
        most: How often a task is published again at most.
    """

    share: float = 0.0
    below: float = 0.5
    most: int = 2


def repeat_of(task: Task, batch: Batch, rules: RepeatRules) -> Task | None:
    """The task that follows one whose group was closed with this batch, or None.

    Evaluations are never repeated, and neither are groups without an episode: nobody knows how hard
    they are.
    """
    if task.purpose != "train" or task.repeats >= rules.most or not _hard(batch, rules.below):
        return None
    if _drawn(task.task_id) >= rules.share * ALL:
        return None
    return msgspec.structs.replace(
        task, task_id=ids.repeat_id(task.task_id), repeats=task.repeats + 1
    )


def _hard(batch: Batch, below: float) -> bool:
    rewards = [pointer.reward for pointer in batch.episodes]
    return bool(rewards) and sum(rewards) < below * len(rewards)


def _drawn(task_id: str) -> int:
    """A number below ALL, uniform over ids: another hash than the one that partitions tasks."""
    digest = blake2b(task_id.encode(errors="surrogateescape"), digest_size=8, person=b"repeats")
    return int.from_bytes(digest.digest(), "little")
