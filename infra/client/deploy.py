"""`await deploy(tasks)`: hand out tasks, get their episodes back in the same order."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence

import msgspec

from odradek.infra.bus import BusSettings, KafkaAppender, event_of
from odradek.infra.client.publish import publish_task
from odradek.infra.client.subscribe import records
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, EpisodesEvent, Task
from odradek.schemas.numbers import number
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TASKS
from odradek.schemas.worth import fault


class TaskResult(msgspec.Struct, kw_only=True):
    """The result of one task."""

    task_id: str
    episodes: tuple[Episode, ...] = ()
    """The last attempt of each sample that ended, by sample."""
    outcome: str = "late"
    """`completed` if every sample completed; else the first other outcome; `late` if the time ran
    out first; `refused` if nobody would take the task."""
    error: str = ""

    @property
    def episode(self) -> Episode | None:
        """The first sample's episode."""
        return self.episodes[0] if self.episodes else None

    @property
    def reward(self) -> float | None:
        """The first sample's reward."""
        return self.episode.reward if self.episode else None


async def deploy(
    tasks: Sequence[Task],
    timeout: float,  # noqa: ASYNC109 - the name that callers know
    *,
    bus: BusSettings | None = None,
) -> list[TaskResult]:
    """Publish tasks and wait for their episodes.

    Args:
        tasks: With ids of their own (see `fresh`). Each result holds `group_size` episodes at most.
        timeout: Seconds to wait for all of them together.
        bus: Where Kafka is.

    Returns:
        One result per task, in the order given: a failed, refused or late one as its outcome, never
        as an exception for all of them.

    Raises:
        KafkaUnreachable: If there is no Kafka at all.
        ValueError: If two tasks share an id.
        TypeError: If the timeout is no number.
    """
    bus = bus or BusSettings()
    waiting = _Waiting(tasks)
    seconds = timeout if isinstance(timeout, float) else number(timeout, "timeout")
    if not tasks:
        return []
    placed = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    readers = [
        asyncio.create_task(_episodes(waiting, bus, placed[0])),
        asyncio.create_task(_refusals(waiting, bus, placed[1])),
        asyncio.create_task(_batches(waiting, bus, placed[2])),
    ]
    try:
        await _all_or_error(asyncio.gather(*(event.wait() for event in placed)), readers)
        appender = await KafkaAppender.connect(bus, linger_ms=1)
        try:
            await asyncio.gather(*(waiting.publish(appender, task) for task in tasks))
        finally:
            await appender.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _all_or_error(waiting.done.wait(), readers)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return waiting.results()


async def _all_or_error(goal: Awaitable[object], readers: list[asyncio.Task[None]]) -> None:
    """Wait for the goal; a reader that dies first raises its error here."""
    goal_task = asyncio.ensure_future(goal)
    try:
        await asyncio.wait({goal_task, *readers}, return_when=asyncio.FIRST_COMPLETED)
        if not goal_task.done():
            for reader in readers:
                if reader.done():
                    reader.result()
    finally:
        goal_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await goal_task


class _Waiting:
    """What has come in so far, by task and sample."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = {task.task_id: task for task in tasks}
        if len(self.tasks) != len(tasks):
            raise ValueError("two tasks share a task_id: give each its own, or use fresh(tasks)")
        self.episodes: dict[str, dict[int, Episode]] = {task.task_id: {} for task in tasks}
        self.refused: dict[str, str] = {}
        self.closed: set[str] = set()
        self.done = asyncio.Event()

    def ended(self, task_id: str) -> bool:
        if task_id in self.refused or len(self.episodes[task_id]) >= self.tasks[task_id].group_size:
            return True
        return task_id in self.closed

    async def publish(self, appender: KafkaAppender, task: Task) -> None:
        """Hand a task out; one that nobody would take is refused here and now."""
        if (wrong := fault(task)) is None:
            await publish_task(appender, task)
        else:
            self.refused[task.task_id] = f"{wrong.reason}: {wrong.detail}"
            self.check()

    def check(self) -> None:
        if all(self.ended(task_id) for task_id in self.tasks):
            self.done.set()

    def results(self) -> list[TaskResult]:
        return [self._result(task) for task in self.tasks.values()]

    def _result(self, task: Task) -> TaskResult:
        if task.task_id in self.refused:
            return TaskResult(
                task_id=task.task_id, outcome="refused", error=self.refused[task.task_id]
            )
        episodes = tuple(episode for _, episode in sorted(self.episodes[task.task_id].items()))
        missing = len(episodes) < task.group_size
        others = [episode for episode in episodes if episode.outcome != "completed"]
        outcome = others[0].outcome.value if others else "late" if missing else "completed"
        error = others[0].error if others else ""
        return TaskResult(task_id=task.task_id, episodes=episodes, outcome=outcome, error=error)


async def _episodes(waiting: _Waiting, bus: BusSettings, placed: asyncio.Event) -> None:
    async for record in records(EPISODES.name, bus=bus, ready=placed.set):
        if record.key not in waiting.tasks:
            continue
        event: EpisodesEvent | None = event_of(record, EpisodesEvent)
        if isinstance(event, Episode) and not event.retry and not event.revision:
            waiting.episodes[event.task_id].setdefault(event.sample, event)
            waiting.check()


async def _batches(waiting: _Waiting, bus: BusSettings, placed: asyncio.Event) -> None:
    """A closed group gets no more episodes, so a sample that is missing then is late."""
    async for record in records(BATCHES.name, bus=bus, ready=placed.set):
        if record.key not in waiting.tasks:
            continue
        batch: Batch | None = event_of(record, Batch)
        if batch is None:
            continue
        # The batch may overtake its last episodes on the way to us, so it only counts as the end
        # for groups that had to close without all of their samples.
        if any(exclusion.reason == "missing" for exclusion in batch.exclusions):
            waiting.closed.add(batch.task_id)
            waiting.check()


async def _refusals(waiting: _Waiting, bus: BusSettings, placed: asyncio.Event) -> None:
    async for record in records(DLQ.name, bus=bus, ready=placed.set):
        if record.key not in waiting.tasks or codec.header(record.headers, "dlq-topic") != (
            TASKS.name
        ):
            continue
        reason = codec.header(record.headers, "dlq-reason") or "refused"
        detail = codec.header(record.headers, "dlq-detail")
        waiting.refused[record.key] = f"{reason}: {detail}" if detail else reason
        waiting.check()
