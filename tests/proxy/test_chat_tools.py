"""A chat's tools that are no functions: text tools, and hosted ones."""

import json

import pytest

from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.tools.hosted import HEADER
from odradek.proxy.errors import BadRequest
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.schemas.sampling import sampling_of
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import said_ids, tool_call

from .conftest import END
from .test_chunkings import events, relayed
from .test_chunkings import told as chunk

HI = [{"role": "user", "content": "hi"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"b": 1.0, "a": {}}}}
RUN = {"type": "custom", "custom": {
    "name": "run", "description": "Runs.",
    "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}}}  # fmt: skip
SEARCH = {"type": "web_search", "web_search": {"enable": True}}
TEXT = 'print("é")\n'
SAID = {
    "content": "so",
    "tool_calls": [
        tool_call("look", "{}", "c0"),
        tool_call("run", json.dumps({"input": TEXT}, indent=1), "c1"),
        tool_call("run", "half \\", "c2"),
    ],
}
CALLS = [
    tool_call("look", "{}", "c0"),
    {"id": "c1", "type": "custom", "custom": {"name": "run", "input": TEXT}},
    {"id": "c2", "type": "custom", "custom": {"name": "run", "input": "half \\"}},
]


PEEK = {"type": "function", "function": {"name": "peek"}}


def allowed(mode, *tools):
    """A choice among some tools, as a chat spells it."""
    named = [
        {"type": tool["type"], tool["type"]: {"name": tool[tool["type"]]["name"]}} for tool in tools
    ]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def asked(hosted="drop", **more):
    return CHAT.parse(json.dumps({"messages": HI, **more}).encode(), RequestRules(hosted=hosted))


def sent(**more):
    return json.loads(asked(**more).body)


def test_a_text_tool_becomes_a_function_and_functions_stay_as_they_came():
    """Byte for byte, since a template prints them."""
    ask = asked(tools=[LOOK, RUN])
    assert json.dumps(LOOK).encode() in ask.body
    function = json.loads(ask.body)["tools"][1]["function"]
    assert "Runs.\n\nThe input follows this regular expression:\na+" == function["description"]
    assert ["input"] == function["parameters"]["required"]
    assert (None, ()) == (asked(tools=[LOOK]).origin, ask.dropped)


async def conversation(bench, history, *, stream):
    """The assistant's message as the agent has it, whole or put together from its chunks."""
    body = {"model": "policy", "messages": history, "tools": [LOOK, RUN, SEARCH], "stream": stream}
    status, headers, answer = await bench.post(
        "/e/e1/v1/chat/completions", body, token=bench.token()
    )
    assert (200, "web_search") == (status, headers[HEADER])
    if not stream:
        return json.loads(answer)["choices"][0]["message"]
    made = {"role": "assistant", "content": "", "tool_calls": []}
    for event in answer.strip().split(b"\n\n")[:-1]:
        (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
        made["content"] += choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls", ()):
            if call["index"] == len(made["tool_calls"]):
                kind = call["type"]
                made["tool_calls"].append({"id": call["id"], "type": kind, kind: {}})
            known = made["tool_calls"][call["index"]]
            for name, text in call[known["type"]].items():
                known[known["type"]][name] = known[known["type"]].get(name, "") + text
    return made


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_with_text_tools_is_one_sequence(bench, engine, stream):
    """The agent gets its own kind of call, the engine its own words."""
    engine.script = [SAID, {"content": "done"}]
    message = await conversation(bench, HI, stream=stream)
    assert CALLS == message["tool_calls"]
    results = [{"role": "tool", "tool_call_id": f"c{n}", "content": "seen"} for n in range(3)]
    await conversation(bench, [*HI, message, *results], stream=stream)
    turns = bench.turns()
    continuity = Continuity()
    assert ["first", "append"] == [continuity.add(turn) for turn in turns]
    assert SAID["tool_calls"] == engine.calls[1]["messages"][1]["tool_calls"]
    assert SAID["tool_calls"] == parsed(turns[0].reply.message)["tool_calls"]
    assert [*said_ids(SAID), END] == unpack_ids(turns[0].completion.ids).tolist()
    assert [("web_search",)] * 2 == [turn.request.dropped for turn in turns]


@pytest.mark.parametrize(
    ("more", "tools", "dropped"),
    [
        ({"tools": [SEARCH, LOOK]}, ["look"], ("web_search",)),
        ({"tools": [{"type": "retrieval"}]}, None, ("retrieval",)),
        ({"tools": [SEARCH], "tool_choice": "required", "parallel_tool_calls": True}, None,
         ("web_search", "tool_choice")),
        ({"tools": [LOOK, SEARCH], "tool_choice": {"type": "web_search"}}, ["look"],
         ("web_search", "tool_choice")),
        ({"web_search_options": {}, "tools": [LOOK]}, ["look"], ("web_search_options",)),
        ({"web_search_options": None}, None, ()),
        ({"tools": [RUN, {"type": "function", "function": {"name": "run"}}]},
         ["run_9a46125a", "run"], ()),
        ({"tools": [{**LOOK, "type": None}]}, ["look"], ()),
        ({"tools": [{**LOOK, "type": None}, RUN]}, ["look", "run"], ()),
        ({"tools": [LOOK, {**RUN, "type": None}]}, ["look", "run"], ()),
        ({"tools": [{**LOOK, "type": None}, SEARCH]}, ["look"], ("web_search",)),
    ],
)  # fmt: skip
def test_what_no_engine_has_is_left_out_and_named(more, tools, dropped):
    """Types of tools that some servers have, and a field for a search."""
    ask = asked(**more)
    body = json.loads(ask.body)
    names = [tool["function"]["name"] for tool in body["tools"]] if "tools" in body else None
    assert (tools, dropped) == (names, ask.dropped)
    assert not [tool for tool in body.get("tools", ()) if tool["type"] != "function"]
    if dropped:
        assert not {"web_search_options", "tool_choice", "parallel_tool_calls"} & body.keys()
        with pytest.raises(BadRequest, match=dropped[0]):
            asked(hosted="refuse", **more)


@pytest.mark.parametrize("tools", [5, "x", [5], [{"type": 5}], {"type": "custom"}])
def test_tools_that_are_none_go_to_the_engine_as_they_are(tools):
    """It says what is wrong with them."""
    assert tools == sent(tools=tools)["tools"]


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].custom"),
        ({"tools": [LOOK, {"type": "custom", "custom": {}}]}, "tools[1].custom"),
        ({"tools": [RUN], "tool_choice": {"type": "custom", "custom": {"name": "no"}}},
         "tool_choice.custom.name"),
        ({"tools": [RUN], "messages": [{"role": "assistant", "tool_calls": [
            {"type": "custom", "custom": {"input": 5}}]}]}, "messages[0].tool_calls[0].custom.input"),
    ],
)  # fmt: skip
def test_a_text_tool_that_cannot_be_read_is_a_400_that_names_it(more, place):
    """Nothing is guessed."""
    with pytest.raises(BadRequest) as refused:
        asked(**more)
    assert place == refused.value.param


