"""Anthropic's Messages through the proxy, with the unmodified client."""

import asyncio
import json

import pytest
from anthropic import APIStatusError, AsyncAnthropic, BadRequestError
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.messages import MESSAGES
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import THINK, THOUGHT, said_ids, tool_call

from .conftest import END, prompt_ids

HI = [{"role": "user", "content": "hi"}]
EVENT = TypeAdapter(RawMessageStreamEvent)
TOOL = {"name": "look", "description": "looks", "input_schema": {"type": "object"}}


@pytest.fixture
async def claude(bench):
    """Anthropic's client, with the token of the episode e1 as its key."""
    async with AsyncAnthropic(
        base_url=f"{bench.url}/e/e1", api_key=bench.token(), max_retries=0
    ) as client:
        yield client


def ask(client, **more):
    return client.messages.create(**{"model": "policy", "max_tokens": 50, "messages": HI, **more})


async def test_a_message_is_in_the_log_with_the_engines_own_tokens(bench, claude, engine):
    """Text, usage and ids are the engine's; the turn holds the messages in the form of chats."""
    more = {"temperature": 0.5, "top_k": 3}
    reply = await ask(claude, system="be brief", stop_sequences=["x"], extra_body=more)
    (turn,), (asked,) = bench.turns(), engine.calls
    text = reply.content[0].text
    chat = [{"role": "system", "content": "be brief"}, *HI]
    assert chat == asked["messages"] == [parsed(message) for message in turn.request.messages]
    assert (50, 0.5, 3, ["x"]) == tuple(
        asked[name] for name in ("max_tokens", "temperature", "top_k", "stop")
    )
    assert prompt_ids(chat) == unpack_ids(turn.prompt.ids).tolist()
    assert [*text.encode(), END] == unpack_ids(turn.completion.ids).tolist()
    assert ("messages", "policy", "") == (turn.dialect, turn.model, turn.untrainable)
    assert ("end_turn", "assistant", "message") == (reply.stop_reason, reply.role, reply.type)
    used = reply.usage
    assert turn.usage.prompt_tokens == used.input_tokens + used.cache_read_input_tokens
    assert turn.usage.completion_tokens == used.output_tokens


def blocks(message):
    return [block.to_dict() | {"parsed_output": None} for block in message.content]


