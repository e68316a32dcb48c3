"""Hosts that come and go: what a successor finds, and what it does with it."""

import asyncio
import gc
import time
import warnings

import pytest

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def the_dead_close_nothing():
    """A host that is cut where it stands leaves a connection behind; the next test is not to see it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_runs_of_a_killed_host_are_begun_again_elsewhere(stage):
    """The next owner aborts what it finds unfinished, and plays attempt 2."""
    started = []

    async def hang(rollout):
        started.append(rollout.episode_id)
        await asyncio.Event().wait()

    async def play(rollout):
        started.append(rollout.episode_id)

    dead = await stage.host(hang, instance="a")
    for message in ("m1", "m2", "m3"):
        await stage.send(message)
    await stage.until(lambda: len(started) == 3)
    # As after kill -9: its tasks stop where they are, and its name is taken by its successor.
    for owned in dead._owned.values():
        for task in owned.tasks:
            task.cancel()
        for run in owned.runs.values():
            run.lose()
    stage.crash(dead)
    began = time.monotonic()
    await stage.host(play, instance="a")
    await stage.ended("m1", "m2", "m3", attempt=2)
    assert time.monotonic() - began < 30
    story = await stage.story()
    aborted = [e for e in story if type(e).__name__ == "EpisodeAborted"]
    assert {e.episode_id for e in aborted} == {stage.episode(m) for m in ("m1", "m2", "m3")}
    assert {(e.reason, e.retry) for e in aborted} == {("host_lost", True)}
    assert {(e.attempt, e.last_attempt) for e in story if type(e).__name__ == "EpisodeOpened"} == {
        (1, False),
        (2, True),
    }
    assert sorted(outcome for _, outcome, _ in stage.proxy.seals) == ["completed"] * 3


async def test_a_host_that_died_while_sealing_is_completed_by_its_successor(stage):
    """With its ending written down, it is sealed again with its children, not played again."""
    sealing, release = asyncio.Event(), asyncio.Event()

    async def never(episode):
        if episode != stage.episode("m1"):
            return  # a child ends as ever
        sealing.set()
        await release.wait()
        stage.proxy.seals.clear()

    plays, children = [], []

    async def play(rollout):
        plays.append(rollout.attempt)
        children.append((await rollout.ask("answerer", "?")).task_id)
        rollout.reward("game", 1.0)

    async def answerer(rollout):
        return "!"

    stage.proxy.on_seal = never
    await stage.host(answerer, name="answerer")
    dead = await stage.host(play, instance="a")
    await stage.send("m1")
    await asyncio.wait_for(sealing.wait(), 60)
    for owned in dead._owned.values():
        for run in owned.runs.values():
            run.lose()
    stage.crash(dead)
    stage.proxy.on_seal = lambda episode: None
    await stage.host(play, instance="a")
    await stage.ended("m1")
    assert plays == [1]
    assert (stage.episode("m1"), "completed", "") == stage.proxy.seals[-1]
    assert [children, 1] == [stage.proxy.children[stage.episode("m1")], len(children)]
    release.set()
    assert ["EpisodeOpened"] * 2 == [type(e).__name__ for e in await stage.story()]


async def test_sigterm_gives_runs_up_for_another_attempt(stage):
    """A host that is told to end aborts what goes on, and leaves what waits untouched."""
    started = []

    async def hang(rollout):
        started.append(rollout.episode_id)
        await asyncio.Event().wait()

    async def play(rollout):
        started.append(rollout.episode_id)

    host = await stage.host(hang, concurrency=1, instance="a")
    first, second = stage.named(0, 2)
    await stage.send(first)
    await stage.until(lambda: started)
    await stage.send(second)
    await stage.until(lambda: sum(o.backlog.unfinished for o in host._owned.values()) == 2)
    await stage.stop(host)
    story = await stage.story()
    assert [type(e).__name__ for e in story] == ["EpisodeOpened", "EpisodeAborted"]
    assert (story[1].reason, story[1].retry) == ("host_lost", True)
    await stage.host(play, instance="a")
    await stage.until(lambda: len(stage.proxy.seals) == 2)
    assert 3 == len(started)


async def test_offsets_are_committed_up_to_the_oldest_unfinished_request(stage):
    """A long run holds the mark; when it ends, the mark passes all that ended before."""
    from aiokafka import TopicPartition

    from odradek.infra.bus import consumer, running

    release = asyncio.Event()

    async def play(rollout):
        if rollout.task.input == "long":
            await release.wait()

    async def committed():
        reader = consumer(stage.bus, group="agent.player")
        async with running(reader, stage.bus):
            return await reader.committed(TopicPartition(stage.bus.topic("a2a.requests.player"), 1))

    await stage.host(play)
    first, second, third = stage.named(1, 3)
    await stage.send(first)
    await stage.until(lambda: len(stage.proxy.seals) == 1)
    await stage.send(second, given="long")
    await stage.send(third)
    await stage.until(lambda: len(stage.proxy.seals) == 2)

    async def at(offset):
        return await committed() == offset

    await stage.until(lambda: at(1))
    release.set()
    await stage.until(lambda: at(3))


async def test_two_hosts_share_the_work_and_a_lost_partition_kills_its_runs(stage):
    """When a second host joins, moved runs are played again there; none ends twice."""
    bus = stage.bus
    where = {"a": [], "b": []}

    def player(name, gate):
        async def play(rollout):
            where[name].append(rollout.episode_id)
            await gate.wait()

        return play

    gate = asyncio.Event()
    await stage.host(player("a", gate), concurrency=20)
    for partition in range(3):
        for name in stage.named(partition, 3):
            await stage.send(name)
    await stage.until(lambda: len(where["a"]) == 9)
    await stage.host(player("b", gate), concurrency=20)
    await stage.until(lambda: len(where["b"]) in {3, 6})
    gate.set()
    await stage.until(lambda: len(stage.proxy.seals) == 9)
    assert 9 == len({episode for episode, _, _ in stage.proxy.seals})
    story = await stage.story()
    moved = len(where["b"])
    assert moved == sum(type(e).__name__ == "EpisodeAborted" for e in story)
    assert bus is stage.bus