def test_a_text_tool_may_be_forced():
    """By its name, as the engine's function."""
    choice = {"type": "custom", "custom": {"name": "run"}}
    chosen = sent(tools=[RUN], tool_choice=choice)["tool_choice"]
    assert {"type": "function", "function": {"name": "run"}} == chosen


def test_a_history_may_call_a_text_tool_that_is_not_offered_any_more():
    """The last call of an agent often has no tools."""
    history = [*HI, {"role": "assistant", "tool_calls": CALLS}]
    (call,) = sent(messages=history)["messages"][1]["tool_calls"][1:2]
    assert tool_call("run", json.dumps({"input": TEXT}, separators=(",", ":"), ensure_ascii=False),
                     "c1") == call  # fmt: skip


@pytest.mark.parametrize("names", [["ru", "n"], ["run", ""], ["lo", "ok"]])
def test_a_name_that_comes_in_pieces_is_whole_before_the_agent_hears_of_it(names):
    """Which kind of call it is, the whole name decides; one without arguments comes at the end."""
    ask = asked(tools=[LOOK, RUN], stream=True)
    pieces = [
        {"index": 0, "id": "c0", "type": "function", "function": {"name": names[0]}},
        {"index": 0, "function": {"name": names[1], "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"input": '}},
        {"index": 0, "function": {"arguments": '"a"}'}},
        {"index": 1, "id": "c1", "type": "function", "function": {"name": "run"}},
    ]
    wire = b"".join(chunk({"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]})
                    for one in pieces)  # fmt: skip
    wire += chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    relay = relayed(ask, [wire, b"data: [DONE]\n\n"])
    calls = {}
    for event in events(b"".join(relay.pieces))[:-1]:
        for call in json.loads(event)["choices"][0]["delta"].get("tool_calls", ()):
            kind = call.get("type") or calls[call["index"]]["type"]
            known = calls.setdefault(call["index"], {"type": kind, "said": {}})
            for name, text in call[kind].items():
                known["said"][name] = known["said"].get(name, "") + text
    text = {"name": "run", "input": "a"}
    function = {"name": "look", "arguments": '{"input": "a"}'}
    assert (function if "lo" in names else text) == calls[0]["said"]
    assert {"type": "custom", "said": {"name": "run", "input": ""}} == calls[1]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (allowed("auto", RUN), "auto"), (allowed("required", LOOK, RUN), "required"),
        ({"type": "auto"}, "auto"), ({"type": "none"}, "none"), ({"type": "required"}, "required"),
        ("auto", "auto"), (LOOK, LOOK), ({**LOOK, "function": {"name": "look"}},) * 2,
        ({"type": "custom", "custom": {"name": "run"}},
         {"type": "function", "function": {"name": "run"}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tools", [[LOOK, RUN], [LOOK, RUN, SEARCH]])
def test_a_choice_reaches_the_engine_in_words_that_it_knows(choice, told, tools):
    """`allowed_tools` narrows the tools; a word may stand in an object."""
    assert told == sent(tools=tools, tool_choice=choice)["tool_choice"]


@pytest.mark.parametrize("choice", [allowed("auto", LOOK), {"type": "auto"}])
def test_the_same_where_all_tools_are_functions(choice):
    """No engine takes such an object."""
    assert "auto" == sent(tools=[LOOK, PEEK], tool_choice=choice)["tool_choice"]
    assert "" == sampling_of(asked(tools=[LOOK, PEEK], tool_choice=choice).sampling).altered_by
    forced = {"tools": [LOOK, PEEK], "tool_choice": allowed("required", LOOK)}
    assert "tool_choice" == sampling_of(asked(**forced).sampling).altered_by


@pytest.mark.parametrize(
    ("more", "tools", "dropped"),
    [
        ({"tools": [LOOK, RUN], "tool_choice": allowed("auto", RUN)}, ["run"], ()),
        ({"tools": [LOOK, RUN], "tool_choice": allowed("auto", LOOK)}, ["look"], ()),
        ({"tools": [LOOK, RUN], "tool_choice": allowed("auto", LOOK, RUN)}, ["look", "run"], ()),
        ({"tools": [LOOK, PEEK], "tool_choice": allowed("auto", PEEK)}, ["peek"], ()),
        ({"tools": [LOOK, RUN], "tool_choice": allowed("auto", PEEK)}, None, ()),
        ({"tools": [LOOK, RUN, SEARCH], "tool_choice": allowed("auto", RUN)}, ["run"],
         ("web_search",)),
        ({"tools": [LOOK, RUN], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [
            {"type": "custom", "name": "run"}]}}, ["run"], ()),
    ],
)  # fmt: skip
def test_of_the_tools_that_are_allowed_the_engine_gets_those_it_can_have(more, tools, dropped):
    """Text tools as functions; with none of them, no tools at all."""
    ask = asked(**more)
    body = json.loads(ask.body)
    names = [tool["function"]["name"] for tool in body["tools"]] if "tools" in body else None
    assert (tools, dropped) == (names, ask.dropped)
    assert ("auto" if tools else None) == body.get("tool_choice")


@pytest.mark.parametrize("choice", [{"type": ["auto"]}, {"type": {}}, {"type": None}, {}, [], 3])
def test_a_choice_that_is_none_of_ours_is_the_engines_to_refuse(choice):
    """It goes there as it came."""
    assert choice == sent(tools=[LOOK, RUN], tool_choice=choice)["tool_choice"]