SCRIPTS = {
    "text": {"content": "né, so"},
    "nothing": {"content": ""},
    "thinking": {"reasoning": "hm, né", "content": "so"},
    "tool": {"tool_calls": [tool_call("look", '{"at": "né", "n": [1, {"x": null}]}')]},
    "two tools": {
        "reasoning": "two",
        "content": "both",
        "tool_calls": [tool_call("look", '{"at": 1}', "a"), tool_call("look", "{}", "b")],
    },
    "no arguments": {"tool_calls": [tool_call("look", "")]},
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_streamed_message_becomes_the_same_as_a_whole_one(bench, claude, engine, name):
    """The client puts the events together; what it gets and the turn do not depend on streaming."""
    engine.script = [SCRIPTS[name]]
    more = {"tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    whole = await ask(claude, **more)
    async with claude.messages.stream(model="policy", max_tokens=50, messages=HI, **more) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_message()
    assert {"chat-1", "chat-2"} == {turn.upstream.id for turn in bench.turns()}
    assert blocks(whole) == blocks(streamed)
    assert whole.usage == streamed.usage
    assert whole.stop_reason == streamed.stop_reason
    first, second = bench.turns()
    assert first.completion == second.completion
    assert parsed(first.reply.message)["tool_calls"] if "tool" in name else True
    assert [*said_ids(SCRIPTS[name]), END] == unpack_ids(second.completion.ids).tolist()
    assert "message_start" == events[0].type
    assert "message_stop" == events[-1].type


async def test_reasoning_is_shown_to_those_who_ask_for_it(bench, claude, engine):
    """Others get text first, as from Anthropic; the turn has the reasoning and its tokens."""
    engine.script = [SCRIPTS["thinking"]]
    plain = await ask(claude)
    asked = await ask(claude, thinking={"type": "enabled", "budget_tokens": 1024})
    assert ["text"] == [block.type for block in plain.content]
    assert ["thinking", "text"] == [block.type for block in asked.content]
    assert {"enable_thinking": True} == engine.calls[1]["chat_template_kwargs"]
    for turn in bench.turns():
        assert "hm, né" == parsed(turn.reply.message)["reasoning"]
        ids = unpack_ids(turn.completion.ids).tolist()
        assert (THINK, True) == (ids[0], THOUGHT in ids)


async def test_a_conversation_with_tools_is_one_sequence(bench, claude, engine):
    """The reply goes back as blocks, and the next prompt begins with the very ids of the last."""
    engine.script = [SCRIPTS["two tools"], SCRIPTS["text"]]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    first = await ask(claude, tools=[TOOL], thinking=thinking)
    assert "tool_use" == first.stop_reason
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": "seen"},
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "no"}]},
        {"type": "text", "text": "go on"},
    ]
    history = [
        *HI,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    await ask(claude, tools=[TOOL], thinking=thinking, messages=history)
    turns = bench.turns()
    continuity = Continuity()
    assert ["first", "append"] == [continuity.add(turn) for turn in turns]
    assert turns[0].turn_id == turns[1].request.base == turns[1].prompt.base
    roles = [message["role"] for message in engine.calls[1]["messages"]]
    assert ["user", "assistant", "tool", "tool", "user"] == roles
    assert () == turns[1].request.tools


async def test_arguments_go_back_to_the_engine_as_it_wrote_them(bench, claude, engine):
    """The client parses and prints them anew: without care each blank would move tokens."""
    spelt = '{ "at" :1.0,\n "né": "\\u00e9" }'
    engine.script = [{"tool_calls": [tool_call("look", spelt)]}]
    first = await ask(claude, tools=[TOOL])
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": "x"}
    history = [
        *HI,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    await ask(claude, tools=[TOOL], messages=history)
    (call,) = engine.calls[1]["messages"][1]["tool_calls"]
    assert spelt == call["function"]["arguments"]


@pytest.mark.parametrize("words", ["hello", "null", "[1, 2]", " ", '"{}"'])
async def test_arguments_that_are_no_object_do_not_end_a_stream(bench, claude, engine, words):
    """The client raises for them: it gets them under one key, and hands back what was said."""
    engine.script = [
        {"tool_calls": [tool_call("look", words), tool_call("look", ' {"a": 1}', "b")]}
    ]
    whole = await ask(claude, tools=[TOOL])
    async with claude.messages.stream(
        model="policy", max_tokens=50, messages=HI, tools=[TOOL]
    ) as stream:
        streamed = await stream.get_final_message()
    assert [{"INVALID_JSON": words}, {"a": 1}] == [block.input for block in streamed.content]
    assert [block.input for block in whole.content] == [b.input for b in streamed.content]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "x"}
        for block in streamed.content
    ]
    history = [
        *HI,
        {"role": "assistant", "content": streamed.content},
        {"role": "user", "content": results},
    ]
    await ask(claude, tools=[TOOL], messages=history)
    first, _ = engine.calls[-1]["messages"][1]["tool_calls"]
    assert words == first["function"]["arguments"]


async def test_arguments_that_are_no_json_arrive_under_one_key(claude, engine):
    """Nothing that the model said is lost, and nothing breaks."""
    engine.script = [{"tool_calls": [tool_call("look", '{"at": ')]}]
    reply = await ask(claude, tools=[TOOL])
    assert {"INVALID_JSON": '{"at": '} == reply.content[0].input


