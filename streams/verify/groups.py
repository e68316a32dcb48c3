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
        self._findings = findings
        self._opened: dict[str, list[OpeningRecord]] = {}
        self._batches: dict[str, list[Batch]] = {}
        self._refused: set[str] = set()

    def opened(self, event: GroupOpened, at: float) -> None:
        """Take a GroupOpened that was appended at a time."""
        opening = OpeningRecord(event.purpose, event.group_size, at + event.group_s)
        self._opened.setdefault(event.task_id, []).append(opening)

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
        for task, openings in self._opened.items():
            # A repeat while its group was open is a dead letter, a later one a batch of its own.
            due = 1 if task in self._refused else len(openings)
            written = len(self._batches.get(task, ()))
            if written < due:
                late = now > openings[-1].deadline + SLACK_S
                (self._findings.lost if late else self._findings.open).append(f"task {task}")
            elif written > due:
                self._findings.duplicated.append(f"task {task}")
        for task, batches in self._batches.items():
            if task not in self._opened:
                self._findings.problems.append(f"task {task} has a batch, but was never expected")
            for batch in batches:
                self._check_batch(batch, finds)
        named = Counter(
            pointer.episode_id for first, *_ in self._batches.values() for pointer in first.episodes
        )
        self._findings.duplicated.extend(
            f"episode {episode} in batches" for episode, n in named.items() if n > 1
        )

    def _check_batch(self, batch: Batch, finds: Callable[[Pointer], bool]) -> None:
        samples = [pointer.sample for pointer in batch.episodes]
        samples += [exclusion.sample for exclusion in batch.exclusions]
        if sorted(samples) != list(range(batch.group_size)):
            self._findings.problems.append(
                f"task {batch.task_id}: its batch does not name each sample once"
            )
        self._findings.lost.extend(
            f"episode {pointer.episode_id} of the batch of {batch.task_id}"
            for pointer in batch.episodes
            if pointer.topic == EPISODES.name and not finds(pointer)
        )

    def table(self, purpose: Purpose) -> dict[str, Any]:
        """The sums of one purpose."""
        tasks = [opening for openings in self._opened.values() for opening in openings]
        tasks = [opening for opening in tasks if opening.purpose == purpose]
        again = [self._opened[task][0] for task in self._refused if task in self._opened]
        again = [opening for opening in again if opening.purpose == purpose]
        batches = [batch for versions in self._batches.values() for batch in versions]
        batches = [batch for batch in batches if batch.purpose == purpose]
        exclusions = Counter(
            exclusion.reason for batch in batches for exclusion in batch.exclusions
        )
        return {
            "tasks": len(tasks) - len(again),
            "samples": sum(task.size for task in tasks) - sum(task.size for task in again),
            "episodes": sum(len(batch.episodes) for batch in batches),
            "batches": len(batches),
            "exclusions": dict(sorted(exclusions.items())),
            "retries": sum(batch.retries for batch in batches),
        }
