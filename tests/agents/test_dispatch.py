"""The dispatcher over the real broker."""

import asyncio
import contextlib

import pytest

from odradek.schemas import codec, ids
from odradek.schemas.events import Batch, GroupOpened, Pointer, Step, Task, Timeouts

pytestmark = pytest.mark.broker


@pytest.fixture
def bus(bus):
    """One partition, on which tasks keep the order in which they are published."""
    return bus.model_copy(update={"topic_partitions": 1})


class Ring:
    """A dispatcher, and the parts of grouper and trainer that it hears."""

    def __init__(self, stage):
        self.stage = stage
        self.running = {}

    async def start(self, *, trainer=True, **given):
        from odradek.agents.dispatch.dispatcher import Dispatcher
        from odradek.agents.settings import DispatchSettings

        dispatcher = Dispatcher(DispatchSettings(**given), self.stage.bus, trainer=trainer)
        self.running[dispatcher] = asyncio.create_task(dispatcher.run())
        await asyncio.wait_for(dispatcher.ready.wait(), 60)
        return dispatcher

    async def stop(self, dispatcher):
        dispatcher.stop()
        await self.running.pop(dispatcher)

    async def publish(self, *names, **given):
        for name in names:
            task = Task(**{"task_id": name, "agent": "player", "group_size": 2, **given})
            await self.append("rl.tasks.v1", name, codec.encode(task))

    async def append(self, topic, key, value, partition=None):
        await self.stage.appender.append(topic, key=key, value=value, partition=partition)

    async def close(self, *names):
        for name in names:
            batch = Batch(task_id=name, group_size=2)
            await self.append("rl.batches.v1", name, codec.encode(batch), 0)

    async def step(self, position):
        step = Step(run="r", incarnation=0, step=1, position=position)
        await self.append("rl.steps.v1", "r", codec.encode(step), 0)

    async def expected(self):
        return [
            codec.decode(r.value, GroupOpened).task_id
            for r in sorted(
                await self.stage.read("rl.episodes.v1"), key=lambda r: (r.timestamp, r.offset)
            )
        ]

    async def requests(self):
        return await self.stage.read("a2a.requests.player")

    async def out(self, *names):
        """Return once exactly these groups are out, in all."""

        async def there():
            return sorted(await self.expected()) == sorted(names)

        await self.stage.until(there)

    async def letters(self, count=1):
        async def there():
            letters = await self.stage.read("rl.dlq.v1")
            return letters if len(letters) >= count else None

        letters = await self.stage.until(there)
        return [dict(letter.headers)["dlq-reason"].decode() for letter in letters]


@pytest.fixture
async def ring(stage):
    """A ring that stops its dispatchers."""
    ring = Ring(stage)
    yield ring
    for dispatcher in list(ring.running):
        with contextlib.suppress(Exception):
            await ring.stop(dispatcher)


async def test_a_group_goes_out_whole_and_says_what_is_wanted(ring):
    """One GroupOpened and a request per sample, with derived message ids and the extension."""
    from odradek.agents.binding import requests

    await ring.start()
    await ring.publish(
        "t1",
        group_size=3,
        rewards={"game": 1.0},
        sampling={"temperature": 0},
        timeouts=Timeouts(attempt_s=7.0),
        item="i",
        input=codec.msgspec.Raw(b'{"n":9007199254740993}'),
    )
    await ring.out("t1")
    found = await ring.stage.until(ring.requests)
    assert {ids.message_id("t1", sample) for sample in range(3)} == {r.key for r in found}
    sends = [requests.send(record) for record in found]
    assert {0, 1, 2} == {send.sample.sample for send in sends}
    one = sends[0]
    assert (b'{"n":9007199254740993}', "i") == (bytes(one.input), one.sample.item)
    assert (3, 7.0, {"game": 1.0}) == (
        one.sample.group_size,
        one.sample.timeouts.attempt_s,
        one.sample.rewards,
    )
    called = requests.called(found[0])
    assert (called.operation, called.reply_topic) == ("SendMessage", "")
    assert called.deadline is not None


async def test_a_stopped_trainer_stops_the_groups_and_a_step_lets_them_go(ring):
    """Closed batches give no credit; the step that passes them does."""
    await ring.start(open_groups=2)
    await ring.publish("t1", "t2", "t3", "t4")
    await ring.out("t1", "t2")
    await ring.close("t1", "t2")
    await ring.publish("e1", purpose="eval")
    await ring.out("t1", "t2", "e1")
    await ring.step(1)
    await ring.out("t1", "t2", "e1", "t3")
    await ring.step(2)
    await ring.out("t1", "t2", "e1", "t3", "t4")