@pytest.mark.parametrize(
    ("finish", "stopped", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "###", ("stop_sequence", "###")),
        ("stop", 151645, ("end_turn", None)),
        ("length", None, ("max_tokens", None)),
        ("content_filter", None, ("refusal", None)),
    ],
)
async def test_why_a_message_ended(claude, engine, finish, stopped, expected):
    """The engine's reason in Anthropic's words, whole and streamed."""
    engine.finish, engine.stop_reason = finish, stopped
    whole = await ask(claude)
    async with claude.messages.stream(model="policy", max_tokens=5, messages=HI) as stream:
        streamed = await stream.get_final_message()
    assert expected == (whole.stop_reason, whole.stop_sequence)
    assert expected == (streamed.stop_reason, streamed.stop_sequence)


async def test_system_prompts_in_all_spellings_and_images_by_reference(claude, engine):
    """A string, blocks, a message of the role; a picture's address reaches the engine."""
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    await ask(claude, system=blocks)
    await ask(claude, messages=[{"role": "system", "content": "a"}, *HI])
    picture = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
    inline = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
    }
    look = [picture, inline, {"type": "text", "text": "look"}]
    await ask(claude, messages=[{"role": "user", "content": look}])
    first, second, third = (call["messages"] for call in engine.calls)
    assert {"role": "system", "content": "a\nb"} == first[0]
    assert {"role": "system", "content": "a"} == second[0]
    urls = [part["image_url"]["url"] for part in third[0]["content"][:2]]
    assert ["https://x.test/a.png", "data:image/png;base64,AAAA"] == urls


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any", "disable_parallel_tool_use": True}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
    ],
)
async def test_the_choice_of_tools(claude, engine, choice, expected):
    """In the words of chats."""
    await ask(claude, tools=[TOOL], tool_choice=choice)
    (asked,) = engine.calls
    assert expected == asked["tool_choice"]
    assert asked.get("parallel_tool_calls") is (
        False if len(choice) > 1 and "any" in choice["type"] else None
    )
    function = {"name": "look", "description": "looks", "parameters": {"type": "object"}}
    assert [{"type": "function", "function": function}] == asked["tools"]


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"tools": [{"type": "web_search_20250305"}, {"type": "custom"}]}, "tools.1"),
        ({"fallbacks": [{"model": "x"}]}, "fallbacks"),
        ({"messages": [{"role": "user", "content": [{"type": "hm"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user"}]}, "messages.0"),
        ({"messages": "hi"}, "messages"),
        ({"system": 5}, "system"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"max_tokens": 10**9}, "max_tokens"),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "document", "source": {"type": "base64", "data": "", "media_type": "a/b"}}
            ]}]},
            "messages.0.content.0.source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image", "source": {"type": "file", "file_id": "f"}}
            ]}]},
            "messages.0.content.0.source.type",
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": [
                {"type": "tool_result", "tool_use_id": "a"}
            ]}]},
            "messages.1.content.0",
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "tool_use", "id": "a", "name": "look"}
            ]}]},
            "messages.0.content.1",
        ),
        ({"output_format": {"type": "grammar"}}, "output_format.type"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_anthropics_error_and_names_the_field(
    bench, claude, engine, more, place
):
    """No turn, no call of the engine."""
    with pytest.raises(BadRequestError) as told:
        await ask(claude, extra_body=more)
    error = told.value.body["error"]
    assert "invalid_request_error" == error["type"]
    assert error["message"].startswith(place)
    assert not engine.calls
    assert not bench.events()


async def test_errors_have_anthropics_shape(bench, claude, engine):
    """The engine's, a wrong token's, an unknown address'; the client reads them."""
    engine.mode = "error"
    with pytest.raises(BadRequestError, match="the prompt is too long"):
        await ask(claude)
    assert ["the prompt is too long"] == [turn.error for turn in bench.turns()]
    with pytest.raises(APIStatusError) as told:
        await ask(claude.with_options(api_key="wrong"))
    assert (401, "authentication_error") == (
        told.value.status_code,
        told.value.body["error"]["type"],
    )
    engine.mode = "garbage"
    with pytest.raises(APIStatusError) as told:
        await ask(claude)
    assert (502, "api_error") == (told.value.status_code, told.value.body["error"]["type"])
    await bench.seal()
    with pytest.raises(APIStatusError) as told:
        await ask(claude)
    assert 409 == told.value.status_code


@pytest.mark.parametrize("mode", ["die", "stream_error"])
async def test_a_stream_that_breaks_ends_with_an_error_event(bench, engine, mode):
    """No stop reason and no message_stop is seen; the turn has what came and the error."""
    engine.mode = mode
    body = {"model": "m", "max_tokens": 9, "messages": HI, "stream": True}
    _, _, answer = await bench.post("/e/e1/v1/messages", body, token=bench.token())
    assert b"message_stop" not in answer
    assert b"message_delta" not in answer
    last = answer.strip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error\ndata: ")
    assert "error" == json.loads(last.split(b"data: ")[1])["type"]
    assert bench.turns()[0].error


async def test_the_end_of_a_message_waits_for_the_log(make):
    """Deltas pass at once; content_block_stop, message_delta and message_stop do not."""
    from aiohttp import ClientSession

    from .test_ack import SlowLog

    log = SlowLog()
    async with make(log) as bench, ClientSession() as session:
        headers = {"x-api-key": bench.token()}
        body = {"model": "m", "max_tokens": 9, "messages": HI, "stream": True}
        url = f"{bench.url}/e/e1/v1/messages"
        async with session.post(url, json=body, headers=headers) as answer:
            seen = b""
            while seen.count(b"event: content_block_delta") < 12:
                seen += await answer.content.readany()
            await log.asked.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer.content.readany(), 0.05)
            assert b"stop" not in seen.replace(b"stop_reason", b"").replace(b"stop_sequence", b"")
            log.go.set()
            rest = await answer.content.read()
    assert rest.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


