"""The benchmark of A2A counts what is lost, doubled and out of order, and its figures have keys."""

import pytest
from a2a.types import Message, Part, Task, TaskState, TaskStatus, TaskStatusUpdateEvent

from odradek.agents.binding.responses import event_headers, stream_value
from odradek.infra.app.bench.messages.backlog import MARK, counted
from odradek.infra.app.bench.messages.subscribers import HELD_BACK, Arrivals
from odradek.infra.bus import Record


def record(task_id, event, generation):
    """An event of a task as the log has it."""
    headers = event_headers(
        event, task_id=task_id, generation=generation, source="/agents/bench", traceparent=None
    )
    return Record("a2a.events.bench", 0, generation, task_id, stream_value(event), headers)


def begins(task_id, number, context="c"):
    """The event with which the task of a numbered message begins."""
    message = Message(message_id=f"{MARK}{number}", parts=[Part(text=str(number))])
    status = TaskStatus(state=TaskState.TASK_STATE_WORKING)
    return record(
        task_id, Task(id=task_id, context_id=context, status=status, history=[message]), 1
    )


def ends(task_id):
    """The event with which it ends."""
    status = TaskStatus(state=TaskState.TASK_STATE_COMPLETED)
    return record(task_id, TaskStatusUpdateEvent(task_id=task_id, status=status), 2)


@pytest.mark.parametrize(
    ("events", "once", "out_of_order"),
    [
        ([begins("a", 0), ends("a"), begins("b", 1), ends("b")], 2, 0),
        ([begins("a", 0), ends("a"), begins("b", 1)], 1, 0),
        ([begins("a", 0), ends("a"), begins("b", 1), ends("b"), ends("b")], 1, 0),
        ([begins("a", 0), ends("a"), begins("b", 0), ends("b"), begins("c", 1), ends("c")], 1, 0),
        ([begins("b", 1), begins("a", 0), ends("a"), ends("b")], 2, 1),
        ([begins("b", 1, "other"), begins("a", 0), ends("a"), ends("b")], 2, 0),
    ],
    ids=["all", "one goes on", "ends twice", "begins twice", "out of order", "of two contexts"],
)
def test_a_message_is_done_once_if_its_task_begins_and_ends_once(events, once, out_of_order):
    """Order counts within a context only."""
    assert {"done_once": once, "out_of_order": out_of_order} == counted(events, 2)


@pytest.mark.parametrize(
    ("heard", "gaps", "duplicates"),
    [
        ((0, 1, 2, 3), 0, 0),
        ((2, 3), 0, 0),
        ((0, 1, 3), 1, 0),
        ((0, 1, 2), 1, 0),
        ((0, 1, 1, 2, 3), 0, 1),
    ],
    ids=["all", "came late", "one missing", "the last missing", "one twice"],
)
def test_a_subscriber_hears_all_chunks_from_its_first_to_the_end(heard, gaps, duplicates):
    """What came before it subscribed is not missing."""
    arrivals = Arrivals(1)
    for number in heard:
        arrivals.take(0, HELD_BACK + number, 0.0)
    figures = arrivals.figures(HELD_BACK + 4)
    assert (gaps, duplicates) == (figures["gaps"], figures["duplicates"])
