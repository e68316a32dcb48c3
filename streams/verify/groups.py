"""Groups: every GroupOpened in exactly one Batch, every sample in it or excluded."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from odradek.schemas.events import Batch, GroupOpened, Pointer, Purpose
from odradek.schemas.topics import EPISODES
from odradek.streams.verify.findings import SLACK_S, Findings
from odradek.streams.verify.partial_events import OpeningRecord


class Groups:
    """The groups that were opened, and their batches; replayed batches do not count."""

    def __init__(self, findings: Findings) -> None:
        self._found = findings
        self._expected: dict[str, list[OpeningRecord]] = {}
        self._batches: dict[str, list[Batch]] = {}
        self._refused: set[str] = set()

    def expected(self, event: GroupOpened, at: float) -> None:
        """Take a GroupOpened that was appended at a time."""
        told = OpeningRecord(event.purpose, event.group_size, at + event.group_s)
        self._expected.setdefault(event.task_id, []).append(told)

    def refused(self, event: GroupOpened) -> None:
        """Take a dead letter: the task was open already."""
        self._refused.add(event.task_id)

    def batch(self, batch: Batch) -> None:
        """Take a batch."""
        if not batch.origin:
            self._batches.setdefault(batch.task_id, []).append(batch)

    def check(self, now: float, finds: Callable[[Pointer], bool]) -> None:
        """Find what does not close.

        Args:
            now: The newest time in the log.
            finds: Whether a pointer leads to the episode that it names.
        """
        for task, told in self._expected.items():
            # A repeat while its group was open is a dead letter, a later one a batch of its own.
            wanted = 1 if task in self._refused else len(told)
            have = len(self._batches.get(task, ()))
            if have < wanted:
                late = now > told[-1].deadline + SLACK_S
                (self._found.lost if late else self._found.open).append(f"task {task}")
            elif have > wanted:
                self._found.duplicated.append(f"task {task}")
        for task, batches in self._batches.items():
            if task not in self._expected:
                self._found.problems.append(f"task {task} has a batch, but was never expected")
            for batch in batches:
                self._check_batch(batch, finds)
        named = Counter(
            one.episode_id for first, *_ in self._batches.values() for one in first.episodes
        )
        twice = self._found.duplicated
        twice.extend(f"episode {one} in batches" for one, n in named.items() if n > 1)

    def _check_batch(self, batch: Batch, finds: Callable[[Pointer], bool]) -> None:
        samples = [one.sample for one in batch.episodes]
        samples += [one.sample for one in batch.exclusions]
        if sorted(samples) != list(range(batch.group_size)):
            self._found.problems.append(
                f"task {batch.task_id}: its batch does not name each sample once"
            )
        self._found.lost.extend(
            f"episode {pointer.episode_id} of the batch of {batch.task_id}"
            for pointer in batch.episodes
            if pointer.topic == EPISODES.name and not finds(pointer)
        )

    def table(self, purpose: Purpose) -> dict[str, Any]:
        """The sums of one purpose."""
        tasks = [told for many in self._expected.values() for told in many]
        tasks = [one for one in tasks if one.purpose == purpose]
        again = [self._expected[task][0] for task in self._refused if task in self._expected]
        again = [one for one in again if one.purpose == purpose]
        batches = [
            batch for many in self._batches.values() for batch in many if batch.purpose == purpose
        ]
        exclusions = Counter(one.reason for batch in batches for one in batch.exclusions)
        return {
            "tasks": len(tasks) - len(again),
            "samples": sum(one.size for one in tasks) - sum(one.size for one in again),
            "episodes": sum(len(batch.episodes) for batch in batches),
            "batches": len(batches),
            "exclusions": dict(sorted(exclusions.items())),
            "retries": sum(batch.retries for batch in batches),
        }
