"""OpenAI's Responses through the proxy, with the unmodified client."""

import asyncio
import json

import pytest
from openai import APIError, APIStatusError, BadRequestError
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.responses import RESPONSES
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import said_ids, tool_call

from .conftest import END, prompt_ids, whole_messages
from .test_messages import SCRIPTS

EVENT = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
PATH = "/e/e1/v1/responses"


def ask(agent, **more):
    return agent.responses.create(**{"model": "policy", "input": "hi", **more})


async def test_a_response_is_in_the_log_with_the_engines_own_tokens(bench, engine):
    """Text, usage and ids are the engine's; the turn holds the messages in the form of chats."""
    reply = await ask(
        bench.agent(), instructions="be brief", temperature=0.5, max_output_tokens=50,
        metadata={"k": "v"}, extra_body={"top_k": 3},
    )  # fmt: skip
    (turn,), (asked,) = bench.turns(), engine.calls
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert chat == asked["messages"] == [parsed(message) for message in turn.request.messages]
    assert (50, 0.5, 3) == tuple(
        asked[name] for name in ("max_completion_tokens", "temperature", "top_k")
    )
    assert "metadata" not in asked
    assert prompt_ids(chat) == unpack_ids(turn.prompt.ids).tolist()
    assert [*reply.output_text.encode(), END] == unpack_ids(turn.completion.ids).tolist()
    assert ("responses", "policy", "") == (turn.dialect, turn.model, turn.untrainable)
    assert ("completed", 0.5, "be brief", {"k": "v"}) == (
        reply.status, reply.temperature, reply.instructions, reply.metadata,
    )  # fmt: skip
    assert turn.usage.prompt_tokens == reply.usage.input_tokens
    assert turn.usage.completion_tokens == reply.usage.output_tokens
    assert turn.usage.cached_tokens == reply.usage.input_tokens_details.cached_tokens


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_streamed_response_is_the_whole_one_told_in_events(bench, engine, name):
    """In order, numbered, as the client's typed models have them; the turns are equal."""
    engine.script = [SCRIPTS[name]]
    agent = bench.agent()
    whole = await ask(agent, tools=[TOOL])
    events = [event async for event in await ask(agent, tools=[TOOL], stream=True)]
    kinds = [event.type for event in events]
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert ["response.created", "response.in_progress"] == kinds[:2]
    assert "response.completed" == kinds[-1]
    last = events[-1].response
    assert without_ids(whole.output) == without_ids(last.output)
    assert whole.usage == last.usage
    said = {}
    for event in events:
        if event.type.endswith(".delta"):
            said[event.item_id] = said.get(event.item_id, "") + event.delta
        if event.type == "response.output_item.done":
            assert event.item == last.output[event.output_index]
    full = {"reasoning": "content", "message": "content"}
    for item in last.output:
        told = item.arguments if item.type == "function_call" else item.content[0].text
        assert told == said.get(item.id, "")
        assert full.get(item.type, "arguments")
    first, second = bench.turns()
    assert first.completion == second.completion
    assert [*said_ids(SCRIPTS[name]), END] == unpack_ids(second.completion.ids).tolist()


def without_ids(output):
    return [{**item.to_dict(), "id": ""} for item in output]


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_with_tools_is_one_sequence(bench, engine, chained, stream):
    """By the reply's id or by sending its items back: the next prompt begins with the same ids."""
    engine.script = [SCRIPTS["two tools"], SCRIPTS["thinking"], SCRIPTS["text"]]
    agent = bench.agent()
    history = [{"role": "user", "content": "hi"}]
    previous, reply = None, None
    for n in range(3):
        new = history
        if n:
            calls = [item for item in reply.output if item.type == "function_call"]
            new = [
                {"type": "function_call_output", "call_id": call.call_id, "output": "seen"}
                for call in calls
            ] or [{"role": "user", "content": [{"type": "input_text", "text": "go on"}]}]
            history = [*history, *(item.to_dict() for item in reply.output), *new]
        more = {"input": new if chained else history, "instructions": "always"}
        if chained and previous:
            more["previous_response_id"] = previous
        reply = await ask(agent, tools=[TOOL], stream=stream, **more)
        if stream:
            async for event in reply:
                last = event
            reply = last.response
        previous = reply.id
    turns = bench.turns()
    continuity = Continuity()
    assert ["first", "append", "append"] == [continuity.add(turn) for turn in turns]
    roles = [message["role"] for message in engine.calls[2]["messages"]]
    expected = ["system", "user", "assistant", "tool", "tool", "assistant", "user"]
    assert expected == roles
    assert engine.calls[2]["messages"] == whole_messages(turns)[turns[2].turn_id]
    assert 1 == len({len(turn.request.tools) for turn in turns[1:]})