async def test_a_hard_task_goes_out_once_more_whoever_dispatches(ring):
    """Once its group has failed, as a task of its own; the next dispatcher does not repeat it again."""
    pointer = Pointer(
        episode_id="e",
        sample=0,
        topic="rl.episodes.v1",
        partition=0,
        offset=0,
        digest="",
        reward=0.0,
    )
    failed = codec.encode(Batch(task_id="t1", group_size=2, episodes=(pointer,)))
    first = await ring.start(open_groups=2, repeat_share=1.0, repeat_most=1)
    await ring.publish("t1")
    await ring.out("t1")
    await ring.append("rl.batches.v1", "t1", failed, 0)
    await ring.out("t1", ids.repeat_id("t1"))
    await ring.stop(first)
    await ring.start(open_groups=2, repeat_share=1.0, repeat_most=1)
    await ring.step(1)
    await ring.publish("t2")
    await ring.out("t1", ids.repeat_id("t1"), "t2")
    tasks = [codec.decode(one.value, Task) for one in await ring.stage.read("rl.tasks.v1")]
    assert {"t1": 0, ids.repeat_id("t1"): 1, "t2": 0} == {one.task_id: one.repeats for one in tasks}
    assert 3 == len(tasks)


async def test_evaluation_does_not_starve_behind_training(ring):
    """A waiting queue of training groups is read past."""
    await ring.start(open_groups=1)
    await ring.publish(*(f"t{number}" for number in range(20)))
    await ring.out("t0")
    await ring.publish("e1", purpose="eval")
    await ring.out("t0", "e1")


async def test_without_a_trainer_closed_batches_give_credit(ring):
    """`--no-trainer`."""
    await ring.start(open_groups=1, trainer=False)
    await ring.publish("t1", "t2")
    await ring.out("t1")
    await ring.close("t1")
    await ring.out("t1", "t2")


async def test_a_restart_sends_nothing_twice_and_forgets_nothing(ring):
    """Open groups are counted again, waiting ones are sent in their turn, evals are not re-sent."""
    first = await ring.start(open_groups=2)
    await ring.publish("t1", "t2", "t3", "t4")
    await ring.publish("e1", purpose="eval")
    await ring.out("t1", "t2", "e1")
    await ring.close("t2", "e1")
    await ring.stage.until(lambda: first.credit.batch_of("t2") is not None)
    await ring.stop(first)
    await ring.close("t1")
    second = await ring.start(open_groups=2)
    await ring.stage.until(lambda: second.credit.batch_of("t1") == 2)
    assert (2, 0) == (second.credit.out("train"), second.credit.out("eval"))
    await ring.step(1)
    await ring.out("t1", "t2", "e1", "t3")
    await ring.step(3)
    await ring.out("t1", "t2", "e1", "t3", "t4")
    assert 10 == len(await ring.requests())


async def test_a_killed_dispatcher_sends_nothing_twice(ring):
    """Requests, GroupOpened and the memory of them stand in one transaction."""
    first = await ring.start(open_groups=3, instance="d")
    await ring.publish(*(f"t{number}" for number in range(6)))
    await ring.out("t0", "t1", "t2")
    ring.running.pop(first).cancel()
    await ring.start(open_groups=3, instance="d")
    await ring.close("t0", "t1", "t2")
    await ring.step(3)
    await ring.out(*(f"t{number}" for number in range(6)))
    assert 12 == len(await ring.requests())


async def test_tasks_that_cannot_be_sent_are_dead_letters_with_a_reason(ring):
    """Each mistake gets its word, and the next task goes out."""
    await ring.start()
    await ring.append("rl.tasks.v1", "a", b"{", 0)
    await ring.append(
        "rl.tasks.v1", "b", b'{"type":"task","task_id":"b","agent":"player","group_size":0}', 0
    )
    await ring.publish("c", agent="nobody")
    await ring.publish("g", rewards={"game": 1.0, "cost": -0.5})
    await ring.publish("h", rewards={"": 1.0}, purpose="eval")
    await ring.publish("e", input=codec.msgspec.Raw(b'"\xff"'))
    await ring.publish("f", input=codec.msgspec.Raw(b'"' + b"x" * (1024 * 1024 - 8000) + b'"'))
    await ring.publish("d", agent="../up")
    await ring.publish("t1")
    await ring.publish("t1")
    await ring.publish("t2")
    await ring.out("t1", "t2")
    assert sorted(await ring.letters(9)) == [
        "bad_component",
        "bad_schema",
        "duplicate_task",
        "no_failure_reward",
        "not_json",
        "not_json",
        "too_large",
        "unknown_agent",
        "unknown_agent",
    ]