async def test_typed_models_accept_every_reply_and_every_event(bench, engine):
    """Strictly, field by field, with the client's own models."""
    for name, message in SCRIPTS.items():
        engine.script = [message]
        for stream in (False, True):
            body = {
                "model": "m", "max_tokens": 9, "messages": HI, "stream": stream, "tools": [TOOL],
                "thinking": {"type": "adaptive"},
            }  # fmt: skip
            _, _, answer = await bench.post("/e/e1/v1/messages", body, token=bench.token())
            if not stream:
                Message.model_validate_json(answer)
                continue
            for event in answer.strip().split(b"\n\n"):
                named, data = event.split(b"\ndata: ")
                assert named.removeprefix(b"event: ").decode() == json.loads(data)["type"]
                if json.loads(data)["type"] != "ping":
                    EVENT.validate_json(data)
        assert name


async def test_tokens_are_counted_by_the_engine_and_nothing_is_recorded(bench, claude, engine):
    """messages/count_tokens; an engine that cannot count is a clear error."""
    counted = await claude.messages.count_tokens(model="policy", system="s", messages=HI)
    prompt = prompt_ids([{"role": "system", "content": "s"}, *HI])
    assert len(prompt) == counted.input_tokens
    assert not bench.events()
    engine.mode = "error"
    with pytest.raises(BadRequestError, match="cannot count"):
        await claude.messages.count_tokens(model="policy", messages=HI)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"thinking": {"type": "disabled"}},
        {"tools": [TOOL]},
        {"messages": [*HI, {"role": "assistant", "content": "I "}]},
    ],
)
async def test_the_prompt_that_is_counted_is_the_one_that_would_be_sampled_from(
    claude, engine, more
):
    """With what its rendering depends on: tools, thinking, a reply that is to be gone on with."""
    await claude.messages.count_tokens(**{"model": "policy", "messages": HI, **more})
    await ask(claude, **more)
    (counted,), (sampled,) = engine.tokenized, engine.calls
    for name in (
        "messages", "tools", "chat_template_kwargs", "continue_final_message",
        "add_generation_prompt",
    ):  # fmt: skip
        assert sampled.get(name) == counted.get(name), name


