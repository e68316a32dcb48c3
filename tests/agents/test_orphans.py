"""Tasks of plain messages whose host died: what they had shown stays, and the policy says the rest."""

import asyncio
import gc
import warnings

import pytest
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskState,
)

from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.host.tasks.replay import apply

pytestmark = pytest.mark.broker

ASKS, DONE, FAILED, OFF = (
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_CANCELED,
)


class Writer(AgentExecutor):
    """Asks, or writes three chunks; a hanging one then never ends."""

    def __init__(self, *, hangs):
        self.hangs = hangs
        self.played = []

    async def execute(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        text = context.get_user_input()
        self.played.append(text)
        if text == "ask":
            await updater.update_status(ASKS, updater.new_agent_message([Part(text="which?")]))
            return
        for number in range(3):
            await updater.add_artifact([Part(text=str(number))], artifact_id="a", append=number > 0)
        if self.hangs:
            await updater.update_status(TaskState.TASK_STATE_WORKING)
            await asyncio.Event().wait()
        await updater.complete(updater.new_agent_message([Part(text="done")]))

    async def cancel(self, context, event_queue): ...


def message(text, name, task=""):
    return SendMessageRequest(
        message=Message(
            message_id=name, role=Role.ROLE_USER, parts=[Part(text=text)], task_id=task
        ),
        configuration=SendMessageConfiguration(return_immediately=text == "hang"),
    )


class Client:
    """An agent's client, which keeps what its streams showed."""

    def __init__(self, transport):
        self.transport = transport
        self.seen = Task()

    async def send(self, text, name, task=""):
        return (await self.transport.send_message(message(text, name, task))).task

    async def get(self, task_id):
        return await self.transport.get_task(GetTaskRequest(id=task_id))

    async def listed(self, task_id):
        page = await self.transport.list_tasks(ListTasksRequest(include_artifacts=True))
        return next(task for task in page.tasks if task.id == task_id)

    async def follow(self, stream, until=lambda _: False):
        """Take a stream's events into `seen`, to its end or until one is as asked for."""
        async for event in stream:
            apply(self.seen, event)
            if until(event):
                return


@pytest.fixture(autouse=True)
def the_dead_close_nothing():
    """A host that is cut where it stands leaves a connection behind; the next test is not to see it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
async def client(stage):
    async with KafkaConnection(stage.bus) as connection:
        yield Client(KafkaTransport(connection, "player", timeout_s=60.0))


def kill(stage, host):
    """As kill -9: its tasks stop where they are, and nothing more is written."""
    for owned in host._owned.values():
        for run in owned.runs.values():
            run.lose()
    stage.crash(host)


async def generations(stage, task_id):
    records = [r for r in await stage.read("a2a.events.player") if r.key == task_id]
    return [int(dict(r.headers)["a2a-generation"]) for r in records]


def texts(task):
    return [part.text for artifact in task.artifacts for part in artifact.parts]


@pytest.mark.parametrize(("orphans", "state"), [("fail", FAILED), ("restart", DONE)])
async def test_a_task_that_was_worked_at_ends_by_policy_and_all_agree_on_it(
    stage, client, orphans, state
):
    """What subscribers saw is what GetTask and ListTasks say; no generation is missing or double."""
    dead = await stage.host(Writer(hangs=True), instance="a")
    stream = client.transport.send_message_streaming(message("write", "m1"))
    working = lambda event: event.HasField("status_update")  # noqa: E731
    await client.follow(stream, until=working)
    assert ["0", "1", "2"] == texts(client.seen)
    kill(stage, dead)
    agent = Writer(hangs=False)
    await stage.host(agent, instance="a", orphans=orphans)
    await client.follow(stream)
    task = await client.get(client.seen.id)
    assert (state, ["0", "1", "2"]) == (task.status.state, texts(task))
    assert task == client.seen == await client.listed(task.id)
    numbers = await generations(stage, task.id)
    assert list(range(1, len(numbers) + 1)) == numbers
    assert (["write"] if orphans == "restart" else []) == agent.played
    if orphans == "fail":
        assert "send the message again" in task.status.message.parts[0].text


async def test_a_task_that_kills_its_hosts_is_not_begun_again_for_ever(stage, client):
    """After `max_attempts` attempts it fails."""
    hosts = {"instance": "a", "orphans": "restart", "max_attempts": 2}
    dead = await stage.host(Writer(hangs=True), **hosts)
    task = await client.send("hang", "m1")
    kill(stage, dead)
    again = Writer(hangs=True)
    dead = await stage.host(again, **hosts)
    await stage.until(lambda: again.played)
    kill(stage, dead)
    last = Writer(hangs=False)
    await stage.host(last, **hosts)
    await stage.ended("m1")
    assert (FAILED, []) == ((await client.get(task.id)).status.state, last.played)


@pytest.mark.parametrize(("orphans", "state"), [("fail", FAILED), ("restart", DONE)])
async def test_tasks_that_wait_survive_and_a_later_message_ends_by_policy(
    stage, client, orphans, state
):
    """Whether their host was killed or told to end; the question stands, and its answer is heard."""
    first = await stage.host(Writer(hangs=True), instance="a", orphans=orphans)
    asked = [await client.send("ask", f"m{number}") for number in range(3)]
    await stage.stop(first)
    dead = await stage.host(Writer(hangs=True), instance="a", orphans=orphans)
    for task in asked:
        standing = await client.get(task.id)
        assert (ASKS, "which?") == (standing.status.state, standing.status.message.parts[0].text)
    later = asyncio.create_task(client.send("write", "later", asked[0].id))

    async def written():  # the task, its question, that it works again, three chunks, and once more
        return 7 == len(await generations(stage, asked[0].id))

    await stage.until(written)
    kill(stage, dead)
    agent = Writer(hangs=False)
    await stage.host(agent, instance="a", orphans=orphans)
    ended = await later
    assert (state, ["0", "1", "2"]) == (ended.status.state, texts(ended))
    said = [m.parts[0].text for m in ended.history if m.role == Role.ROLE_USER]
    assert ["ask", "write"] == said
    other = await client.send("write", "other", asked[1].id)
    assert (DONE, asked[1].id) == (other.status.state, other.id)
    off = await client.transport.cancel_task(CancelTaskRequest(id=asked[2].id))
    assert OFF == off.status.state
    for task in asked:
        numbers = await generations(stage, task.id)
        assert list(range(1, len(numbers) + 1)) == numbers
