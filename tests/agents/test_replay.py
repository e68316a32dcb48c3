"""A task is its last snapshot and the events behind it, wherever its host was killed."""

import asyncio

import msgspec
from a2a.server.cluster.event_stream import VersionedEvent
from a2a.server.context import ServerCallContext
from a2a.server.tasks.task_manager import TaskManager
from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.agents.attempt.attempt import Attempt
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.binding.headers import RequestHeaders
from odradek.agents.binding.requests import SampleAddress, Send
from odradek.agents.binding.responses import read_event, read_mark, read_stream
from odradek.agents.host.tasks.replay import LeftTask, apply
from odradek.infra.bus import OutgoingRecord

STATES = [TaskState.TASK_STATE_WORKING, TaskState.TASK_STATE_INPUT_REQUIRED]
RECORD = OutgoingRecord(topic="", key=None, value=b"")
ANYBODY = ServerCallContext()
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("status"), st.sampled_from(STATES), st.text(max_size=3)),
        st.tuples(st.just("chunk"), st.sampled_from("ab"), st.booleans()),
        st.tuples(st.just("message"), st.just(""), st.just("")),
    ),
    max_size=12,
)


class Log:
    """What was written, a transaction or a single record at a time."""

    def __init__(self):
        self.writes = []

    async def write(self, *records):
        self.writes.append(records)

    async def append(self, topic, **fields):
        self.writes.append((msgspec.structs.replace(RECORD, topic=topic, **fields),))


def event_of(change, seen):
    kind, what, more = change
    if kind == "status":
        status = TaskStatus(state=what)
        if more:
            status.message.CopyFrom(Message(message_id=more, role=Role.ROLE_AGENT))
        return TaskStatusUpdateEvent(task_id="t", context_id="c", status=status)
    artifact = Artifact(artifact_id=what, parts=[Part(text=str(len(seen)))])
    append = more and what in seen
    seen.append(what)
    return TaskArtifactUpdateEvent(task_id="t", context_id="c", artifact=artifact, append=append)


async def record(changes):
    """What a host writes as its agent makes changes: through the SDK's own task manager."""
    log = Log()
    store = HostTaskStore(log, "agent", source="/a", fail=lambda *_: None)
    send = Send(message_id="m", sample=None, input=msgspec.Raw(b"0"), input_value=0, value=b"")
    run = Attempt(
        send=send, called=RequestHeaders(operation="SendMessage"),
        sample=SampleAddress(task_id="m"), partition=0, offset=0, episode_id="t", context_id="c",
        attempt=1, max_attempts=1, writer=log,
    )  # fmt: skip
    asked = Message(message_id="m", role=Role.ROLE_USER, parts=[Part(text="do")])
    task = Task(id="t", context_id="c", status=TaskStatus(state=STATES[0]), history=[asked])
    await log.write(*store.open(run, task))
    manager = TaskManager(store, ANYBODY, "t", "c", asked)
    seen = []
    for number, change in enumerate(changes):
        if change[0] == "message":
            said = Message(message_id=f"m{number}", role=Role.ROLE_USER)
            current = manager.update_with_message(said, await manager.get_task())
            await manager.save_task_event(current)
            change = ("status", STATES[0], "")  # the host says that its agent works again
        event = event_of(change, seen)
        await manager.process(event)
        await store.publish("t", VersionedEvent(event=event, version=manager.current_version))
    return log.writes


def left_by(writes):
    """What a successor makes of a log."""
    records = [record for write in writes for record in write]
    snapshots = [r for r in records if r.topic.startswith("a2a.tasks")]
    left = LeftTask(read_mark(snapshots[-1].headers), snapshots[-1].value, 0.0)
    for record_ in records:
        if record_.topic.startswith("a2a.events"):
            left.take(read_event(record_.headers).generation, record_.value)
    return left


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_a_successor_finds_what_subscribers_saw_wherever_its_predecessor_died(changes):
    """Artifacts, state and question are those of the events; generations run without a gap."""
    writes = asyncio.run(record(changes))
    for end in range(1, len(writes) + 1):
        events = [r for w in writes[:end] for r in w if r.topic.startswith("a2a.events")]
        shown = Task()
        for event in events:
            apply(shown, read_stream(event.value))
        left = left_by(writes[:end])
        standing = left.standing()
        assert (shown.artifacts, shown.status) == (standing.artifacts, standing.status)
        numbers = [read_event(event.headers).generation for event in events]
        assert list(range(1, len(events) + 1)) == numbers
        assert (numbers[-1], shown.status.state) == (left.mark.generation, left.mark.state)
