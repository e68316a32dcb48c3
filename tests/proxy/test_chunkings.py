"""Streams do not depend on how their bytes were cut: the relay, over every dialect."""

import itertools
import json
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.proxy.calls.stream import StreamRelay
from odradek.proxy.dialects import DIALECTS
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.errors import EngineBroke
from odradek.schemas.events import parsed
from tests.support.engines.stub_engine import StubEngine, tool_call

from .conftest import prompt_ids

HI = [{"role": "user", "content": "né"}]
BODIES = {
    "/chat/completions": {"messages": HI},
    "/completions": {"prompt": "né"},
    "/messages": {"messages": HI, "max_tokens": 9, "thinking": {"type": "enabled"}},
    "/responses": {"input": "né"},
}
WORDS = st.text(min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(st.dictionaries(WORDS, JSON, max_size=2).map(json.dumps), max_size=2).map(
    lambda found: [tool_call("look", text, f"call-{n}") for n, text in enumerate(found)]
)
SAID = st.fixed_dictionaries(
    {"content": WORDS}, optional={"reasoning": WORDS, "tool_calls": CALLS.filter(bool)}
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
BETWEEN = st.lists(st.sampled_from([b": ping", b":", b"retry: 5", b"event: x"]), max_size=2)


def chunks(path, asked, said):
    engine = StubEngine()
    engine.script = [said] if said else []
    made = {**asked, "call": 1}
    return list(engine.text_chunks(made) if path == "/completions" else engine.chunks(made))


def told(chunk):
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def run(coroutine):
    with pytest.raises(StopIteration):
        coroutine.send(None)


def relayed(ask, pieces, broke=False):
    """The relay over a stream that came in these pieces, for a client that has gone."""
    call = SimpleNamespace(
        request=ask, joined=False, gone=True, ttft_ms=None, ms=lambda: 1.0, ended_by=""
    )
    relay = StreamRelay(call)
    for piece in pieces:
        run(relay.feed(piece))
    if broke:
        relay.broke(EngineBroke("the connection to the engine broke"))
    else:
        run(relay.feed(b"\n\n" if relay.parser.rest else b""))
    relay.finish()
    return relay


def cut(data, places):
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


PLACES = st.lists(st.integers(0, 10**6), max_size=12)


def events(data):
    """The data of each event, read by the letter of the standard, all at once."""
    found, lines = [], []
    for line in re.split(rb"\r\n|\n|\r", data):
        if not line:
            if lines:
                found.append(b"\n".join(lines))
            lines = []
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            lines.append(b"")
    return found


def values(found):
    return [one if one == b"[DONE]" else json.loads(one, object_pairs_hook=list) for one in found]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_stream_is_the_engines_less_the_injected_fields_for_any_chunking(data):
    """Splits inside UTF-8 and inside `data:`, comments, other line ends, several lines of data."""
    path = data.draw(st.sampled_from(["/chat/completions", "/completions"]), "path")
    said = data.draw(SAID, "said") if path == "/chat/completions" else None
    flags = ["logprobs", "return_token_ids", "return_weight_versions"]
    wanted = {flag: True for flag in flags if data.draw(st.booleans(), flag)}
    if path == "/completions" and "logprobs" in wanted:
        wanted["logprobs"] = 1
    if data.draw(st.booleans(), "usage"):
        wanted["stream_options"] = {"include_usage": True}
    body = {
        "model": "m", **BODIES[path], "stream": True, "n": data.draw(st.integers(1, 2)), **wanted,
    }  # fmt: skip
    ask = DIALECTS[path].parse(json.dumps(body).encode(), RequestRules())
    direct = [json.dumps(chunk) for chunk in chunks(path, body, said)]
    wire = b""
    for chunk in chunks(path, json.loads(ask.body), said):
        end = data.draw(ENDS, "line end")
        for line in data.draw(BETWEEN, "between"):
            wire += line + end + end
        lines = [json.dumps(chunk, ensure_ascii=False).encode()]
        if data.draw(st.booleans(), "lines"):
            lines = json.dumps(chunk, ensure_ascii=False, indent=1).encode().split(b"\n")
        wire += b"".join(b"data: " + line + end for line in lines) + end
    wire += b"data: [DONE]\n\n"
    relay = relayed(ask, cut(wire, data.draw(PLACES, "places")))
    expected = [json.loads(one, object_pairs_hook=list) for one in direct] + [b"[DONE]"]
    assert expected == values(events(b"".join(relay.pieces)))
    assert {""} == {one.error or one.untrainable for one in relay.captured()}
    seen = b"".join(relay.pieces)[: -len(b"".join(relay.held))]
    assert b'"stop"' not in seen
    if path == "/chat/completions":
        assert prompt_ids(HI) == list(memoryview(relay.captured()[0].prompt).cast("I"))


def of_dialect(path, said, **more):
    body = {"model": "m", **BODIES[path], "stream": True, **more}
    ask = DIALECTS[path].parse(json.dumps(body).encode(), RequestRules())
    wire = b"".join(map(told, chunks(path, json.loads(ask.body), said))) + b"data: [DONE]\n\n"
    return ask, wire


TRANSLATED = ["/messages", "/responses"]


@pytest.mark.parametrize("path", TRANSLATED)
@settings(max_examples=80, deadline=None)
@given(SAID, PLACES)
def test_a_translated_stream_is_the_same_for_every_chunking(path, said, places):
    """Byte for byte; and its end is held back, however the bytes came."""
    ask, wire = of_dialect(path, said)
    one, many = relayed(ask, [wire]), relayed(ask, cut(wire, places))
    assert one.pieces == many.pieces
    assert one.held == many.held
    seen = b"".join(many.pieces)[: -len(b"".join(many.held))]
    assert not any(end in seen for end in (b"event: message_delta", b"event: message_stop"))
    assert b"event: response.completed" not in seen
    last = b"message_stop" if path == "/messages" else b"response.completed"
    assert b"".join(many.held).split(b"event: ")[-1].startswith(last)


@pytest.mark.parametrize("path", list(BODIES))
@settings(max_examples=60, deadline=None)
@given(SAID, PLACES, st.integers(0, 10**6), st.booleans())
def test_an_upstream_that_dies_leaves_a_beginning_and_an_error(path, said, places, at, closes):
    """After any byte, with or without saying so: no end is seen, and the turn has an error."""
    ask, wire = of_dialect(path, None if path == "/completions" else said)
    whole = relayed(ask, [wire])
    finish = min(
        wire.index(reason)
        for reason in (b'"stop"', b'"tool_calls", "token', b"[DONE]")
        if reason in wire
    )
    begun = wire.rindex(b"data: ", 0, finish)
    died = relayed(ask, cut(wire[: at % begun], places), broke=not closes)
    assert all(one.error for one in died.captured())
    told = b"".join(died.pieces)
    assert b"message_stop" not in told
    assert b"response.completed" not in told
    assert b"[DONE]" not in told
    if path in TRANSLATED or not closes:
        assert b"error" in told.split(b"\n\n")[-2]
    good = [piece for piece in died.pieces if piece not in died.held]
    assert whole.pieces[: len(good)] == good or closes


@pytest.mark.parametrize("path", list(BODIES))
@settings(max_examples=40, deadline=None)
@given(SAID, PLACES, st.integers(1, 6))
def test_an_error_in_the_middle_is_told_in_the_dialect_and_recorded(path, said, places, at):
    """The engine's own event where it speaks the dialect, an event of the dialect elsewhere."""
    ask, wire = of_dialect(path, None if path == "/completions" else said)
    broken = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    parts = wire.split(b"\n\n")
    at = min(at, len(parts) - 4)
    wire = b"\n\n".join(parts[:at]) + b"\n\n" + broken + b"\n\n".join(parts[at:])
    relay = relayed(ask, cut(wire, places))
    assert {"out of memory"} == {one.error for one in relay.captured()}
    told = b"".join(relay.pieces)
    if path not in TRANSLATED:
        assert broken in told
        # What comes behind it is trimmed all the same.
        assert not [1 for one in events(told) if one != b"[DONE]" and ids_in(json.loads(one))]
        return
    assert b"out of memory" in told
    assert b"message_stop" not in told
    assert b"response.completed" not in told
    last = told.split(b"event: ")[-1]
    assert last.startswith(b"error" if path == "/messages" else b"response.failed")


def ids_in(chunk):
    return [choice for choice in chunk.get("choices", ()) if choice.get("token_ids")]


@pytest.mark.parametrize("path", TRANSLATED)
@settings(max_examples=60, deadline=None)
@given(SAID)
def test_a_stream_says_what_the_whole_reply_says(path, said):
    """The deltas, put together, are the whole reply's content; the turn's message, too."""
    ask, wire = of_dialect(path, said)
    relay = relayed(ask, [wire])
    engine = StubEngine()
    engine.script = [said]
    reply = engine.reply({**json.loads(ask.body), "call": 1})
    whole = json.loads(ask.dialect.reply(json.dumps(reply).encode(), ask))
    found = [json.loads(one) for one in events(b"".join(relay.pieces))]
    if path == "/messages":
        texts = {}
        for event in found:
            if event["type"] == "content_block_start":
                texts[event["index"]] = ""
            if event["type"] == "content_block_delta" and "signature" not in event["delta"]:
                name = event["delta"]["type"].removesuffix("_delta")
                key = {"input_json": "partial_json"}.get(name, name)
                texts[event["index"]] += event["delta"][key]
        for block, text in zip(whole["content"], texts.values(), strict=True):
            own = block.get("text", block.get("thinking"))
            assert (json.loads(text or "{}") == block["input"]) if own is None else (own == text)
        assert whole["usage"] == found[-2]["usage"]
        assert whole["stop_reason"] == found[-2]["delta"]["stop_reason"]
    else:
        assert whole == found[-1]["response"]
        done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
        assert whole["output"] == done
    message = parsed(relay.captured()[0].reply.message)
    assert said.get("tool_calls", []) == message.get("tool_calls", [])
    assert said["content"] == message["content"]
