"""A request partition that this host owns, and everything under way on it."""

import asyncio
from typing import Final

from odradek.agents.attempt.attempt import Attempt, AttemptState
from odradek.agents.host.tasks.index import TaskIndex
from odradek.agents.push.configs import ConfigBook
from odradek.infra.bus import OffsetTracker, TransactionalWriter

LET_GO_S: Final = 10.0


class RequestPartition:
    """One owned partition.

    Attributes:
        number: Which partition.
        count: How many partitions the topic has.
        writer: Writes as its owner.
        memory: What snapshots say about its requests.
        backlog: Which requests are finished.
        committed: The mark that was committed last.
        runs: Attempts that wait or go on, by episode id.
        messages: Message ids whose request is being served.
        push: Push notification configs of its tasks.
        tasks: What serves requests.
        left: Tasks of a predecessor about which nothing is decided yet, by id.
    """

    def __init__(
        self, number: int, count: int, writer: TransactionalWriter, memory: TaskIndex, position: int
    ) -> None:
        self.number = number
        self.count = count
        self.writer = writer
        self.memory = memory
        self.backlog = OffsetTracker(position)
        self.committed = (position, "")
        self.runs: dict[str, Attempt] = {}
        self.messages: set[str] = set()
        self.push = ConfigBook()
        self.tasks: set[asyncio.Task[None]] = set()
        self.left = {
            mark.task_id: asyncio.Event() for mark in memory.unfinished() if mark.offset >= position
        }
        self.paused = False
        self.lost = False

    @property
    def mark(self) -> tuple[int, str]:
        """The offset to commit, and its metadata."""
        return self.backlog.low_water, self.backlog.metadata

    @property
    def waiting(self) -> int:
        """How many runs wait for a free place."""
        return sum(run.state is AttemptState.WAITING for run in self.runs.values())

    def recovered(self, task_id: str) -> None:
        """It is decided what becomes of a predecessor's task."""
        if (left := self.left.pop(task_id, None)) is not None:
            left.set()

    async def settled(self, task_id: str) -> None:
        """Return once it is decided about a predecessor's task: its request is read again."""
        if (left := self.left.get(task_id)) is not None:
            await left.wait()

    def lose(self) -> None:
        """Another host owns it: kill its runs, write nothing more."""
        self.lost = True
        for task_id in list(self.left):
            self.recovered(task_id)
        for run in self.runs.values():
            run.lose()

    async def aclose(self) -> None:
        """Return once nothing of it is under way."""
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=LET_GO_S)
        for task in self.tasks:
            task.cancel()
        await self.writer.aclose()
