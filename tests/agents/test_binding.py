"""A2A on Kafka: what is written can be read, and what cannot be meant is refused."""

import pytest
from a2a.types import SendMessageRequest, Task, TaskState, TaskStatus, TaskStatusUpdateEvent
from a2a.utils.errors import TaskNotCancelableError
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from odradek.agents.binding import EXTENSION, headers, requests, responses
from odradek.agents.errors import BadRequestBody, BadRequestHeader
from odradek.infra.bus import Record
from odradek.schemas import ids
from odradek.schemas.events import Timeouts, raw

SAMPLE = requests.SampleAddress(
    task_id="t",
    sample=2,
    group_size=8,
    max_attempts=2,
    purpose="eval",
    item="i",
    rewards={"game": 1.0},
    failure_reward=-1.0,
    timeouts=Timeouts(attempt_s=5.0),
    sampling={"temperature": 0},
    model="m",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def record(value, pairs=()):
    return Record("a2a.requests.x", 0, 0, "k", value, tuple(pairs))


@given(json_values)
def test_a_send_is_read_as_it_was_written(value):
    """Input, sample and ids survive; numbers beyond 2**53 keep their value."""
    sent = requests.send_value("m1", raw(value), SAMPLE, "c1")
    found = requests.send(record(sent))
    assert ("m1", SAMPLE, "c1", "") == (
        found.message_id,
        found.sample,
        found.context_id,
        found.task_id,
    )
    assert bytes(raw(value)) == bytes(found.input)


def test_the_sdk_reads_what_we_write():
    """Our JSON is ProtoJSON of A2A's SendMessageRequest."""
    sent = requests.send_value("m1", Raw(b'{"secret": 3}'), SAMPLE, "c1")
    found = Parse(sent, SendMessageRequest())
    assert found.message.message_id == "m1"
    assert found.message.parts[0].data.struct_value["secret"] == 3
    assert found.message.metadata[EXTENSION]["task_id"] == "t"
    assert found.configuration.return_immediately
    assert requests.send(record(requests.dump(found))).sample == SAMPLE


def test_any_a2a_client_may_send_plain_text():
    """A message without the extension belongs to no task."""
    value = b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]}}'
    found = requests.send(record(value))
    assert (found.sample, bytes(found.input)) == (None, b'"hi"')


@pytest.mark.parametrize(
    ("given", "wanted"), [("0", 0), ("2.0", 2), ('"3"', 3), ("-1", -1), ("null", None)]
)
def test_how_much_history_a_client_wants_is_read_as_protojson_has_it(given, wanted):
    """What no int32 holds is refused: nothing later could take it."""
    body = '{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"hi"}]},'
    for name in ("historyLength", "history_length"):
        value = f'{body}"configuration":{{"{name}":{given}}}}}'.encode()
        assert wanted == requests.send(record(value)).history_length
        for wrong in ("2147483648", "-2147483649", "1.5", "[]"):
            value = f'{body}"configuration":{{"{name}":{wrong}}}}}'.encode()
            with pytest.raises(BadRequestBody):
                requests.send(record(value))


def test_a_cancel_is_read_as_it_was_written():
    """CancelTask names its task."""
    assert "t1" == requests.parse(record(requests.cancel_value("t1")), "CancelTask").id
    with pytest.raises(BadRequestBody):
        requests.parse(record(b"{}"), "CancelTask")


def test_headers_are_read_as_they_were_written():
    """All service parameters survive, the deadline to the microsecond."""
    called = headers.RequestHeaders(
        operation="SendMessage",
        extensions=(EXTENSION,),
        correlation_id="c",
        reply_topic="a2a.replies.x",
        reply_partition=7,
        deadline=1_700_000_000.25,
        tenant="me",
        traceparent="00-1-2-01",
    )
    assert called == headers.read(headers.write(called))
    assert not called.expired(1_700_000_000.0)
    assert called.expired(1_700_000_000.25)


@pytest.mark.parametrize(
    "name", ["a2a-operation", "A2A-Operation", "a2a-reply-topic", "content-type", "traceparent"]
)
def test_a_doubled_reserved_header_is_refused(name):
    """Whoever reads the first must not understand another request than who reads the last."""
    good = [("a2a-operation", b"SendMessage"), ("a2a-version", b"1.0"), ("x", b"1"), ("x", b"2")]
    assert "SendMessage" == headers.read(good).operation
    with pytest.raises(BadRequestHeader, match="twice"):
        headers.read([*good, (name, b"CancelTask"), (name.lower(), b"CancelTask")])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a2a-deadline", b"tomorrow"),
        ("a2a-deadline", b"2026-01-01T00:00:00"),
        ("a2a-reply-partition", b"-1"),
        ("a2a-reply-partition", b"\xff"),
    ],
)
def test_headers_that_make_no_sense_are_refused(name, value):
    """Times need a zone, partitions are numbers, text is UTF-8."""
    with pytest.raises(BadRequestHeader):
        headers.read([("a2a-operation", b"S"), ("a2a-version", b"1.0"), (name, value)])


@given(st.uuids(), st.integers(1, 3), st.integers(1, 16), st.data())
def test_task_ids_stay_on_their_requests_partition(message, attempt, partitions, data):
    """Follow-ups are keyed by the task id and reach the same owner; a repeat makes the same id."""
    partition = data.draw(st.integers(0, partitions - 1))
    make = lambda: ids.episode_id(  # noqa: E731
        str(message), attempt, partition=partition, partitions=partitions
    )
    assert partition == ids.partition_for(make(), partitions)
    assert make() == make()


def test_an_event_is_a_cloud_event_and_a_stream_response():
    """Subscribers need no schema of ours to read one."""
    event = TaskStatusUpdateEvent(
        task_id="t1", context_id="c", status=TaskStatus(state=TaskState.TASK_STATE_FAILED)
    )
    found = responses.read_stream(responses.stream_value(event))
    assert found.status_update == event
    told = dict(
        responses.event_headers(
            event, task_id="t1", generation=4, source="/agents/x", traceparent="00-a-b-01"
        )
    )
    assert (b"1", b"4", b"TASK_STATE_FAILED") == (
        told["a2a-end"],
        told["a2a-generation"],
        told["a2a-state"],
    )
    assert (b"t1", b"1.0", b"t1/4/status_update", b"00-a-b-01") == (
        told["ce_subject"],
        told["ce_specversion"],
        told["ce_id"],
        told["traceparent"],
    )


def test_a_snapshot_tells_its_successor_what_it_needs():
    """Headers alone say whether a task is over, which attempt it was, and what follows."""
    mark = responses.SnapshotHeaders(
        task_id="t1",
        message_id="m1",
        attempt=2,
        offset=9,
        generation=3,
        state=TaskState.TASK_STATE_FAILED,
        retry=True,
        outcome="failed",
        children=("c1", "c2"),
    )
    assert mark == responses.read_mark(responses.snapshot_headers(mark))
    assert mark.terminal
    task = Task(id="t1", status=TaskStatus(state=TaskState.TASK_STATE_WORKING))
    assert task == responses.read_snapshot(responses.snapshot_value(task))


def test_errors_are_the_http_json_error_object():
    """An error names its A2A reason, as over HTTP."""
    status, value = responses.error(TaskNotCancelableError())
    assert 400 == status
    assert b"TASK_NOT_CANCELABLE" in value
