"""The SDK's seams on Kafka: replicas of an A2A server that share their tasks."""

import asyncio
from contextlib import aclosing

import pytest
from a2a.server.cluster.task_store import ConcurrentTaskModificationError
from a2a.server.cluster.version import TaskVersion
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from hypothesis import given
from hypothesis import strategies as st

from odradek.agents import KafkaTaskEventStream, KafkaTaskStore
from odradek.agents.binding.responses import event_headers, stream_value
from odradek.agents.replicas.task_log import TaskFold
from odradek.infra.bus import Record

from .test_operations import Clerk

WORKING, COMPLETED, CANCELED = (
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_CANCELED,
)
CARD = AgentCard(name="x", capabilities=AgentCapabilities(streaming=True))


def event(task_id, state):
    return TaskStatusUpdateEvent(task_id=task_id, context_id="c", status=TaskStatus(state=state))


def task_of(task_id, state=WORKING):
    return Task(id=task_id, context_id="c", status=TaskStatus(state=state))


@given(st.lists(st.integers(1, 6), max_size=30))
def test_of_all_writers_of_a_generation_the_first_counts(generations):
    """Whatever stands in the log, generations that count are 1, 2, 3, … each of them once."""
    fold = TaskFold()
    counted = []
    for offset, generation in enumerate(generations):
        change = task_of("t") if generation == 1 else event("t", WORKING)
        headers = event_headers(
            change, task_id="t", generation=generation, source="/a", traceparent=None
        )
        if fold.take(Record("e", 0, offset, "t", stream_value(change), headers)):
            counted.append(generation)
    assert list(range(1, len(counted) + 1)) == counted


@pytest.mark.broker
async def test_of_two_replicas_that_change_a_task_at_once_one_does(bus):
    """A cancellation overwrites what is not over; snapshots say what the events say."""
    call = ServerCallContext()
    async with KafkaTaskStore("pair", bus) as first, KafkaTaskStore("pair", bus) as second:
        missing = {"event": None, "prev": None, "prev_version": TaskVersion.MISSING}
        version = await first.save(task_of("t"), context=call, **missing)
        stored = await second.get("t", call)
        assert (task_of("t"), version) == (stored.task, stored.version)
        with pytest.raises(ConcurrentTaskModificationError):
            await second.save(task_of("t"), context=call, **missing)

        def end(store, state, of=version):
            change = event("t", state)
            task = task_of("t", state)
            return store.save(task, event=change, prev=None, prev_version=of, context=call)

        ends = await asyncio.gather(
            end(first, WORKING), end(second, COMPLETED), return_exceptions=True
        )
        lost = [answer for answer in ends if isinstance(answer, ConcurrentTaskModificationError)]
        assert 1 == len(lost)
        standing = await first.get("t", call)
        if standing.task.status.state != COMPLETED:
            await end(second, CANCELED, of=version)  # whichever version it has seen
            standing = await first.get("t", call)
        with pytest.raises(ConcurrentTaskModificationError):
            await end(first, CANCELED)
        page = await first.list(ListTasksRequest(), call)
        assert [standing.task] == list(page.tasks)
    async with KafkaTaskStore("pair", bus) as third:
        assert standing == await third.get("t", call)


async def hold_back(log, seconds):
    """Have a replica's reader pass on whatever it fetches so much later."""
    getmany, held = log._reader.getmany, asyncio.Event()

    async def fetched(**given):
        held.set()
        records = await getmany(**given)
        await asyncio.sleep(seconds)
        return records

    log._reader.getmany = fetched
    await held.wait()


@pytest.mark.broker
async def test_a_replica_whose_reader_is_behind_answers_with_the_newest_change(bus):
    """It waits for its reader to be where the log ended as it was asked."""
    call = ServerCallContext()
    async with KafkaTaskStore("behind", bus) as first, KafkaTaskStore("behind", bus) as second:
        new = {"event": None, "prev": None, "context": call}
        version = await first.save(task_of("t"), prev_version=TaskVersion.MISSING, **new)
        await second.get("t", call)
        await hold_back(second.log, 0.5)
        await first.save(task_of("t", COMPLETED), prev_version=version, **new)
        assert COMPLETED == (await second.get("t", call)).task.status.state


@pytest.mark.broker
async def test_a_stream_whose_reader_is_slow_leaves_no_event_out(bus):
    """What happens while it looks at the task comes behind it."""
    call = ServerCallContext()
    async with KafkaTaskStore("slow", bus) as store:
        stream = KafkaTaskEventStream(store)
        version = await store.save(
            task_of("t"), event=None, prev=None, prev_version=TaskVersion.MISSING, context=call
        )
        async with aclosing(stream.subscribe("t", after=TaskVersion.MISSING)) as events:
            shown = [await anext(events)]
            for state in (WORKING, WORKING, COMPLETED):
                version = await store.save(
                    task_of("t", state), event=event("t", state), prev=None,
                    prev_version=version, context=call,
                )  # fmt: skip
            shown += [later async for later in events]
        await stream.aclose()
        assert [1, 2, 3, 4] == [each.version.number for each in shown]


class Opened(Clerk):
    """A clerk that says first which task it is, as the SDK wants it."""

    async def execute(self, context, event_queue):
        task = Task(id=context.task_id, context_id=context.context_id)
        task.status.state = WORKING
        await event_queue.enqueue_event(task)
        await super().execute(context, event_queue)


def server(store, agent):
    stream = KafkaTaskEventStream(store)
    return stream, DefaultRequestHandler(agent, store, CARD, event_stream=stream)


def asked(name, text):
    message = Message(message_id=name, role=Role.ROLE_USER, parts=[Part(text=text)])
    request = SendMessageRequest(message=message)
    request.configuration.return_immediately = True
    return request


@pytest.mark.broker
async def test_a_task_of_one_replica_is_read_followed_and_cancelled_at_another(bus):
    """Its stream there has what was and what comes, each once, up to its end."""
    call = ServerCallContext()
    clerk = Opened()
    async with KafkaTaskStore("served", bus) as first, KafkaTaskStore("served", bus) as second:
        here, one = server(first, clerk)
        there, other = server(second, Opened())
        task = await one.on_message_send(asked("m1", "chunks"), call)

        async def chunks():
            standing = await other.on_get_task(GetTaskRequest(id=task.id), call)
            return len(standing.artifacts) == 3

        async with asyncio.timeout(60):
            while not await chunks():
                await asyncio.sleep(0.02)
        events = other.on_subscribe_to_task(SubscribeToTaskRequest(id=task.id), call)
        async with aclosing(events):
            begins = await anext(events)
            assert 3 == len(begins.artifacts)
            clerk.go.set()
            later = [event async for event in events]
        assert COMPLETED == later[-1].status.state

        clerk.go.clear()
        waiting = await one.on_message_send(asked("m2", "wait"), call)
        ended = await other.on_cancel_task(CancelTaskRequest(id=waiting.id), call)
        assert CANCELED == ended.status.state
        again = await one.on_get_task(GetTaskRequest(id=waiting.id), call)
        assert CANCELED == again.status.state
        for handler in (one, other):
            await handler.aclose()
        await here.aclose()
        await there.aclose()
