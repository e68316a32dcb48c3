"""What a reply becomes: pure, and never an exception, whatever an engine says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.proxy.dialects import chat
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.wire.merge import merge
from odradek.proxy.wire.reply import StreamCapture, whole
from odradek.proxy.wire.version_spans import joined
from odradek.schemas import codec
from odradek.schemas.events import Reply, Turn, VersionSpan
from odradek.schemas.http.reply import WeightVersions

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ENGINE = {
    "id": st.text(max_size=3), "choices": st.lists(JSON, max_size=2) | JSON, "usage": JSON,
    "prompt_token_ids": st.lists(st.integers(-5, 2**33)) | JSON,
}  # fmt: skip


@settings(deadline=None)
@given(st.binary(max_size=100) | st.fixed_dictionaries({}, optional=ENGINE).map(json.dumps))
def test_any_reply_is_captured_or_named_an_error(reply):
    """The engine cannot make the proxy fail."""
    data = reply if isinstance(reply, bytes) else reply.encode()
    found = whole(data)[0]
    streamed = StreamCapture()
    streamed.feed(data)
    assert found.error or found.reply.message is not None
    assert streamed.captured() is not None


CHOICE = st.fixed_dictionaries(
    {"index": st.just(0), "message": JSON},
    optional={
        "logprobs": JSON, "token_ids": JSON, "weight_versions": JSON, "finish_reason": JSON,
        "other": JSON,
    },
)  # fmt: skip
REPLY = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=3)},
    optional={"prompt_token_ids": JSON, "usage": JSON, "id": JSON},
)
FLAGS = ("logprobs", "return_token_ids", "return_weight_versions")


@settings(max_examples=60, deadline=None)
@given(REPLY, st.fixed_dictionaries({}, optional={flag: st.booleans() for flag in FLAGS}))
def test_a_trimmed_reply_equals_the_reply_without_the_injected_fields(reply, asked):
    """Field by field: null where vLLM writes null, gone where it writes nothing, else untouched."""
    body = json.dumps({"messages": [], **asked}).encode()
    trimmed = json.loads(
        chat.trim(json.dumps(reply).encode(), chat.CHAT.parse(body, RequestRules()))
    )
    expected = json.loads(json.dumps(reply))
    if "prompt_token_ids" in expected and not asked.get("return_token_ids"):
        expected["prompt_token_ids"] = None
    for choice in expected["choices"]:
        if "logprobs" in choice and not asked.get("logprobs"):
            choice["logprobs"] = None
        if "token_ids" in choice and not asked.get("return_token_ids"):
            choice["token_ids"] = None
        if not asked.get("return_weight_versions"):
            choice.pop("weight_versions", None)
    assert expected == trimmed
    assert list(expected) == list(trimmed)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([{"version": 3, "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 2}],
         (VersionSpan(3, 0, 1), VersionSpan(4, 1, 2))),
        ([{"version": "default", "start": 0, "end": 2}], (VersionSpan(0, 0, 2),)),
        ([{"version": "v8", "start": 0, "end": 1}, {"version": "4", "start": 1, "end": 2}],
         (VersionSpan(0, 0, 1), VersionSpan(4, 1, 2))),
        ([{"version": "-1", "start": 0, "end": 2}], (VersionSpan(0, 0, 2),)),
        ([{"version": -1, "start": 0, "end": 2}], ()),
        ([{"version": None, "start": 0, "end": 2}], ()),
        ([{"version": 2**53, "start": 0, "end": 2}], ()),
        ([{"version": str(2**53), "start": 0, "end": 2}], ()),
        ([{"version": "9" * 5000, "start": 0, "end": 2}], (VersionSpan(0, 0, 2),)),
        ([{"version": 3, "start": 0, "end": 9}], ()),
        ([{"version": 3, "start": 1, "end": 2}, {"version": 3, "start": 0, "end": 1}], ()),
        (None, ()),
    ],
)  # fmt: skip
def test_version_spans_are_taken_only_if_they_make_sense(spans, expected):
    """Whole numbers, in order, within the sampled tokens; else the version is inferred.

    A name that our trainer never gives is that of weights which are older than all of ours.
    """
    choice = {
        "index": 0, "message": {}, "token_ids": [1, 2],
        "logprobs": {"content": [{"logprob": -1}] * 2}, "weight_versions": spans,
    }  # fmt: skip
    (found,) = whole(json.dumps({"choices": [choice], "prompt_token_ids": [5]}).encode())
    assert expected == found.versions
    assert not found.untrainable


def reply(**more):
    """An engine's whole reply of two tokens that may be trained on, but for what differs."""
    choice = {
        "index": 0, "message": {}, "finish_reason": "stop", "token_ids": [1, 2],
        "logprobs": {"content": [{"logprob": -1}] * 2},
    }  # fmt: skip
    outer = {
        name: more.pop(name) for name in ("prompt_token_ids", "usage", "error") if name in more
    }
    return json.dumps({"choices": [{**choice, **more}], "prompt_token_ids": [5], **outer}).encode()


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ({}, ""),
        ({"token_ids": None}, "no_token_ids"),
        ({"prompt_token_ids": None}, "no_token_ids"),
        ({"token_ids": [1, -2]}, "bad_tokens"),
        ({"token_ids": [1, 2**32]}, "bad_tokens"),
        ({"prompt_token_ids": [2**40]}, "bad_tokens"),
        ({"logprobs": None}, "no_logprobs"),
        ({"logprobs": {"content": [{"logprob": -1}]}}, "length_mismatch"),
        ({"usage": {"completion_tokens": 3}}, "length_mismatch"),
        ({"usage": {"completion_tokens": 1}}, "length_mismatch"),
        ({"usage": {"completion_tokens": 0}}, "length_mismatch"),
        ({"usage": {"completion_tokens": None}}, ""),
        ({"usage": {"completion_tokens": 2}}, ""),
    ],
)
def test_what_does_not_add_up_is_named_and_not_trained(differs, expected):
    """Ids, log probabilities and the engine's own count have to agree."""
    (found,) = whole(reply(**differs))
    assert expected == found.untrainable
    assert not found.error


