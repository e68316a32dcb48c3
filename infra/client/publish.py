"""Publishing tasks and rewards, as any outside program may."""

import logging
import uuid
from collections import Counter
from collections.abc import Iterable

import msgspec

from odradek.infra.bus import Appender, BusSettings, KafkaAppender, RecordAddress
from odradek.infra.errors import TaskRefused
from odradek.infra.runtime import telemetry
from odradek.infra.runtime.reward_signatures import signed
from odradek.schemas import codec, ids
from odradek.schemas.events import Reward, Task
from odradek.schemas.topics import REWARDS, TASKS
from odradek.schemas.worth import doubts, fault

log = logging.getLogger("odradek")


def refuse(tasks: Iterable[Task]) -> None:
    """Raise TaskRefused for the first task that the dispatcher would refuse."""
    for task in tasks:
        if (wrong := fault(task)) is not None:
            raise TaskRefused(f"task {task.task_id}: {wrong.detail}")


def warn(tasks: Iterable[Task]) -> None:
    """Log why tasks may teach nothing: a line for each reason, with how many it holds for."""
    counts: Counter[str] = Counter()
    first: dict[str, Task] = {}
    for task in tasks:
        for line in doubts(task):
            counts[line] += 1
            first.setdefault(line, task)
    for line, many in counts.items():
        log.warning("%d tasks, %r first: %s", many, first[line].item or first[line].task_id, line)


async def publish_task(appender: Appender, task: Task, *, source: str = "/client") -> RecordAddress:
    """Append a task to `rl.tasks.v1`; it begins a trace, which ends in the batch.

    Raises TaskRefused for one that the dispatcher would refuse.
    """
    refuse([task])
    with telemetry.span("task.publish", task_id=task.task_id, agent=task.agent) as traceparent:
        return await appender.append(
            TASKS.name,
            key=task.task_id,
            value=codec.encode(task),
            headers=codec.headers(
                task,
                source=source,
                subject=task.task_id,
                event_id=task.task_id,
                traceparent=traceparent,
            ),
        )


async def publish_reward(
    appender: Appender, reward: Reward, *, event_id: str = ""
) -> RecordAddress:
    """Append a verdict to `rl.rewards.v1`. The same verdict sent again changes nothing.

    It is signed where `ODRADEK_JUDGE_KEY` is set.

    Args:
        appender: To the log.
        reward: The verdict.
        event_id: Of the event; by default of episode, component and source, so that a source says
            one thing of an episode. A judge that may change its mind gives each verdict its own.
    """
    value = codec.encode(reward)
    headers = codec.headers(
        reward,
        source=reward.source,
        subject=reward.episode_id,
        event_id=event_id or f"{reward.episode_id}/{reward.component}/{reward.source}",
    )
    return await appender.append(
        REWARDS.name, key=reward.episode_id, value=value, headers=signed(value, headers)
    )


def fresh(tasks: Iterable[Task], *, epoch: int = 0, run: str | None = None) -> list[Task]:
    """The same tasks under ids of their own, so that they can be published once more.

    Args:
        tasks: Identified by `item`, or by their task id where they have none.
        epoch: Which pass over the tasks this is.
        run: Makes the ids; the same run and epoch give the same ids. Random if not given.
    """
    run = run or uuid.uuid4().hex
    return [
        msgspec.structs.replace(
            task, task_id=ids.task_id(f"{at}/{task.item or task.task_id}", epoch, run)
        )
        for at, task in enumerate(tasks)
    ]


async def publish_tasks(
    tasks: Iterable[Task], bus: BusSettings | None = None
) -> list[RecordAddress]:
    """Publish tasks as they are, over a connection made for the purpose.

    Raises TaskRefused for the first that the dispatcher would refuse; then none is published.
    """
    tasks = list(tasks)
    refuse(tasks)
    warn(tasks)
    appender = await KafkaAppender.connect(bus or BusSettings(), linger_ms=5)
    try:
        return [await publish_task(appender, task) for task in tasks]
    finally:
        await appender.aclose()