@pytest.mark.parametrize(
    ("mode", "status", "kind"),
    [("busy", 503, "overloaded_error"), ("broken", 502, "api_error")],
)
async def test_counting_tokens_can_be_tried_again_while_an_engine_is_busy(
    bench, engine, mode, status, kind
):
    """As while its weights are swapped: an error that SDKs repeat, with Retry-After."""
    engine.mode = mode
    body = {"model": "policy", "messages": HI}
    found, headers, answer = await bench.post(
        "/e/e1/v1/messages/count_tokens", body, token=bench.token()
    )
    assert (status, kind) == (found, json.loads(answer)["error"]["type"])
    assert "1" == headers["Retry-After"]
    assert "x-should-retry" not in headers


async def test_models_are_listed_in_anthropics_shape(bench, claude):
    """Both dialects share the address; who asks is told by a header of Anthropic's clients."""
    models = await claude.models.list()
    assert [("policy", "model")] == [(model.id, model.type) for model in models.data]
    assert "policy" == (await claude.models.retrieve("policy")).id
    assert "policy" == (await bench.agent().models.retrieve("policy")).id
    with pytest.raises(APIStatusError) as told:
        await claude.models.retrieve("none")
    assert 404 == told.value.status_code


def test_an_assistants_last_message_is_the_beginning_of_the_reply():
    """The engine goes on in the same message."""
    body = json.dumps({"messages": [*HI, {"role": "assistant", "content": "I "}]}).encode()
    asked = json.loads(MESSAGES.parse(body, RequestRules()).body)
    assert (True, False) == (asked["continue_final_message"], asked["add_generation_prompt"])


SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}
FORM = {
    "type": "json_schema",
    "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"output_config": {"format": SCHEMA}}, {"response_format": FORM}),
        ({"output_format": SCHEMA}, {"response_format": FORM}),
        (
            {"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"x": 1}},
            {"chat_template_kwargs": {"enable_thinking": True, "x": 1}},
        ),
        (
            {"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": True}},
            {"chat_template_kwargs": {"enable_thinking": True}},
        ),
        ({"mcp_servers": [], "container": None}, {"mcp_servers": None, "container": None}),
        ({"service_tier": "auto", "betas": ["x"]}, {"service_tier": None, "betas": None}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": None, "tools": None}),
        (
            {"tools": [{**TOOL, "type": "custom", "strict": True}]},
            {"tools": [{"type": "function", "function": {
                "name": "look", "description": "looks", "parameters": {"type": "object"},
                "strict": True,
            }}]},
        ),
    ],
)  # fmt: skip
def test_fields_in_the_words_of_chats(more, expected):
    """What the engine can do is asked of it; what is for Anthropic's servers alone is left out."""
    asked = sent(HI, **more)
    assert expected == {name: asked.get(name) for name in expected}


def sent(messages, **more):
    body = {"messages": messages, **more}
    return json.loads(MESSAGES.parse(json.dumps(body).encode(), RequestRules()).body)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "developer", "content": "a"}, [{"role": "system", "content": "a"}]),
        (
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "so"}]},
            [{"role": "assistant", "content": "so", "reasoning": "hm"}],
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "look"}]},
            [{"role": "assistant", "content": None, "tool_calls": [tool_call("look", "{}", "c")]}],
        ),
        (
            {"role": "user", "content": [
                {"type": "text", "text": "before"},
                {"type": "tool_result", "tool_use_id": "c"},
                {"type": "text", "text": "behind"}]},
            [
                {"role": "user", "content": "before"},
                {"role": "tool", "tool_call_id": "c", "content": ""},
                {"role": "user", "content": "behind"},
            ],
        ),
        (
            {"role": "user", "content": [{"type": "document", "source": {
                "type": "text", "media_type": "text/plain", "data": "a page"}}]},
            [{"role": "user", "content": "a page"}],
        ),
    ],
)  # fmt: skip
def test_blocks_of_a_message_in_the_words_of_chats(message, expected):
    """Nothing that was said is lost, and it stays in its order."""
    assert [HI[0], *expected] == sent([*HI, message])["messages"]
