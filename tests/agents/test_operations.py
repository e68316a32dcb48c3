"""All operations of A2A 1.0 by the SDK's own client: over Kafka, and in memory as the SDK has them.

Tests of a `clerk` run over both; those of a `kafka_clerk` are of what Kafka adds.
"""

import asyncio

import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from odradek.agents.binding import BINDING
from odradek.agents.cards.card import card
from odradek.agents.client import KafkaConnection, KafkaTransport
from odradek.agents.runners import rollout_of
from tests.support.agents.memory_transport import MemoryTransport

WORKING, ASKS, DONE, OFF = (
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_INPUT_REQUIRED,
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_CANCELED,
)


class Clerk(AgentExecutor):
    """Does what the first word of a message says."""

    def __init__(self):
        self.go = asyncio.Event()
        self.heard = []

    async def execute(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        parts = [part.WhichOneof("content") for part in context.message.parts]
        text = context.get_user_input() or rollout_of(context).task.input
        self.heard.append((text, parts, context.context_id))
        if text.startswith("ask"):
            question = updater.new_agent_message([Part(text="which one?")])
            await updater.update_status(ASKS, question)
            return
        if text.startswith("chunks"):
            for number in range(3):
                await updater.add_artifact([Part(text=str(number))])
        if text.startswith(("wait", "chunks")):
            await self.go.wait()
        if text.startswith("stream"):
            for number in range(5):
                await updater.add_artifact(
                    [Part(text=str(number))], artifact_id="a", append=number > 0
                )
        answer = updater.new_agent_message([Part(text=f"done: {text}")])
        await updater.update_status(DONE, answer)

    async def cancel(self, context, event_queue):
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def client_of(produce, prefix=""):
    """The SDK's client, which finds its transport by the agent's card."""
    factory = ClientFactory(ClientConfig(streaming=False, supported_protocol_bindings=[BINDING]))
    factory.register(BINDING, produce)
    return factory.create(card("player", prefix=prefix))


@pytest.fixture
async def kafka_clerk(stage):
    """An agent behind Kafka, and the SDK's client to it."""
    agent = Clerk()
    await stage.host(agent)
    async with KafkaConnection(stage.bus) as connection:
        agent.client = client_of(KafkaTransport.producer(connection), stage.bus.topic_prefix)
        agent.transport = KafkaTransport(connection, "player", timeout_s=20.0)
        yield agent


@pytest.fixture
async def memory_clerk():
    """The same agent behind the SDK's handler in this process."""
    agent = Clerk()
    agent.transport = MemoryTransport(agent, card("player", prefix=""))
    agent.client = client_of(lambda *_: agent.transport)
    return agent


@pytest.fixture(params=["memory_clerk", pytest.param("kafka_clerk", marks=pytest.mark.broker)])
def clerk(request):
    """Each of the two."""
    return request.getfixturevalue(request.param)


def message(text, name, *, task="", context="", parts=(), at_once=False):
    return SendMessageRequest(
        message=Message(
            message_id=name,
            role=Role.ROLE_USER,
            parts=[Part(text=text), *parts],
            task_id=task,
            context_id=context,
        ),
        configuration=SendMessageConfiguration(return_immediately=at_once),
    )


async def send(clerk, text, name, **more):
    return (await clerk.transport.send_message(message(text, name, **more))).task


async def test_the_sdks_client_reaches_an_agent_by_its_card(clerk):
    """SendMessage waits for the end, and the answer is the agent's."""
    answers = [answer async for answer in clerk.client.send_message(message("hello", "m1"))]
    (answer,) = answers
    assert DONE == answer.task.status.state
    assert "done: hello" == answer.task.status.message.parts[0].text


async def test_a_client_that_does_not_wait_gets_the_task_as_it_begins(clerk):
    """And asks for it again later."""
    task = await send(clerk, "wait", "m1", at_once=True)
    assert WORKING == task.status.state
    assert WORKING == (await clerk.transport.get_task(GetTaskRequest(id=task.id))).status.state
    async for _ in clerk.transport.subscribe(SubscribeToTaskRequest(id=task.id)):
        clerk.go.set()
    ended = await clerk.transport.get_task(GetTaskRequest(id=task.id))
    assert (DONE, "wait") == (ended.status.state, ended.history[0].parts[0].text)
    short = await clerk.transport.get_task(GetTaskRequest(id=task.id, history_length=0))
    assert [] == list(short.history)


async def test_a_message_says_how_much_history_its_answer_shows(clerk):
    """Of the task as it begins, at its end, and in a stream; all of it stays in the task."""
    wanted = [(None, ["ask", "which one?", "blue"]), (1, ["blue"]), (0, [])]
    for number, (length, shown) in enumerate(wanted):
        asked = await send(clerk, "ask", f"a{number}")
        answer = message("blue", f"b{number}", task=asked.id)
        if length is not None:
            answer.configuration.history_length = length
        ended = (await clerk.transport.send_message(answer)).task
        assert (DONE, shown) == (ended.status.state, [m.parts[0].text for m in ended.history])
        kept = await clerk.transport.get_task(GetTaskRequest(id=asked.id))
        assert 3 == len(kept.history)
    first = message("stream", "s1")
    first.configuration.history_length = 0
    begins = await anext(clerk.transport.send_message_streaming(first))
    assert [] == list(begins.task.history)
    first = message("hello", "n1")
    first.configuration.history_length = -1
    with pytest.raises(InvalidParamsError):
        await clerk.transport.send_message(first)


async def test_a_stream_shows_the_task_then_each_event_once_and_ends_with_it(clerk):
    """Also for those who come later: they see the task as it stands."""
    events = [
        event async for event in clerk.transport.send_message_streaming(message("stream", "m1"))
    ]
    kinds = [event.WhichOneof("payload") for event in events]
    assert ["task", *["artifact_update"] * 5, "status_update"] == kinds
    texts = [e.artifact_update.artifact.parts[0].text for e in events[1:6]]
    assert ["0", "1", "2", "3", "4"] == texts
    assert DONE == events[-1].status_update.status.state
    with pytest.raises(UnsupportedOperationError):
        await anext(clerk.transport.subscribe(SubscribeToTaskRequest(id=events[0].task.id)))


@pytest.mark.broker
async def test_a_stream_that_is_asked_for_again_is_the_task_at_its_end(kafka_clerk):
    """By the message's id."""
    stream = kafka_clerk.transport.send_message_streaming
    (first, *_) = [event async for event in stream(message("stream", "m1"))]
    (again,) = [event async for event in stream(message("stream", "m1"))]
    assert (DONE, first.task.id) == (again.task.status.state, again.task.id)


async def test_who_subscribes_late_misses_nothing_and_sees_nothing_twice(clerk):
    """Two streams of one task show the same events; each begins with the task as it stands."""
    task = await send(clerk, "wait", "m1", at_once=True)

    def follow():
        return clerk.transport.subscribe(SubscribeToTaskRequest(id=task.id))

    streams = [follow() for _ in range(3)]
    heads = await asyncio.gather(*(anext(stream) for stream in streams))
    clerk.go.set()
    rests = [[event async for event in stream] for stream in streams]
    kinds = [
        [event.WhichOneof("payload") for event in (head, *rest)]
        for head, rest in zip(heads, rests, strict=True)
    ]
    assert [["task", "status_update"]] * 3 == kinds


async def test_an_agent_that_asks_gets_its_answer_in_the_same_task(clerk):
    """The context follows from the task."""
    asked = await send(clerk, "ask", "m1", context="c1")
    assert (ASKS, "which one?") == (asked.status.state, asked.status.message.parts[0].text)
    with pytest.raises(InvalidParamsError):
        await send(clerk, "blue", "m2", task=asked.id, context="other")
    ended = await send(clerk, "blue", "m2", task=asked.id)
    assert (DONE, asked.id, "c1") == (ended.status.state, ended.id, ended.context_id)
    assert ["ask", "blue"] == [m.parts[0].text for m in ended.history if m.role == Role.ROLE_USER]
    assert ["ask", "blue"] == [text for text, _, _ in clerk.heard]
    with pytest.raises(UnsupportedOperationError):
        await send(clerk, "green", "m3", task=asked.id)


@pytest.mark.broker
async def test_a_question_ends_no_episode_and_its_answer_does(kafka_clerk, stage):
    """So does a cancel. The answer has its task's context, which the SDK alone makes anew."""
    asked, other = await send(kafka_clerk, "ask", "m1"), await send(kafka_clerk, "ask", "m2")
    assert [] == stage.proxy.seals
    await send(kafka_clerk, "blue", "m3", task=asked.id)
    contexts = [context for text, _, context in kafka_clerk.heard if text == "blue"]
    assert [asked.context_id] == contexts
    await kafka_clerk.transport.cancel_task(CancelTaskRequest(id=other.id))
    expected = [(asked.id, "completed", ""), (other.id, "cancelled", "")]
    assert expected == stage.proxy.seals


@pytest.mark.broker
async def test_a_question_that_nobody_answers_ends_with_the_time_of_the_attempt(stage):
    """It is timed out, and its task failed."""
    await stage.host(Clerk())
    await stage.send("m1", given="ask", timeouts={"attempt_s": 0.5})
    await stage.ended("m1")
    assert [(stage.episode("m1"), "timed_out")] == [seal[:2] for seal in stage.proxy.seals]


async def test_a_task_that_asks_can_be_cancelled(clerk):
    """As can one that works; none that is over."""
    asked = await send(clerk, "ask", "m1")
    off = await clerk.transport.cancel_task(CancelTaskRequest(id=asked.id))
    assert OFF == off.status.state
    with pytest.raises(TaskNotCancelableError):
        await clerk.transport.cancel_task(CancelTaskRequest(id=asked.id))


@pytest.mark.broker
async def test_a_message_that_comes_twice_is_one_task(kafka_clerk):
    """Whether the first is still worked at or over, both get its answer."""
    first = asyncio.create_task(send(kafka_clerk, "wait", "m1"))
    second = asyncio.create_task(send(kafka_clerk, "wait", "m1"))
    await asyncio.sleep(0.2)
    kafka_clerk.go.set()
    tasks = [await first, await second, await send(kafka_clerk, "wait", "m1")]
    assert 1 == len({task.id for task in tasks})
    assert [DONE] * 3 == [task.status.state for task in tasks]
    assert 1 == len(kafka_clerk.heard)


@pytest.mark.broker
async def test_a_message_that_comes_again_while_its_agent_asks_gets_the_question(kafka_clerk):
    """So does a follow-up; asked for as a stream, it is the head of one."""
    asked = await send(kafka_clerk, "ask", "m1")
    again = await send(kafka_clerk, "ask", "m1")
    assert [(ASKS, asked.id)] * 2 == [(task.status.state, task.id) for task in (asked, again)]
    await send(kafka_clerk, "ask again", "m2", task=asked.id)
    stream = kafka_clerk.transport.send_message_streaming(message("ask again", "m2", task=asked.id))
    head = await anext(stream)
    await stream.aclose()
    assert (ASKS, asked.id) == (head.task.status.state, head.task.id)
    assert 2 == len(kafka_clerk.heard)


async def test_tasks_of_all_partitions_are_listed_page_by_page(clerk):
    """The one that changed last stands first."""
    for number in range(5):
        await send(clerk, f"task {number}", f"m{number}", context="c" if number < 3 else "")
    everything = await clerk.transport.list_tasks(ListTasksRequest())
    assert 5 == everything.total_size == len(everything.tasks)
    assert "task 4" == everything.tasks[0].history[0].parts[0].text
    of_context = await clerk.transport.list_tasks(ListTasksRequest(context_id="c", page_size=2))
    assert (3, 2) == (of_context.total_size, len(of_context.tasks))
    rest = await clerk.transport.list_tasks(
        ListTasksRequest(context_id="c", page_size=2, page_token=of_context.next_page_token)
    )
    assert ["task 0"] == [task.history[0].parts[0].text for task in rest.tasks]


@pytest.mark.broker
async def test_every_part_of_a_message_reaches_the_agent(kafka_clerk):
    """And what its card does not accept is refused, in A2A's words."""
    await send(kafka_clerk, "look", "m1", parts=[Part(text="and"), Part(text="there")])
    assert ["text"] * 3 == kafka_clerk.heard[0][1]
    picture = Part(url="http://127.0.0.1/cat.png", media_type="image/png")
    with pytest.raises(ContentTypeNotSupportedError):
        await send(kafka_clerk, "look", "m2", parts=[picture])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda t: t.get_task(GetTaskRequest(id="absent")), TaskNotFoundError),
        (lambda t: t.cancel_task(CancelTaskRequest(id="absent")), TaskNotFoundError),
        (lambda t: anext(t.subscribe(SubscribeToTaskRequest(id="absent"))), TaskNotFoundError),
        (lambda t: t.send_message(message("x", "m", task="absent")), TaskNotFoundError),
        (lambda t: t.list_tasks(ListTasksRequest(page_size=1000)), InvalidParamsError),
        (
            lambda t: t.get_extended_agent_card(GetExtendedAgentCardRequest()),
            UnsupportedOperationError,
        ),
        (
            lambda t: t.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id="x", url="http://127.0.0.1/")
            ),
            PushNotificationNotSupportedError,
        ),
    ],
)
async def test_what_cannot_be_served_is_a2as_own_error(clerk, call, error):
    """The client gets the class that the SDK has for it."""
    with pytest.raises(error):
        await call(clerk.transport)


