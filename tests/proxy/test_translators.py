"""Translators against anything: only domain errors, and conversations that keep their tokens."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.proxy.dialects import DIALECTS, SURFACES, errors, models
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.errors import BadRequest, EngineBroke, ProxyError
from odradek.proxy.wire import reply as capture
from odradek.proxy.wire import sse
from odradek.schemas.events import parsed
from tests.support.engines.stub_engine import StubEngine, said_ids, tool_call

from .test_chunkings import BODIES as SPOKEN
from .test_chunkings import SAID, TRANSLATED, events, relayed, told

CONTENTS = {"contents": [{"parts": [{"text": "né"}]}]}
BODIES = {
    **SPOKEN, "/responses/compact": {"input": "né"}, ":generateContent": CONTENTS,
    ":streamGenerateContent": CONTENTS,
}  # fmt: skip
PATHS = list(DIALECTS)
LISTS = {surface.dialect.name: surface.models or models.OPENAI for surface in SURFACES}
ATOMS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=6)
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
NAMES = st.sampled_from([
    "type", "role", "content", "text", "name", "id", "input", "output", "arguments", "call_id",
    "tool_use_id", "source", "url", "data", "media_type", "image_url", "detail", "thinking",
    "summary", "function", "tool_calls", "index", "format", "schema", "effort", "user_id", "mode",
    "tools", "input_schema", "parameters", "refusal", "delta", "reasoning", "parts", "functionCall",
    "function_response", "args", "response", "inlineData", "mimeType", "thought",
    "thoughtSignature", "functionDeclarations", "properties", "anyOf", "nullable", "parameters",
])  # fmt: skip
KINDS = st.sampled_from([
    "text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document",
    "message", "function_call", "function_call_output", "reasoning", "input_text", "output_text",
    "input_image", "refusal", "url", "base64", "user", "assistant", "system", "developer", "tool",
    "function", "auto", "any", "none", "required", "json_schema", "custom", "allowed_tools",
    "namespace", "custom_tool_call", "compaction", "additional_tools", "model", "ANY", "STRING",
])  # fmt: skip
JSON = st.recursive(
    ATOMS | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([
    "model", "messages", "input", "prompt", "instructions", "system", "tools", "tool_choice",
    "max_tokens", "max_output_tokens", "stop_sequences", "stream", "stream_options", "thinking",
    "metadata", "previous_response_id", "include", "store", "text", "reasoning", "n", "logprobs",
    "top_logprobs", "output_format", "output_config", "truncation", "background", "conversation",
    "chat_template_kwargs", "parallel_tool_calls", "temperature", "mcp_servers", "user", "contents",
    "generationConfig", "generation_config", "toolConfig", "systemInstruction", "cachedContent",
])  # fmt: skip
BLOCK = st.fixed_dictionaries({"type": KINDS}, optional={
    "text": st.text(max_size=4), "id": st.text(max_size=3), "name": st.text(max_size=3),
    "input": JSON, "tool_use_id": st.text(max_size=3), "content": JSON, "role": KINDS,
    "call_id": st.text(max_size=3), "arguments": st.text(max_size=5), "output": JSON,
    "thinking": st.text(max_size=3), "source": JSON, "image_url": JSON,
})  # fmt: skip
SAYING = st.fixed_dictionaries(
    {"role": KINDS, "content": st.text(max_size=5) | st.lists(BLOCK, max_size=3) | JSON}
)
REQUEST = st.dictionaries(FIELDS, JSON, max_size=6) | st.fixed_dictionaries(
    {"messages": st.lists(SAYING, max_size=3), "input": st.lists(BLOCK | SAYING, max_size=4),
     "prompt": JSON, "contents": st.lists(st.fixed_dictionaries(
         {"parts": st.lists(st.dictionaries(NAMES, JSON, max_size=2), max_size=3) | JSON},
         optional={"role": KINDS}), max_size=3)},
    optional={"tools": st.lists(BLOCK, max_size=2), "stream": st.booleans(), "system": JSON},
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | (REQUEST | JSON).map(json.dumps))
def test_any_request_is_a_chat_or_a_400(path, body):
    """Whatever a client sends: what reaches the engine is JSON with what a turn needs."""
    data = body if isinstance(body, bytes) else body.encode()
    dialect = DIALECTS[path]
    try:
        ask = dialect.parse(data, RequestRules())
    except BadRequest as error:
        assert json.loads(dialect.error(error))["error"]["message"]
        return
    asked = json.loads(ask.body)
    assert asked["return_token_ids"]
    assert asked.get("prompt" if path == "/completions" else "messages") is not None
    if path != "/completions":
        assert [parsed(message) for message in ask.messages] == asked["messages"]


CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 1)},
    optional={
        "message": JSON, "delta": JSON, "finish_reason": JSON, "stop_reason": JSON,
        "logprobs": JSON, "token_ids": JSON, "text": JSON,
    },
)  # fmt: skip
REPLY = st.fixed_dictionaries(
    {}, optional={
        "id": JSON, "created": JSON, "choices": st.lists(CHOICE, max_size=2) | JSON,
        "usage": JSON, "error": JSON, "prompt_token_ids": JSON,
    },
)  # fmt: skip


def ask_of(path, **more):
    body = {"model": "m", **BODIES[path], **more}
    return DIALECTS[path].parse(json.dumps(body).encode(), RequestRules())


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60) | (REPLY | JSON).map(json.dumps))
def test_any_reply_is_translated_or_unreadable(path, reply):
    """Whatever an engine answers: a reply of the dialect, or an error that the proxy expects."""
    data = reply if isinstance(reply, bytes) else reply.encode()
    ask = ask_of(path, include=["message.output_text.logprobs"])
    with contextlib.suppress(*capture.UNREADABLE):
        assert isinstance(json.loads(ask.dialect.reply(data, ask)), dict)
    assert ask.dialect.refusal(data, 500) == data or b"error" in ask.dialect.refusal(data, 500)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40) | (REPLY | JSON).map(json.dumps), max_size=5), st.booleans())
def test_any_stream_is_told_without_an_exception(path, stream, broke):
    """Each event that comes out has data; a translated one's is JSON and says its own name."""
    ask = ask_of(path, stream=True, include=["message.output_text.logprobs"])
    wire = b"".join(
        b"data: " + (one if isinstance(one, bytes) else one.encode()) + b"\n\n" for one in stream
    )
    relay = relayed(ask, [wire], broke=broke)
    assert relay.captured()
    if path in TRANSLATED:
        told = b"".join(relay.pieces)
        for event in filter(None, told.split(b"\n\n")):
            name, data = event.split(b"\ndata: ")
            assert json.loads(data)["type"] == name.removeprefix(b"event: ").decode()
        assert b"completed" not in told or not relay.captured()[0].error