def test_log_probabilities_that_are_no_numbers_are_not_taken():
    """One that overflows on its way into the log would spoil the whole sum."""
    for bad in (1e39, -1e39):
        (found,) = whole(reply(logprobs={"content": [{"logprob": -1}, {"logprob": bad}]}))
        assert ("length_mismatch", b"") == (found.untrainable, found.completion.logprobs)
        assert 8 == len(found.completion.ids)


@pytest.mark.parametrize(
    ("finish", "stopped", "expected"),
    [
        ("stop", None, True),
        ("stop", 7, True),
        ("tool_calls", None, True),
        ("stop", "STOP", False),
        ("length", None, False),
    ],
)
def test_a_reply_is_closed_by_an_end_token_only(finish, stopped, expected):
    """A limit or a stop string ends it in the middle of what the template would write."""
    (found,) = whole(reply(finish_reason=finish, stop_reason=stopped))
    assert expected is found.closed


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"choices":[{"message":%s1%s}]}' % (b"[" * 61, b"]" * 61), "cannot be read"),
        (b'{"choices":[{"message":{"a":"\xc5z"}}]}', "cannot be read"),
        (b'{"choices":[],"error":{"message":"out of memory"}}', "out of memory"),
        (b'{"choices":[],"error":{"message":"%s"}}' % (b"x" * 9999), "x" * 500),
        (b'{"choices":[],"error":"plain"}', "plain"),
        (b'{"choices":[],"error":{}}', "the engine's reply is empty"),
        (b'{"choices":[]}', "the engine's reply is empty"),
    ],
)
def test_a_reply_that_is_none_says_why_in_one_line(body, expected):
    """What no reader of the log would take is an error, too."""
    (found,) = whole(body)
    assert expected in found.error
    assert 600 > len(found.error)


def test_a_choice_beyond_reason_is_the_first():
    """Its number stands in the log, where it has its bounds."""
    assert [0, 0, 3] == [whole(reply(index=index))[0].choice for index in (-1, 2**16, 3)]


def test_no_choice_has_fewer_than_no_tokens():
    """Where the engine counts fewer than it sent, the first has none."""
    choices = [{"index": n, "message": {}, "token_ids": [1, 2]} for n in range(2)]
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    body = {"choices": choices, "prompt_token_ids": [5], "usage": usage}
    found = whole(json.dumps(body).encode())
    assert [0, 2] == [one.usage.completion_tokens for one in found]


def streamed(*chunks):
    found = StreamCapture()
    told = [found.feed(json.dumps(chunk).encode()) for chunk in chunks]
    return found, told


