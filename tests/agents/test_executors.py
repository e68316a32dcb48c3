"""A2A executors of people's own, over the real broker."""

import msgspec
import pytest
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Message, Part, Role, Task, TaskState, TaskStatus

from odradek.agents.runners import rollout_of

pytestmark = pytest.mark.broker


class Talker(AgentExecutor):
    """Does what the SDK's samples do, or answers with a bare message."""

    async def execute(self, context, event_queue):
        if rollout_of(context).task.input == "message":
            await event_queue.enqueue_event(
                Message(message_id="a", role=Role.ROLE_AGENT, parts=[Part(text="hello")])
            )
            return
        if context.current_task is None:
            await event_queue.enqueue_event(
                Task(
                    id=context.task_id,
                    context_id=context.context_id,
                    status=TaskStatus(state=TaskState.TASK_STATE_SUBMITTED),
                )
            )
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        await updater.add_artifact([Part(text="42")], name="answer")
        rollout_of(context).reward("game", 1.0)
        if rollout_of(context).task.input == "fail":
            await updater.failed()
        else:
            await updater.complete()

    async def cancel(self, context, event_queue):
        raise NotImplementedError


async def events_of(stage, message):
    records = await stage.read("a2a.events.player")
    return [msgspec.json.decode(r.value) for r in records if r.key == stage.episode(message)]


async def test_an_executors_end_waits_for_the_seal(stage):
    """Its own terminal status is held until the episode is sealed."""
    ends = []

    async def at_seal(episode):
        records = await stage.read("a2a.events.player")
        ends.append(sum(("a2a-end", b"1") in r.headers for r in records))

    stage.proxy.on_seal = at_seal
    await stage.host(Talker())
    await stage.send("m1")
    await stage.send("m2", given="fail")
    await stage.ended("m1", "m2")
    assert 0 == ends[0]
    assert {"completed", "failed"} == {outcome for _, outcome, _ in stage.proxy.seals}
    kinds = [next(iter(event)) for event in await events_of(stage, "m1")]
    assert ["task", "statusUpdate", "artifactUpdate", "statusUpdate"] == kinds
    assert 2 == len(await stage.read("rl.rewards.v1"))


async def test_a_bare_message_becomes_the_message_of_the_end(stage):
    """A task that every subscriber has seen cannot end in a message alone."""
    await stage.host(Talker())
    await stage.send("m1", given="message")
    await stage.ended("m1")
    last = (await events_of(stage, "m1"))[-1]["statusUpdate"]["status"]
    assert "TASK_STATE_COMPLETED" == last["state"]
    assert "hello" == last["message"]["parts"][0]["text"]


async def test_an_a2a_client_gets_an_answer_at_its_address(stage):
    """A message of no task is played, recorded as unattributed, and answered."""

    async def play(rollout):
        assert "hi" == rollout.task.input

    await stage.host(play)
    value = b'{"message":{"messageId":"m1","role":"ROLE_USER","parts":[{"text":"hi"}]}}'
    told = {
        "a2a-operation": "SendMessage",
        "a2a-version": "1.0",
        "a2a-correlation-id": "c9",
        "a2a-reply-topic": stage.bus.topic("a2a.replies.tests"),
        "a2a-reply-partition": "2",
    }
    await stage.request(value, [(k, v.encode()) for k, v in told.items()], key="m1")
    (reply,) = await stage.until(lambda: stage.read("a2a.replies.tests"))
    assert 2 == reply.partition
    answer = dict(reply.headers)
    assert (b"c9", b"200", b"1") == (
        answer["a2a-correlation-id"],
        answer["a2a-status"],
        answer["a2a-end"],
    )
    task = msgspec.json.decode(reply.value)["task"]
    assert (stage.episode("m1"), "TASK_STATE_COMPLETED") == (task["id"], task["status"]["state"])
    (opened,) = await stage.story()
    assert opened.unattributed
    told["a2a-operation"] = "CancelTask"
    await stage.request(
        b'{"id": "no-such-task"}', [(k, v.encode()) for k, v in told.items()], key="no-such-task"
    )
    replies = await stage.until(lambda: _two(stage))
    assert {b"200", b"404"} == {dict(r.headers)["a2a-status"] for r in replies}


async def _two(stage):
    replies = await stage.read("a2a.replies.tests")
    return replies if len(replies) == 2 else None
