"""Agents that ask agents, over the real broker: children of an episode, their bounds and their ends."""

import asyncio
import sys

import pytest

from odradek.agents.client import KafkaConnection, ask, ask_all
from odradek.agents.errors import AskError, AskFailed, AskRefused, AskTimeout
from odradek.agents.rollout import Ask, UpstreamUnavailable
from odradek.agents.runners.program import ProgramRunner
from odradek.schemas import ids
from odradek.schemas.events import ChildReward, EpisodeAborted, EpisodeOpened

pytestmark = pytest.mark.broker

RULE = ChildReward(own=0.5, parent=0.25, rewards={"truth": 1.0}, failure_reward=-1.0)


async def opened(stage):
    """The openings in the log, by agent, in their order."""
    return [event for event in await stage.story() if isinstance(event, EpisodeOpened)]


async def test_an_agent_asks_another_and_what_that_does_is_its_child(stage):
    """The log says whose child it is, worth what, on which partition; a circle is refused."""
    answers, errors = [], []

    async def answerer(rollout):
        with pytest.raises(AskRefused) as refused:
            await rollout.ask("player", "what do you think?")
        errors.append(str(refused.value))
        rollout.reward("truth", 1.0)
        return {"sum": sum(rollout.task.input["numbers"])}

    async def player(rollout):
        answers.append(await rollout.ask("answerer", {"numbers": [1, 2]}, timeout_s=15))

    await stage.host(answerer, name="answerer")
    await stage.host(player)
    await stage.send("m1", sample=3, children={"answerer": RULE})
    await stage.ended("m1")

    assert ["player: it waits for this answer itself: player → answerer → player"] == errors
    (answer,) = answers
    assert ({"sum": 3}, True) == (answer.value, answer.captured)
    parent, child = await opened(stage)
    assert ("player", "answerer", parent.episode_id) == (parent.agent, child.agent, child.parent)
    assert answer.task_id == child.episode_id
    assert (parent.task_id, 3) == (child.task_id, child.sample)
    assert (0.5, 0.25, {"truth": 1.0}, -1.0) == (
        child.own_weight, child.parent_weight, child.rewards, child.failure_reward,
    )  # fmt: skip
    assert child.timeouts.attempt_s <= 15 < parent.timeouts.attempt_s
    homes = {
        ids.partition_for(one.episode_id, stage.bus.topic_partitions) for one in (parent, child)
    }
    assert 1 == len(homes)
    assert [child.episode_id, parent.episode_id] == [seal[0] for seal in stage.proxy.seals]
    assert [child.episode_id] == stage.proxy.children[parent.episode_id]


async def test_a_fan_out_has_an_outcome_for_each(stage):
    """One that answers, one that fails, one that is too slow, and one that is not there."""
    outcomes = []

    async def answerer(rollout):
        if rollout.task.input == "fail":
            raise ValueError("it cannot be known")
        await asyncio.sleep(rollout.task.input)
        return "done"

    async def player(rollout):
        outcomes.extend(
            await rollout.ask_all(
                [("answerer", 0), ("answerer", "fail"), Ask("answerer", 30, 1.0), ("nobody", 0)]
            )
        )

    await stage.host(answerer, name="answerer")
    await stage.host(player)
    await stage.send("m1")
    await stage.ended("m1")
    done, failed, slow, nobody = outcomes
    assert "done" == done.text
    assert isinstance(failed, AskFailed)
    assert "it cannot be known" in str(failed)
    assert isinstance(slow, AskFailed)
    assert "timed_out" in str(slow)
    assert isinstance(nobody, AskRefused)
    assert "start `odradek agent --name nobody`" in str(nobody)
    parent, *children = await opened(stage)
    assert {child.episode_id for child in children} == {*stage.proxy.children[parent.episode_id]}
    assert 3 == len(children)


async def test_a_parents_cancellation_ends_its_children(stage):
    """The child is cancelled where it runs; its seal says so."""
    running = asyncio.Event()

    async def answerer(rollout):
        running.set()
        await asyncio.Event().wait()

    async def player(rollout):
        await rollout.ask("answerer", "?")

    await stage.host(answerer, name="answerer")
    await stage.host(player)
    await stage.send("m1")
    await asyncio.wait_for(running.wait(), 60)
    await stage.cancel(stage.episode("m1"))
    await stage.until(lambda: len(stage.proxy.seals) == 2)
    assert {"cancelled"} == {seal[1] for seal in stage.proxy.seals}


async def test_a_parent_whose_child_is_lost_is_tried_again_with_new_children(stage):
    """Once its child's attempts are over, its own is given up, and the next one asks anew."""
    asked = []

    async def answerer(rollout):
        asked.append(rollout.episode_id)
        if len(asked) < 3:
            raise UpstreamUnavailable("no engine")
        return "now"

    async def player(rollout):
        await rollout.ask("answerer", "?")

    await stage.host(answerer, name="answerer")
    await stage.host(player)
    await stage.send("m1", max_attempts=2)
    await stage.ended("m1", attempt=2)
    story = await stage.story()
    aborted = {event.episode_id: event for event in story if isinstance(event, EpisodeAborted)}
    first = aborted[stage.episode("m1")]
    assert ("upstream_failed", True) == (first.reason, first.retry)
    children = [event for event in story if isinstance(event, EpisodeOpened) and event.parent]
    parents = [stage.episode("m1"), stage.episode("m1"), stage.episode("m1", 2)]
    assert parents == [child.parent for child in children]
    assert children[0].message_id == children[1].message_id != children[2].message_id


async def test_any_process_asks_agents_without_training(stage):
    """By a connection of its own; several at once, with an outcome for each."""

    async def answerer(rollout):
        if rollout.task.input == "slow":
            await asyncio.Event().wait()
        return rollout.task.input.upper()

    await stage.host(answerer, name="answerer", training=False)
    async with KafkaConnection(stage.bus) as connection:
        assert "A" == (await ask(connection, "answerer", "a")).text
        first, slow = await ask_all(connection, [("answerer", "b"), Ask("answerer", "slow", 1.0)])
    assert ("B", False) == (first.text, first.captured)
    assert isinstance(slow, AskTimeout)
    assert issubclass(AskTimeout, AskError)


PROGRAM = """
import json, os, urllib.request
with open(os.environ["ODRADEK_TASK_FILE"]) as file:
    numbers = json.load(file)
body = json.dumps({"agent": "answerer", "message": numbers, "timeout_s": 20}).encode()
with urllib.request.urlopen(os.environ["ODRADEK_ASK_URL"], body) as reply:
    answer = json.load(reply)["value"]
with open(os.environ["ODRADEK_REPLY_FILE"], "w") as file:
    json.dump({"sum": answer}, file)
"""


async def test_a_program_asks_and_answers(stage, tmp_path):
    """By an address and a file that it is given; what it asked for is its child."""
    script = tmp_path / "solve.py"
    script.write_text(PROGRAM)

    async def answerer(rollout):
        return sum(rollout.task.input)

    await stage.host(answerer, name="answerer")
    await stage.host(ProgramRunner(f"{sys.executable} -S {script}"))
    async with KafkaConnection(stage.bus) as connection:
        answer = await ask(connection, "player", [1, 2], timeout_s=60)
    assert ({"sum": 3}, True) == (answer.value, answer.captured)
    parent, child = await opened(stage)
    assert parent.episode_id == child.parent