async def test_an_unknown_previous_response_is_openais_error(bench, engine):
    """Of another episode, not stored, or never there: 400, and the field is named."""
    kept = await ask(bench.agent("e2"))
    thrown = await ask(bench.agent(), store=False)
    for name in (kept.id, thrown.id, "resp_x"):
        with pytest.raises(BadRequestError) as told:
            await ask(bench.agent(), previous_response_id=name)
        assert "previous_response_not_found" == told.value.code
        assert "previous_response_id" == told.value.param
        assert f"'{name}' not found" in told.value.message
    assert 2 == len(engine.calls)
    assert 200 == (await bench.post(
        "/e/e2/v1/responses", {"input": "x", "previous_response_id": kept.id},
        token=bench.token("e2"),
    ))[0]  # fmt: skip


async def test_input_in_all_spellings(bench, engine):
    """Roles, parts, images by address, earlier replies, refusals; as chats have them."""
    await ask(bench.agent(), input=[
        {"role": "developer", "content": "a"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "user", "content": [
            {"type": "input_text", "text": "see"},
            {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "low"},
        ]},
        {"role": "assistant", "content": [
            {"type": "output_text", "text": "so"}, {"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [
            {"type": "input_text", "text": "seen"}]},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ])  # fmt: skip
    image = {"url": "https://x.test/a.png", "detail": "low"}
    assert [
        {"role": "system", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": [
            {"type": "text", "text": "see"}, {"type": "image_url", "image_url": image}]},
        {"role": "assistant", "content": "sono", "tool_calls": [tool_call("look", "{}", "c")]},
        {"role": "tool", "tool_call_id": "c", "content": "seen"},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ] == engine.calls[0]["messages"]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "name": "look"}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
        (
            {"tool_choice": {
                "type": "allowed_tools", "mode": "auto",
                "tools": [{"type": "function", "name": "look"}],
            }},
            {"tool_choice": "auto"},
        ),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"text": {"format": {"type": "json_object"}}},
         {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
            {"response_format": {
                "type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": None}}},
        ),
        ({"top_logprobs": 2}, {"top_logprobs": 2}),
        ({"seed": 5}, {"seed": 5}),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [
                {"type": "function", "name": "look"}]}},
            {"tool_choice": "required"},
        ),
        (
            {"text": {"format": {
                "type": "json_schema", "name": "n", "schema": {}, "description": "d"}}},
            {"response_format": {"type": "json_schema", "json_schema": {
                "name": "n", "schema": {}, "strict": None, "description": "d"}}},
        ),
        ({"truncation": "disabled", "background": False}, {}),
    ],
)  # fmt: skip
async def test_fields_in_the_words_of_chats(bench, engine, more, expected):
    """What the chat endpoint can do is asked of it."""
    reply = await ask(bench.agent(), tools=[TOOL], extra_body=more)
    (asked,) = engine.calls
    assert expected == {name: asked[name] for name in expected}
    function = {"name": "look", "parameters": {"type": "object"}, "strict": False}
    assert [{"type": "function", "function": function}] == asked["tools"]
    assert "completed" == reply.status


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"tools": [{"type": "web_search"}, {"name": "x"}]}, "tools[1]"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "no"}}, "tool_choice.name"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": [{"type": "nonsense"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].image_url"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"input": [{"role": "assistant", "content": [
            {"type": "input_image", "image_url": "https://x.test/a.png"}]}]},
         "input[0].content[0]"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_openais_error_and_names_the_field(bench, engine, more, place):
    """No turn, no call of the engine."""
    with pytest.raises(BadRequestError) as told:
        await ask(bench.agent(), extra_body=more)
    assert ("invalid_request_error", place) == (told.value.type, told.value.param)
    assert not engine.calls
    assert not bench.events()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("finish", "why"), [("length", "max_output_tokens"),
                                             ("content_filter", "content_filter")])  # fmt: skip