def test_a_stream_keeps_what_only_some_of_its_chunks_say():
    """Name, usage, prompt, and why it ended, whatever order they come in."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    found, told = streamed(
        {"id": "a", "prompt_token_ids": [1], "choices": [{"delta": {"content": "x"}}]},
        {"choices": [{"delta": {}, "token_ids": [2], "finish_reason": "stop", "stop_reason": "S"}]},
        {"usage": usage, "choices": []},
        {"prompt_token_ids": [7, 7], "choices": [{"delta": {}}]},
    )
    (one,) = found.captured()
    assert [False, True, False, False] == told
    assert found.ended
    assert ("a", "stop", False) == (one.id, one.reply.finish_reason, one.closed)
    assert (1, 4) == (one.usage.prompt_tokens, len(one.prompt))


def test_a_stream_has_ended_when_each_of_its_choices_has():
    """One that never began has not; any of its ends may look like the last to a client."""
    ends = {"index": 1, "delta": {}, "finish_reason": "stop"}
    goes_on = {"index": 0, "delta": {"content": "x"}}
    assert not streamed()[0].ended
    found, told = streamed({"choices": [ends, goes_on]})
    assert ([True], False) == (told, found.ended)
    found.feed(json.dumps({"choices": [{**ends, "index": 0}]}).encode())
    assert found.ended
    assert [0, 1] == [one.choice for one in found.captured()]


@pytest.mark.parametrize("bad", [{"error": {"message": "broke"}}, {"choices": 3}])
def test_an_error_in_a_stream_is_an_end_that_waits(bad):
    """A client may stop reading at it, so the log has it first."""
    found, told = streamed({"choices": [{"delta": {"content": "x"}}]}, bad)
    assert [False, True] == told
    assert found.bad == found.error == found.captured()[0].error != ""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([(4, 2, 3)], [(4, 0, 3)]),
        ([(5, 2, 3)], [(4, 0, 2), (5, 2, 3)]),
        ([(4, 3, 4)], [(4, 0, 2), (4, 3, 4)]),
        ([(4, 0, 3)], [(4, 0, 3)]),
    ],
)
def test_spans_of_a_chunk_go_on_from_those_before(more, expected):
    """Only where they touch; what begins again at the start stands in their place."""
    found = joined([WeightVersions(4, 0, 2)], [WeightVersions(*one) for one in more])
    assert expected == [(one.version, one.start, one.end) for one in found]


def chunk(ids, spans, finish=None):
    choice = {
        "index": 0, "delta": {}, "token_ids": ids, "finish_reason": finish,
        "logprobs": {"content": [{"logprob": -1}] * len(ids)},
        "weight_versions": [{"version": v, "start": a, "end": b} for v, a, b in spans],
    }  # fmt: skip
    return json.dumps({"choices": [choice], "prompt_token_ids": [1]}).encode()


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk([1], []), chunk([2, 3], [(4, 0, 2), (5, 2, 3)], "stop")],
        [chunk([1], [(4, 0, 1)]), chunk([2], [(4, 1, 2)]), chunk([3], [(5, 2, 3)], "stop")],
        [chunk([1], [(4, 0, 1)]), chunk([2, 3], [(4, 0, 2), (5, 2, 3)], "stop")],
    ],
)
def test_version_spans_of_a_stream_come_at_its_end_or_with_each_chunk(chunks):
    """At the end vLLM tells all of them; the small engine those of each token."""
    streamed = StreamCapture()
    for data in chunks:
        streamed.feed(data)
    assert (VersionSpan(4, 0, 2), VersionSpan(5, 2, 3)) == streamed.captured()[0].versions


def test_counts_beyond_reason_are_kept_within_it():
    """Readers of the log take no whole number that a double cannot hold."""
    usage = {"prompt_tokens": -1, "completion_tokens": 2**60, "prompt_tokens_details": None}
    choice = {"message": {}, "token_ids": [1], "weight_versions": [
        {"version": 2**60, "start": 0, "end": 1}]}  # fmt: skip
    body = {"choices": [choice], "prompt_token_ids": [1], "usage": usage}
    (found,) = whole(json.dumps(body).encode())
    assert (0, 2**53 - 1, ()) == (
        found.usage.prompt_tokens, found.usage.completion_tokens, found.versions,
    )  # fmt: skip


def test_bytes_that_are_no_text_are_an_error_of_the_stream():
    """Also in a field that is not read: what is copied unread would break its reader."""
    streamed = StreamCapture()
    assert streamed.feed(b'{"choices": [{"delta": {}, "x": "\xc5z"}]}')
    assert "no UTF-8" in streamed.captured()[0].error


def test_tool_calls_of_a_stream_become_whole_ones():
    """Arguments come in pieces, by index."""
    message = {}
    for delta in (
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ):
        merge(message, delta)
    first = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    second = {"id": "b", "function": {"name": "g", "arguments": "{}"}}
    expected = {"role": "assistant", "content": None, "tool_calls": [first, second]}
    assert expected == message


@pytest.mark.parametrize("depth", [50, 55, 60, 200, 5000])
def test_a_chunk_nests_no_deeper_than_a_turn_may(depth):
    """What is too deep is an error of the stream; what is taken, readers of the log take, too."""
    inner = "[" * depth + "]" * depth
    streamed = StreamCapture()
    ended = streamed.feed(b'{"choices": [{"delta": {"content": "a", "x": %s}}]}' % inner.encode())
    (found,) = streamed.captured()
    assert (depth > 55) is ended is bool(found.error)
    turn = Turn(
        episode_id="e", turn_id="t", writer="w", seq=0, reply=Reply(message=found.reply.message)
    )
    assert turn.seq == codec.decode(codec.encode(turn), Turn).seq
