"""The course of a run: tasks out, evaluations now and then."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from odradek.infra.app.project.compatibility import in_flight
from odradek.infra.app.project.tasks import epochs as repeated
from odradek.infra.app.project.tasks import read
from odradek.infra.app.session.evaluation import Evaluation, EvaluationRound
from odradek.infra.app.session.session import Session
from odradek.infra.bus import KafkaAppender
from odradek.infra.client import publish_task, warn
from odradek.schemas.events import Task

log = logging.getLogger("odradek")


@dataclass
class TrainingCourse:
    """Work with a session: publish, evaluate, wait."""

    session: Session
    rounds: list[EvaluationRound] = field(default_factory=list)
    published: set[str] = field(default_factory=set)
    """Ids of the training tasks."""

    async def run(self, tasks: Path | None = None, epochs: int = 1) -> None:
        """Publish the file's tasks, if one is given, then evaluate every so many versions."""
        from_file = read(tasks) if tasks else []
        warn(from_file)
        if line := in_flight(self.session.project, from_file):
            log.warning("%s", line)
        chosen = repeated(from_file, epochs)
        async with self.appender() as appender:
            await self.publish(appender, chosen)
            if self.session.project.evaluation.tasks:
                await self.evaluate_for_ever(
                    Evaluation(appender, self.session.watch, rounds=self.rounds)
                )
            await asyncio.Event().wait()

    @asynccontextmanager
    async def appender(self) -> AsyncIterator[KafkaAppender]:
        """A connection for publishing."""
        appender = await KafkaAppender.connect(self.session.bus, linger_ms=5)
        try:
            yield appender
        finally:
            await appender.aclose()

    async def publish(self, appender: KafkaAppender, tasks: list[Task]) -> None:
        """Publish training tasks."""
        await asyncio.gather(*(publish_task(appender, task) for task in tasks))
        self.published.update(task.task_id for task in tasks)

    @property
    def open_tasks(self) -> int:
        """Training tasks that no batch has closed."""
        return len(self.published - self.session.tally.closed)

    def evaluation_tasks(self) -> list[Task]:
        """The tasks of `[evaluation]`, played greedily unless they say otherwise."""
        return read(self.session.project.folder / self.session.project.evaluation.tasks)

    async def evaluate_for_ever(self, evaluation: Evaluation) -> None:
        """A greedy round at every so many policy versions."""
        tasks, every = self.evaluation_tasks(), self.session.project.evaluation.every
        last = 0
        while True:
            version = self.session.tally.version
            if version and (not last or version >= last + every):
                last = version
                finished = await evaluation.run("greedy", tasks)
                log.info("evaluation of %s", finished.line())
            await self.changed()

    async def changed(self, timeout_s: float = 1.0) -> None:
        """Wait until records have come in, or a moment."""
        self.session.watch.changed.clear()
        try:
            await asyncio.wait_for(self.session.watch.changed.wait(), timeout_s)
        except TimeoutError:
            return