def test_a_response_that_failed_has_no_complete_item_where_it_broke():
    """Its last item is what there is of it; one that a later item follows was complete."""
    ask = ask_of("/responses", stream=True)
    said = json.dumps({"choices": [{"index": 0, "delta": {"content": "Once"}}]}).encode()
    relay = relayed(ask, [b"data: " + said + b"\n\n"], broke=False)
    failed = json.loads(b"".join(relay.pieces).rstrip().rpartition(b"data: ")[2])
    assert "response.failed" == failed["type"]
    assert ["incomplete"] == [item["status"] for item in failed["response"]["output"]]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40) | JSON.map(json.dumps) | st.fixed_dictionaries(
    {"data": st.lists(st.dictionaries(st.sampled_from(["id", "created"]), ATOMS))}
).map(json.dumps), st.none() | st.text(max_size=3), st.sampled_from(["chat", "messages", "gemini"]))  # fmt: skip
def test_any_list_of_models_is_told_or_an_error(body, wanted, dialect):
    """The engine's list is its own; only domain errors come of it."""
    data = body if isinstance(body, bytes) else body.encode()
    with contextlib.suppress(ProxyError):
        json.loads(models.listed(data, wanted, LISTS[dialect]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(SAID, min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from(TRANSLATED),
)
def test_a_conversation_keeps_its_tokens_through_a_dialect(replies, stream, chained, path):
    """What the client hands back is the message that the engine said, so its tokens come first.

    The client parses and prints all JSON anew, as clients do.
    """
    memory, engine = ReplyStore(), StubEngine()
    engine.script = replies
    history = [] if path == "/messages" else [{"role": "user", "content": "go"}]
    body = {"model": "m", "stream": stream, "max_tokens": 9, "thinking": {"type": "enabled"}}
    if path == "/messages":
        history = [{"role": "user", "content": "go"}]
    before, previous = [], {}
    for number in range(len(replies)):
        field = "messages" if path == "/messages" else "input"
        asked = {**body, field: history, **previous}
        ask = DIALECTS[path].parse(json.dumps(asked).encode(), RequestRules(memory=memory))
        sent = json.loads(ask.body)["messages"]
        assert before == [said_ids(message) for message in sent][: len(before)]
        call = {**json.loads(ask.body), "call": number + 1}
        if stream:
            wire = b"".join(
                b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in engine.chunks(call)
            )
            relay = relayed(ask, [wire, b"data: [DONE]\n\n"])
            captured = relay.captured()[0]
            told = [json.loads(event) for event in events(b"".join(relay.pieces))]
        else:
            data = json.dumps(engine.reply(call)).encode()
            captured = capture.whole(data)[0]
            told = [json.loads(ask.dialect.reply(data, ask))]
        ask.origin.remember(memory, ask, captured)
        before = [said_ids(message) for message in [*sent, parsed(captured.reply.message)]]
        if path == "/messages":
            content = content_of(told) if stream else told[0]["content"]
            calls = [block["id"] for block in content if block["type"] == "tool_use"]
            results = [{"type": "tool_result", "tool_use_id": one, "content": "x"} for one in calls]
            new = [{"role": "user", "content": [*results, {"type": "text", "text": "go"}]}]
            history = [*history, {"role": "assistant", "content": content}, *new]
        else:
            reply = told[-1]["response"] if stream else told[0]
            calls = [item for item in reply["output"] if item["type"] == "function_call"]
            new = [{"type": "function_call_output", "call_id": item["call_id"], "output": "x"}
                   for item in calls] or [{"role": "user", "content": "go"}]  # fmt: skip
            for item in calls:
                item["arguments"] = json.dumps(json.loads(item["arguments"]), indent=1)
            if chained:
                previous, history = {"previous_response_id": reply["id"]}, new
            else:
                history = [*history, *reply["output"], *new]


def content_of(told):
    """A message's content out of its events, as clients make it."""
    content, texts = [], {}
    for event in told:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], content[event["index"]]
            if delta["type"] == "input_json_delta":
                texts[event["index"]] = texts.get(event["index"], "") + delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] = block[name] + delta[name]
    for index, text in texts.items():
        content[index]["input"] = json.loads(text)
    return content