async def test_a_response_that_was_cut_is_incomplete(bench, engine, finish, why, stream):
    """With OpenAI's reason, in the reply and in the last event."""
    engine.finish = finish
    reply = await ask(bench.agent(), stream=stream)
    if stream:
        events = [event async for event in reply]
        assert "response.incomplete" == events[-1].type
        reply = events[-1].response
    assert ("incomplete", why) == (reply.status, reply.incomplete_details.reason)
    assert "incomplete" == reply.output[-1].status


async def test_log_probabilities_are_shown_to_those_who_include_them(bench):
    """As the engine gave them, whole and streamed."""
    agent = bench.agent()
    include = ["message.output_text.logprobs"]
    whole = await ask(agent, include=include)
    events = [event async for event in await ask(agent, include=include, stream=True)]
    text = whole.output_text.encode()
    assert [*map(str, text), str(END)] == [one.token for one in whole.output[0].content[0].logprobs]
    streamed = events[-1].response
    tokens = [one.token for one in streamed.output[0].content[0].logprobs]
    # A byte in the middle of a character makes no text, and the end is none.
    assert set(tokens) <= {*map(str, streamed.output_text.encode())}
    assert len(tokens) >= len(streamed.output_text)
    assert [] == (await ask(agent)).output[0].content[0].logprobs


async def test_errors_have_openais_shape(bench, engine):
    """The engine's own, one of ours, and what cannot be read."""
    engine.mode = "error"
    with pytest.raises(BadRequestError, match="the prompt is too long"):
        await ask(bench.agent())
    engine.mode = "garbage"
    with pytest.raises(APIStatusError) as told:
        await ask(bench.agent())
    assert 502 == told.value.status_code
    assert [True, True] == [bool(turn.error) for turn in bench.turns()]


@pytest.mark.parametrize("mode", ["die", "stream_error"])
async def test_a_stream_that_breaks_ends_with_an_error_event(bench, engine, mode):
    """The client raises nothing for it, but sees `error` and `response.failed`; never the end."""
    engine.mode = mode
    stream = await ask(bench.agent(), stream=True)
    kinds = [event.type async for event in stream]
    assert ["error", "response.failed"] == kinds[-2:]
    assert not {"response.completed", "response.output_item.done"} & set(kinds)
    assert bench.turns()[0].error


@pytest.mark.parametrize("durable", [True, False])
async def test_the_end_of_a_response_waits_for_the_log(make, durable):
    """Deltas pass at once; *.done and response.completed do not, and never without the turn."""
    from .test_ack import SlowLog

    log = SlowLog()
    async with make(log) as bench:
        stream = await ask(bench.agent(call_s=120 if durable else 0.5), stream=True)
        seen = [await anext(stream) for _ in range(16)]
        await log.asked.wait()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done()
        assert not [event.type for event in seen if event.type.endswith((".done", "completed"))]
        log.failing = not durable
        log.go.set()
        try:
            kinds = [(await waiting).type, *[event.type async for event in stream]]
        except APIError:
            kinds = ["raised"]
        assert ("response.completed" in kinds) is durable


async def test_typed_models_accept_every_reply_and_every_event(bench, engine):
    """Strictly, field by field, with the client's own models."""
    for message in SCRIPTS.values():
        engine.script = [message]
        for stream in (False, True):
            body = {"model": "m", "input": "hi", "stream": stream, "tools": [TOOL]}
            _, _, answer = await bench.post(PATH, body, token=bench.token())
            if not stream:
                Response.model_validate_json(answer)
                continue
            for event in answer.strip().split(b"\n\n"):
                named, data = event.split(b"\ndata: ")
                assert named.removeprefix(b"event: ").decode() == json.loads(data)["type"]
                EVENT.validate_json(data)


