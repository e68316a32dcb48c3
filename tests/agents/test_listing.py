"""Lists of tasks: pages as the SDK's own store cuts them, and memory for a page alone."""

import asyncio
import tracemalloc

import pytest
from a2a.server.context import ServerCallContext
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import Artifact, ListTasksRequest, Part, Task, TaskStatus
from a2a.utils.errors import InvalidParamsError
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.agents.binding.responses import snapshot_value
from odradek.agents.host.tasks.listing import TaskList
from odradek.infra.bus import BusSettings, Record

BUS = BusSettings(bootstrap_servers="127.0.0.1:1")
TASKS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("cd"), st.integers(0, 8), st.integers(-1, 3)),
    max_size=12,
)
ASKED = st.builds(
    lambda context, state, size, after: (context, state, size, after),
    st.sampled_from(["", "c"]), st.integers(0, 4), st.integers(1, 4), st.integers(-1, 3),
)  # fmt: skip


def record(value, key, *, owner=b""):
    headers = (("a2a-principal", owner),) if owner else ()
    return Record(
        topic="a2a.tasks.a", partition=0, offset=0, key=key, value=value, headers=headers,
        timestamp=0.0,
    )  # fmt: skip


def task_of(number, context, state, second):
    status = TaskStatus(state=state)
    if second >= 0:
        status.timestamp.FromSeconds(second)
        status.timestamp.nanos = 5
    return Task(id=f"t{number}", context_id=context, status=status)


def request_of(context, state, size, after, token=""):
    request = ListTasksRequest(context_id=context, status=state, page_size=size, page_token=token)
    if after >= 0:
        request.status_timestamp_after.FromSeconds(after)
    return request


@settings(max_examples=30, deadline=None)
@given(TASKS, ASKED)
def test_pages_are_those_of_the_sdks_own_store(tasks, asked):
    """Whatever is asked for: the same tasks in the same order, the same totals and tokens."""
    listing, store = TaskList(BUS, "a2a.tasks.a"), InMemoryTaskStore()
    for fields in tasks:
        task = task_of(*fields)
        listing.take(record(snapshot_value(task), task.id))
        asyncio.run(store.save(task, ServerCallContext()))
    token = ""
    for _ in range(13):
        request = request_of(*asked, token)
        page = listing.select(request, "")
        assert asyncio.run(store.list(request, ServerCallContext())) == page
        token = page.next_page_token
        if not token:
            break
    assert 0 == listing.select(request_of(*asked), "somebody else").total_size


def test_a_list_of_large_tasks_takes_memory_for_a_page_only():
    """30 MB of tasks are read and listed within 10 MB, a page of 5 MB among them."""
    listing = TaskList(BUS, "a2a.tasks.a")
    task = task_of(0, "c", 3, 1)
    task.artifacts.append(Artifact(artifact_id="a", parts=[Part(text="x" * 50_000)]))
    value = snapshot_value(task)
    tracemalloc.start()
    for number in range(1000, 1600):
        listing.take(record(value.replace(b'"t0"', b'"t%d"' % number), f"t{number}"))
    page = listing.select(ListTasksRequest(page_size=100), "")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (600, 100, "t1599") == (page.total_size, len(page.tasks), page.tasks[0].id)
    assert [] == list(page.tasks[0].artifacts)
    assert peak < 10e6
    listing.take(record(None, "t1599"))
    assert 599 == listing.select(ListTasksRequest(), "").total_size
    listing.take(record(b"no task", "t1"))
    with pytest.raises(InvalidParamsError):
        listing.select(ListTasksRequest(page_token="t1"), "")