@pytest.mark.parametrize("path", PATHS)
def test_errors_of_ours_are_told_in_the_middle_of_a_stream(path):
    """A log that refused, an engine that broke: an event of the dialect, the last one."""
    ask = ask_of(path, stream=True)
    told = ask.dialect.stream(ask).fail(EngineBroke("it broke"))
    (*_, event) = sse.Parser().feed(told)
    assert "it broke" in json.dumps(json.loads(event.data))


def test_memory_stays_within_its_bounds():
    """In replies, in calls and in bytes; a reply that is kept twice counts once."""
    memory = ReplyStore()
    for name in ("a", "a", "b", "c"):
        memory.keep(name, (msgspec.Raw(b'"' + b"x" * 3_000_000 + b'"'),))
    assert [False, True, True] == [memory.chain(name) is not None for name in "abc"]
    for number in range(1100):
        call = tool_call("f", '{ "x": 1}', f"c{number}")
        memory.learn(msgspec.Raw(json.dumps({"tool_calls": [call]}).encode()))
    assert '{"x":1}' == memory.arguments("c0", {"x": 1})
    assert '{ "x": 1}' == memory.arguments("c1099", {"x": 1})
    assert '{"x":2}' == memory.arguments("c1099", {"x": 2})
    assert '{ "x": 1}' == memory.spelt("c1099", '{"x":1}')
    assert "{" == memory.spelt("c1099", "{")


def replied(path, choice, **more):
    """A whole reply of the dialect for one choice of the engine's, or for several."""
    choices = choice if isinstance(choice, list) else [{"index": 0, **choice}]
    reply = {"id": "c1", "created": 5, "choices": choices, **more}
    ask = ask_of(path, tools=[LOOK[path]])
    return json.loads(ask.dialect.reply(json.dumps(reply).encode(), ask))


