"""The client publishes, subscribes and deploys as the docs show."""

import asyncio
import logging
import time
from contextlib import aclosing
from decimal import Decimal

import numpy as np
import pytest

from odradek.infra.bus import KafkaAppender, ensure_topics, letter, rows
from odradek.infra.client import deploy, fresh, publish_tasks, records, subscribe
from odradek.infra.errors import ProjectError, TaskRefused
from odradek.schemas import Batch, Episode, Outcome, Task, codec
from odradek.schemas.events import Exclusion
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TASKS

pytestmark = pytest.mark.broker


async def _topics(bus):
    await ensure_topics(bus, rows())


async def test_a_subscription_filters_and_ends(bus):
    """`where` picks events by their fields; without `follow` the stream ends with the topic."""
    await _topics(bus)
    await publish_tasks([Task(task_id=f"t{i}", agent="ab"[i % 2]) for i in range(6)], bus)
    seen = {
        task.task_id
        async for task in subscribe(
            TASKS.name, since="-1h", where={"agent": "b"}, follow=False, bus=bus
        )
    }
    assert {"t1", "t3", "t5"} == seen


async def test_a_subscription_from_the_end_sees_only_what_comes(bus):
    """The default is to see what happens from now on."""
    await _topics(bus)
    await publish_tasks([Task(task_id="old", agent="a")], bus)
    ready = asyncio.Event()

    async def first():
        async with aclosing(subscribe(TASKS.name, bus=bus, ready=ready.set)) as tasks:
            async for task in tasks:
                return task.task_id

    reading = asyncio.create_task(first())
    await ready.wait()
    await publish_tasks([Task(task_id="new", agent="a")], bus)
    assert "new" == await reading


@pytest.mark.parametrize(
    "since",
    [0, np.int64(0), np.array(0), time.time() - 3600, np.float64(time.time() - 3600), Decimal(1)],
    ids=["0", "int64", "array", "time", "float64", "Decimal"],
)
async def test_an_offset_or_a_time_may_be_any_librarys_number(bus, since):
    """Whole ones are offsets, others are times."""
    await _topics(bus)
    await publish_tasks([Task(task_id="t", agent="a")], bus)
    found = [one async for one in subscribe(TASKS.name, since=since, follow=False, bus=bus)]
    assert ["t"] == [task.task_id for task in found]


async def test_a_since_that_means_nothing_is_an_error(bus):
    """The error shows the spellings that work."""
    await _topics(bus)
    with pytest.raises(ProjectError, match=r"10m, .* or beginning, end or an offset"):
        async for _ in records(TASKS.name, since="yesterday", bus=bus):
            pass


async def test_deploy_returns_one_result_per_task_in_order(bus):
    """Completed, failed, retried, refused and late tasks are results, none an exception."""
    await _topics(bus)
    tasks = [Task(task_id=name, agent="a", group_size=1) for name in "abcde"]

    def episode(task_id, outcome, **more):
        return Episode(
            episode_id=f"e-{task_id}-{outcome}",
            task_id=task_id,
            agent="a",
            sample=0,
            group_size=1,
            outcome=outcome,
            **more,
        )

    async def play():
        appender = await KafkaAppender.connect(bus)
        seen = set()
        async with aclosing(records(TASKS.name, since="beginning", bus=bus)) as published:
            async for record in published:
                seen.add(record.key)
                if record.key == "d":
                    await appender.append(
                        DLQ.name,
                        key="d",
                        value=record.value,
                        headers=letter(record, "unknown_agent", "no agent a")[1],
                    )
                if len(seen) == len(tasks):
                    break
        for made in (
            episode("c", Outcome.HOST_LOST, retry=True),
            episode("c", Outcome.COMPLETED, attempt=2, reward=0.5),
            episode("b", Outcome.FAILED, reward=-1.0, error="exit code 1"),
            episode("a", Outcome.COMPLETED, reward=1.0),
        ):
            await appender.append(EPISODES.name, key=made.task_id, value=codec.encode(made))
        batch = Batch(
            task_id="e",
            group_size=1,
            empty_reason="too_few",
            exclusions=(Exclusion(sample=0, reason="missing"),),
        )
        await appender.append(BATCHES.name, key="e", value=codec.encode(batch))
        await appender.aclose()

    playing = asyncio.create_task(play())
    results = await deploy(tasks, 30.0, bus=bus)
    await playing
    assert list("abcde") == [result.task_id for result in results]
    assert ["completed", "failed", "completed", "refused", "late"] == [
        result.outcome for result in results
    ]
    assert [1.0, -1.0, 0.5, None, None] == [result.reward for result in results]
    assert "exit code 1" == results[1].error
    assert "unknown_agent: no agent a" == results[3].error


async def test_deploy_gives_up_after_its_timeout(bus):
    """Nobody answers: every task is late, and the call returns."""
    await _topics(bus)
    (result,) = await deploy([Task(task_id="a", agent="a")], 0.3, bus=bus)
    assert ("late", ()) == (result.outcome, result.episodes)


WRONG = Task(task_id="w", agent="a", rewards={"cost": -1.0})
"""A run that crashed would count more than any that completed."""


async def test_a_task_that_would_teach_the_wrong_thing_is_not_published(bus):
    """Nor is any that comes with it; `deploy` has a result that says why."""
    await _topics(bus)
    with pytest.raises(
        TaskRefused, match=r"task w: rewards.cost is -1 .* Add \"failure_reward\": -1"
    ):
        await publish_tasks([Task(task_id="a", agent="a"), WRONG], bus)
    (result,) = await deploy([WRONG], 5.0, bus=bus)
    assert "refused" == result.outcome
    assert result.error.startswith("no_failure_reward: rewards.cost")
    stood = [
        record.key async for record in records(TASKS.name, since="beginning", follow=False, bus=bus)
    ]
    assert [] == stood


async def test_tasks_that_may_teach_nothing_are_published_with_a_warning(bus, caplog):
    """One line for each reason, with how many tasks it holds for."""
    await _topics(bus)
    tasks = [Task(task_id=f"{n}", agent="a", item="pi", group_size=n) for n in (1, 1, 2)]
    with caplog.at_level(logging.WARNING, "odradek"):
        assert 3 == len(await publish_tasks(fresh(tasks), bus))
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("2 tasks, 'pi' first: group_size is 1")


def test_fresh_tasks_differ_by_epoch_and_repeat_by_run():
    """Publishing an epoch again after a crash publishes the same ids."""
    tasks = [Task(task_id="x", agent="a"), Task(task_id="y", agent="a")]
    first, again = fresh(tasks, epoch=1, run="r"), fresh(tasks, epoch=1, run="r")
    other = fresh(tasks, epoch=2, run="r")
    assert first == again
    assert 4 == len({task.task_id for task in (*first, *other)})