@pytest.mark.broker
async def test_an_agent_that_is_not_there_is_a_time_out(stage):
    """It says whom nobody answered for."""
    from a2a.client import ClientCallContext
    from a2a.client.errors import A2AClientTimeoutError

    async with KafkaConnection(stage.bus) as connection:
        transport = KafkaTransport(connection, "player")
        with pytest.raises(A2AClientTimeoutError, match="player did not answer"):
            await transport.send_message(message("x", "m"), context=ClientCallContext(timeout=0.3))


@pytest.mark.broker
async def test_a_stream_goes_on_where_another_host_takes_over(stage):
    """Its client reads the log: the successor's events follow, none missing and none twice."""
    dead = await stage.host(Clerk(), instance="a")
    async with KafkaConnection(stage.bus) as connection:
        transport = KafkaTransport(connection, "player", timeout_s=20.0)
        stream = transport.send_message_streaming(message("chunks", "m1"))
        first = await anext(stream)
        shown = [(await anext(stream)).WhichOneof("payload") for _ in range(3)]
        # As after kill -9: its tasks stop where they are, and its name is taken by its successor.
        for owned in dead._owned.values():
            for run in owned.runs.values():
                run.lose()
        stage.crash(dead)
        await stage.host(Clerk(), instance="a")
        (last,) = [event async for event in stream]
    assert (WORKING, first.task.id) == (first.task.status.state, last.status_update.task_id)
    assert TaskState.TASK_STATE_FAILED == last.status_update.status.state
    records = [r for r in await stage.read("a2a.events.player") if r.key == first.task.id]
    generations = [int(dict(r.headers)["a2a-generation"]) for r in records]
    assert ["artifact_update"] * 3 == shown
    assert [1, 2, 3, 4, 5] == generations