async def test_the_memory_of_replies_is_bounded(bench):
    """The newest stay."""
    agent = bench.agent()
    names = [(await ask(agent, input=f"n {n}")).id for n in range(66)]
    with pytest.raises(BadRequestError):
        await ask(agent, previous_response_id=names[1])
    assert "completed" == (await ask(agent, previous_response_id=names[-1])).status


def sent(given, **more):
    body = {"input": given, **more}
    return json.loads(RESPONSES.parse(json.dumps(body).encode(), RequestRules()).body)


def test_what_is_for_openais_servers_alone_is_left_out():
    """Engines refuse some of it, such as options of a stream that there is none of."""
    hints = {
        "service_tier": "auto", "stream_options": {"include_obfuscation": False},
        "safety_identifier": "s", "prompt_cache_key": "k", "include": [], "store": True,
    }  # fmt: skip
    assert not hints.keys() & sent("hi", **hints).keys()
    assert (
        not {"tools", "tool_choice", "parallel_tool_calls"}
        & sent("hi", tools=[], tool_choice="auto", parallel_tool_calls=True).keys()
    )


def test_only_tools_that_are_allowed_reach_the_engine():
    """With what is said of them."""
    tools = [{**TOOL, "name": name, "description": f"d {name}"} for name in "ab"]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{**TOOL, "name": "b"}]}
    (tool,) = sent("hi", tools=tools, tool_choice=allowed)["tools"]
    assert ("b", "d b") == (tool["function"]["name"], tool["function"]["description"])


def test_a_reply_ends_where_the_next_one_begins():
    """Text or thoughts behind a call are of another reply; no item is lost or merged into it."""
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    thought = [{"type": kind, "text": kind[:1]} for kind in ("reasoning_text", "summary_text")]
    said = {"role": "assistant", "content": "so"}
    asked = sent([
        call, said, {"type": "reasoning", "summary": [], "content": thought}, call,
        {"role": "user", "content": [{"type": "text", "text": "plain"}]},
        {"role": "user", "content": [{"type": "refusal", "refusal": "no"}]},
    ])  # fmt: skip
    calls = [tool_call("look", "{}", "c")]
    assert [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "assistant", "content": "so"},
        {"role": "assistant", "content": None, "reasoning": "rs", "tool_calls": calls},
        {"role": "user", "content": "plain"},
        {"role": "user", "content": "no"},
    ] == asked["messages"]


async def test_a_response_says_what_it_was_asked_for(bench):
    """Tools and the response before it among that; a sum of tokens that adds up."""
    first = await ask(bench.agent())
    reply = await ask(bench.agent(), previous_response_id=first.id, tools=[TOOL])
    assert (first.id, "look") == (reply.previous_response_id, reply.tools[0].name)
    assert reply.usage.input_tokens + reply.usage.output_tokens == reply.usage.total_tokens
    assert first.previous_response_id is None


@pytest.mark.parametrize("mode", ["die", "stream_error"])
async def test_a_response_that_failed_says_so_and_why(bench, engine, mode):
    """Its status and its error, in the last event and in the one before it."""
    engine.mode = mode
    *_, told, last = [event async for event in await ask(bench.agent(), stream=True)]
    assert ("failed", "server_error") == (last.response.status, last.response.error.code)
    assert told.message
    assert (told.message, bool(told.code)) == (last.response.error.message, True)


def told(message, tool=TOOL):
    body = {"input": "hi", "tools": [tool], "include": ["message.output_text.logprobs"]}
    asked = RESPONSES.parse(json.dumps(body).encode(), RequestRules())
    choice = {"message": message, "logprobs": {"content": [{"logprob": -0.5}]}}
    return json.loads(RESPONSES.reply(json.dumps({"choices": [choice]}).encode(), asked))


def test_a_responses_tools_have_all_fields():
    """Those that the agent left out are null: typed clients want them."""
    assert [{"type": "function", "name": "look", "description": None, "parameters": None,
             "strict": None}] == told({}, {"type": "function", "name": "look"})["tools"]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "count"), [({"content": "x"}, 1), ({"content": "x", "reasoning": "y"}, 0)]
)
def test_log_probabilities_that_cover_more_than_the_text_are_not_told_as_its_own(message, count):
    """The engine's list is over all that was sampled."""
    assert count == len(told(message)["output"][-1]["content"][0]["logprobs"])