def streamed(path, *deltas, finish="stop"):
    """The events of a stream with these deltas."""
    ends = [None] * (len(deltas) - 1) + [finish]
    wire = b"".join(
        told({
            "id": "c1", "created": 5, "prompt_token_ids": [1, 2, 3],
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
        })
        for delta, end in zip(deltas, ends, strict=True)
    )  # fmt: skip
    ask = ask_of(path, stream=True, tools=[LOOK[path]])
    relay = relayed(ask, [wire, b"data: [DONE]\n\n"])
    return [json.loads(event) for event in events(b"".join(relay.pieces))]


LOOK = {
    "/messages": {"name": "look", "input_schema": {}},
    "/responses": {"type": "function", "name": "look", "parameters": {}},
}


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/messages", [
            "message_start", "ping",
            "content_block_start", "content_block_delta", "content_block_delta",
            "content_block_stop",
            "content_block_start", "content_block_delta", "content_block_stop",
            "message_delta", "message_stop",
        ]),
        ("/responses", [
            "response.created", "response.in_progress",
            "response.output_item.added", "response.content_part.added",
            "response.reasoning_text.delta", "response.reasoning_text.done",
            "response.content_part.done", "response.output_item.done",
            "response.output_item.added", "response.content_part.added",
            "response.output_text.delta", "response.output_text.done",
            "response.content_part.done", "response.output_item.done",
            "response.completed",
        ]),
    ],
)  # fmt: skip
def test_the_events_of_a_stream_and_their_order(path, kinds):
    """All that the dialect's own servers send, and nothing twice."""
    found = streamed(path, {"reasoning": "hm"}, {"content": "so"})
    assert kinds == [event["type"] for event in found]
    if path == "/messages":
        assert "signature_delta" == found[4]["delta"]["type"]
        assert 3 == found[0]["message"]["usage"]["input_tokens"]
    else:
        assert {5} == {event["response"]["created_at"] for event in found if "response" in event}
        assert found[0]["response"]["usage"] is None


@pytest.mark.parametrize("path", TRANSLATED)
def test_a_refusal_is_told(path):
    """A model's no is what it said: whole and streamed."""
    whole = replied(path, {"message": {"role": "assistant", "refusal": "no"}})
    found = streamed(path, {"refusal": "n"}, {"refusal": "o"})
    if path == "/messages":
        assert [{"type": "text", "text": "no", "citations": None}] == whole["content"]
        assert "no" == content_of(found)[0]["text"]
    else:
        assert [{"type": "refusal", "refusal": "no"}] == whole["output"][0]["content"]
        assert whole["output"][0]["content"] == found[-1]["response"]["output"][0]["content"]
        assert ["no"] == [e["refusal"] for e in found if e["type"] == "response.refusal.done"]


@pytest.mark.parametrize("path", TRANSLATED)
def test_parallel_calls_whose_arguments_come_in_turns_stay_apart(path):
    """Each piece belongs to the call that its index names, not to the last one."""
    pieces = [(0, '{"a": '), (1, '{"b": '), (0, "1}"), (1, "2}")]
    deltas = [
        {"tool_calls": [{"index": index, "id": f"c{index}" if n < 2 else None,
                         "function": {"name": "look" if n < 2 else None, "arguments": text}}]}
        for n, (index, text) in enumerate(pieces)
    ]  # fmt: skip
    found = streamed(path, *deltas, finish="tool_calls")
    if path == "/messages":
        calls = [(block["id"], block["input"]) for block in content_of(found)]
    else:
        output = found[-1]["response"]["output"]
        calls = [(item["call_id"], json.loads(item["arguments"])) for item in output]
        places = [e["output_index"] for e in found if e["type"].endswith("arguments.delta")]
        assert [0, 1, 0, 1] == places
        names = [e["name"] for e in found if e["type"].endswith("arguments.done")]
        assert ["look", "look"] == names
    assert [("c0", {"a": 1}), ("c1", {"b": 2})] == calls


@pytest.mark.parametrize("path", TRANSLATED)
def test_calls_without_ids_or_indexes_get_ids_of_their_own(path):
    """A result must name the call that it belongs to."""
    calls = [{"function": {"name": "look", "arguments": f'{{"n": {n}}}'}} for n in range(2)]
    message = {"role": "assistant", "tool_calls": calls}
    found = streamed(path, {"tool_calls": calls})
    if path == "/messages":
        blocks = replied(path, {"message": message})["content"]
        ids = [[block["id"] for block in one] for one in (blocks, content_of(found))]
    else:
        replies = replied(path, {"message": message}), found[-1]["response"]
        ids = [[item["call_id"] for item in reply["output"]] for reply in replies]
    assert [2, 2] == [len(set(one) - {""}) for one in ids]


