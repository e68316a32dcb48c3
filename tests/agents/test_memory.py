"""What a host keeps in memory of tasks that are over is bounded; of those that are not, nothing goes."""

import pytest
from a2a.types import TaskState

from odradek.agents.binding.responses import SnapshotHeaders
from odradek.agents.host.tasks.index import TaskIndex

DONE = TaskState.TASK_STATE_COMPLETED


@pytest.fixture(autouse=True)
def _room_for(request, monkeypatch):
    """Keep as few as a test says."""
    monkeypatch.setattr(TaskIndex, "keep", request.param)


def mark(n, *, attempt=1, state=DONE, **more):
    return SnapshotHeaders(
        task_id=f"t{n}-{attempt}",
        message_id=f"m{n}",
        attempt=attempt,
        offset=n,
        state=state,
        **more,
    )


def keeping(n):
    return pytest.mark.parametrize("_room_for", [n], indirect=True, ids=[""])


@keeping(2)
def test_the_oldest_that_ended_goes_first():
    """Of those whose requests are behind the committed offset, the last ones are kept."""
    memory = TaskIndex()
    memory.settle(10)
    for n in range(5):
        memory.put(mark(n))
    assert [None, None, None, 3, 4] == [
        found and found.offset for found in (memory.of_message(f"m{n}") for n in range(5))
    ]
    assert 2 == len(memory)


@keeping(1)
def test_a_task_that_is_not_over_never_goes():
    """However many end after it."""
    memory = TaskIndex()
    memory.settle(100)
    memory.put(mark(0, state=TaskState.TASK_STATE_WORKING), b"{}")
    for n in range(1, 50):
        memory.put(mark(n))
    assert (mark(0, state=TaskState.TASK_STATE_WORKING),) == memory.unfinished()
    assert b"{}" == memory.value("t0-1")
    assert 2 == len(memory)


@keeping(1)
def test_what_may_come_again_is_known_until_its_offset_is_committed():
    """A request at or beyond the low-water mark is read again by the next owner."""
    memory = TaskIndex()
    for n in range(20):
        memory.put(mark(n))
    assert 20 == len(memory)
    memory.settle(15)
    assert [15, 16, 17, 18, 19] == [n for n in range(20) if memory.of_message(f"m{n}") is not None]
    memory.settle(20)
    assert [19] == [n for n in range(20) if memory.of_message(f"m{n}") is not None]


@keeping(1)
def test_an_attempt_that_goes_takes_no_later_one_with_it():
    """The message stays known by the attempt that followed."""
    memory = TaskIndex()
    memory.settle(10)
    memory.put(mark(0, retry=True))
    memory.put(mark(0, attempt=2, state=TaskState.TASK_STATE_WORKING), b"{}")
    for n in range(1, 5):
        memory.put(mark(n))
    assert memory.of_task("t0-1") is None
    assert 2 == memory.of_message("m0").attempt


@keeping(2)
async def test_a_host_forgets_what_it_committed(stage):
    """With room for two, one partition's memory holds two when seven are over, and after a restart."""

    async def play(rollout):
        pass

    host = await stage.host(play)
    messages = stage.named(0, 7)
    for message in messages:
        await stage.send(message)
    await stage.ended(*messages)
    await stage.until(lambda: len(host._owned[0].memory) == 2)
    await stage.stop(host)
    assert 2 == len((await stage.host(play))._owned[0].memory)
