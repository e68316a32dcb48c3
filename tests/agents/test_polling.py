"""Whatever is slow, a host and a dispatcher go on polling: the group would put them out."""

import asyncio

import pytest

from odradek.infra.bus import KafkaAppender, clients, ensure_topics, rows
from odradek.schemas import codec
from odradek.schemas.events import Task
from tests.support.streams.group_members import beats, begin, member

pytestmark = pytest.mark.broker
LONG_S = 6.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Groups that put out members which do not poll for two and a half seconds."""
    monkeypatch.setattr(clients, "MAX_POLL_MS", 2500)


@pytest.fixture
def bus(bus):
    return bus.model_copy(update={"topic_partitions": 1})


async def test_a_host_whose_agents_play_for_long_stays_in_its_group(stage, monkeypatch):
    """More runs than it has places for, too."""
    from odradek.agents.host import host as hosts

    monkeypatch.setattr(hosts, "QUEUE", 1)
    go = asyncio.Event()
    played = []

    async def play(rollout):
        played.append(rollout.episode_id)
        await go.wait()

    await ensure_topics(stage.bus, rows(["player"]))
    await begin(stage.bus, "agent.player", "a2a.requests.player")
    host = await stage.host(play, concurrency=1)
    names = stage.named(0, 4)
    for name in names:
        await stage.send(name)
    await stage.until(lambda: played)
    before, heard = member(host._reader), beats(host._reader)
    await stage.until(lambda: len(heard) > 1 and heard[-1] - heard[0] > LONG_S)
    assert before == member(host._reader)
    go.set()
    await stage.ended(*names)
    assert 4 == len(played)


async def test_a_dispatcher_that_puts_a_flood_of_tasks_aside_stays_in_its_group(stage, monkeypatch):
    """Each needs two answers of the broker; all of them together take longer than a poll may."""
    from odradek.agents.dispatch import dispatcher as dispatch
    from odradek.agents.dispatch.validation import TaskValidator
    from odradek.agents.settings import DispatchSettings

    monkeypatch.setattr(dispatch, "AT_ONCE", 1)
    check = TaskValidator.check

    async def slow(self, task):
        await asyncio.sleep(0.05)
        await check(self, task)

    monkeypatch.setattr(TaskValidator, "check", slow)
    await ensure_topics(stage.bus, rows(["player"]))
    await begin(stage.bus, "dispatcher", "rl.tasks.v1")
    appender = await KafkaAppender.connect(stage.bus, linger_ms=5)
    tasks = [Task(task_id=f"t{n}", agent="nobody") for n in range(100)]
    await asyncio.gather(
        *(appender.append("rl.tasks.v1", key=t.task_id, value=codec.encode(t)) for t in tasks)
    )
    await appender.aclose()
    dispatcher = dispatch.Dispatcher(DispatchSettings(), stage.bus)
    running = asyncio.create_task(dispatcher.run())
    await stage.until(dispatcher.ready.is_set)
    before, heard = member(dispatcher._reader), beats(dispatcher._reader)

    async def all_aside():
        return len(await stage.read("rl.dlq.v1")) == len(tasks)

    await stage.until(all_aside)
    assert heard[-1] - heard[0] > 4.0
    assert before == member(dispatcher._reader)
    dispatcher.stop()
    await running