@pytest.mark.parametrize("finish", ["stop", "function_call", "tool_calls"])
def test_a_message_with_a_call_ends_for_the_tool(finish):
    """Engines end a call that was forced with `stop`; clients go by the reason."""
    call = {"tool_calls": [tool_call("look", "{}")]}
    whole = replied("/messages", {"message": call, "finish_reason": finish})
    delta = streamed("/messages", call, finish=finish)[-2]["delta"]
    assert ("tool_use", "tool_use") == (whole["stop_reason"], delta["stop_reason"])


@pytest.mark.parametrize("path", TRANSLATED)
def test_of_several_choices_the_first_is_the_reply(path):
    """In whatever order an engine lists them."""
    choices = [{"index": n, "message": {"content": f"said {n}"}} for n in (1, 0)]
    assert "said 0" in json.dumps(replied(path, choices))
    assert "said 1" not in json.dumps(replied(path, choices))


@pytest.mark.parametrize("path", TRANSLATED)
@pytest.mark.parametrize("said", [
    {"reasoning_content": "hm"}, {"reasoning": "hm", "reasoning_content": "hm"},
])  # fmt: skip
def test_reasoning_is_told_once_by_whichever_name(path, said):
    """Older engines call it otherwise, some give both names."""
    whole = replied(path, {"message": {**said, "content": "so"}})
    assert 1 == json.dumps(whole).count('"hm"')


@pytest.mark.parametrize("path", TRANSLATED)
def test_replies_to_other_requests_have_other_ids(path):
    """Some engines give each reply the same id."""
    data = json.dumps({"id": "c1", "choices": [{"message": {"content": "x"}}]}).encode()
    asks = [ask_of(path, user=name) for name in "aab"]
    ids = [json.loads(ask.dialect.reply(data, ask))["id"] for ask in asks]
    assert (True, False) == (ids[0] == ids[1], ids[1] == ids[2])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (409, "invalid_request_error"), (413, "request_too_large"),
        (429, "rate_limit_error"), (500, "api_error"), (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)  # fmt: skip
def test_a_status_has_its_own_type_in_anthropics_words(status, kind):
    """Clients choose by it what to do."""
    told = json.loads(errors.anthropic_of(b'{"error": {"message": "w"}}', status))
    assert {"type": kind, "message": "w"} == told["error"]


@pytest.mark.parametrize(("status", "kind"), [(422, "invalid_request_error"), (500, "api_error")])
@pytest.mark.parametrize("body", [b"no json", b'{"error": "busy"}', b"[]"])
def test_an_engines_error_of_any_shape_is_told_in_openais(body, status, kind):
    """Clients read `error.message`, and say whose fault it was."""
    error = json.loads(errors.openai_of(body, status))["error"]
    assert (kind, True) == (error["type"], bool(error["message"]))


def test_models_in_anthropics_words():
    """Their names, when they were made, and where the list begins and ends."""
    listed = {"data": [{"id": "a", "created": 86400}, {"id": "b", "created": 2**70}]}
    found = json.loads(models.listed(json.dumps(listed).encode(), None, LISTS["messages"]))
    assert ("a", "b", False) == (found["first_id"], found["last_id"], found["has_more"])
    assert [("a", "1970-01-02"), ("b", "1970-01-01")] == [
        (model["display_name"], model["created_at"][:10]) for model in found["data"]
    ]


@pytest.mark.parametrize("path", PATHS)
def test_a_request_is_known_by_what_the_agent_sent(path):
    """By fields, too, that the engine does not get: another request is no retry of this one."""
    digests = [ask_of(path, service_tier=name).digest for name in "aab"]
    assert (True, False) == (digests[0] == digests[1], digests[1] == digests[2])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("value", [json.loads("[" * 70 + "]" * 70), "\ud800"])
def test_what_no_reader_of_the_log_would_take_is_refused_anywhere(path, value):
    """Also in a field that the engine does not get."""
    with pytest.raises(BadRequest):
        ask_of(path, service_tier=value)
