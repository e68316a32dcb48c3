"""Anthropic's own tools in Messages: what clients run is a function, what servers run is left out."""

import json

import pytest

from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.messages import MESSAGES
from odradek.proxy.dialects.tools.hosted import HEADER
from odradek.proxy.errors import BadRequest
from tests.support.engines.stub_engine import tool_call

HI = [{"role": "user", "content": "hi"}]
LOOK = {"name": "look", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
PATH = "/e/e1/v1/messages"


def asked(messages=HI, hosted="drop", **more):
    body = {"messages": messages, **more}
    return MESSAGES.parse(json.dumps(body).encode(), RequestRules(hosted=hosted))


def names(ask):
    return [tool["function"]["name"] for tool in json.loads(ask.body).get("tools", ())]


HOSTED = [
    "web_search_20250305", "web_fetch_20250910", "code_execution_20250825", "computer_20250124",
    "tool_search_tool_regex_20251119", "tool_search_tool_bm25_20251119", "mcp_toolset", "advisor",
    "bash", "of_next_year_20270101",
]  # fmt: skip


@pytest.mark.parametrize("kind", HOSTED)
def test_a_hosted_tool_is_left_out_or_refused(kind):
    """By its type, whatever else it says; a type without its version is nobody's."""
    tool = {"type": kind, "name": 5, "input_schema": "x"}
    ask = asked(tools=[tool, LOOK])
    assert (["look"], (kind,)) == (names(ask), ask.dropped)
    with pytest.raises(BadRequest, match=kind) as refused:
        asked(tools=[LOOK, tool], hosted="refuse")
    assert "tools.1.type" == refused.value.param


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [
        ("bash_20250124", "bash", "restart"),
        ("bash_20241022", "bash", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "view_range"),
        ("text_editor_20250124", "str_replace_editor", "old_str"),
        ("memory_20250818", "memory", "old_path"),
    ],
)
def test_a_tool_that_the_client_runs_gets_the_schema_that_claude_knows(kind, name, field):
    """The call is answered like any other."""
    ask = asked(tools=[{"type": kind, "name": name, "max_characters": 10}])
    (tool,) = json.loads(ask.body)["tools"]
    function = tool["function"]
    assert (name, ()) == (function["name"], ask.dropped)
    assert field in function["parameters"]["properties"]
    assert function["description"]


@pytest.mark.parametrize(
    ("tools", "choice", "expected", "dropped"),
    [
        ([SEARCH, LOOK], {"type": "tool", "name": "web_search"}, "auto", True),
        ([SEARCH, LOOK], {"type": "tool", "name": "web_search",
                          "disable_parallel_tool_use": True}, "auto", True),
        ([SEARCH], {"type": "any"}, None, True),
        ([SEARCH, LOOK], {"type": "any"}, "required", False),
        ([SEARCH, LOOK], {"type": "none"}, "none", False),
        ([SEARCH, LOOK], {"type": "tool", "name": "look"},
         {"type": "function", "function": {"name": "look"}}, False),
    ],
)  # fmt: skip
def test_a_choice_of_what_was_left_out_is_no_choice(tools, choice, expected, dropped):
    """The turn says so, and other wishes stay."""
    ask = asked(tools=tools, tool_choice=choice)
    body = json.loads(ask.body)
    assert expected == body.get("tool_choice")
    assert ("web_search_20250305", *["tool_choice"] * dropped) == ask.dropped
    assert (not choice.get("disable_parallel_tool_use")) == body.get("parallel_tool_calls", True)


def test_servers_that_only_anthropic_can_ask_are_left_out_and_named():
    """Empty ones are none."""
    mcp = [{"type": "url", "url": "http://x.test", "name": "x"}]
    ask = asked(mcp_servers=mcp, container="c")
    assert {"container", "mcp_servers"} == set(ask.dropped)
    assert not {"container", "mcp_servers"} & json.loads(ask.body).keys()
    assert () == asked(mcp_servers=[], container=None).dropped
    with pytest.raises(BadRequest, match="mcp_servers"):
        asked(mcp_servers=mcp, hosted="refuse")


SERVED = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
    {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {}},
    {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "m", "content": []},
    {"type": "container_upload", "file_id": "f"},
]


@pytest.mark.parametrize("block", SERVED, ids=[block["type"] for block in SERVED])
def test_a_block_of_a_hosted_tool_is_left_out_of_a_history(block):
    """A message of nothing else with it."""
    said = {"role": "assistant", "content": [{"type": "text", "text": "so"}, block]}
    ask = asked([*HI, said, {"role": "assistant", "content": [block]}, *HI])
    messages = json.loads(ask.body)["messages"]
    assert ["hi", "so", "hi"] == [message["content"] for message in messages]
    assert (block["type"],) == ask.dropped
    with pytest.raises(BadRequest, match=r"messages\.1\.content\.1\.type"):
        asked([*HI, said], hosted="refuse")


def test_what_a_client_shows_of_its_own_searches_is_text():
    """Also within a result; a reference to a tool within it says nothing to a model."""
    result = {"type": "search_result", "source": "http://x.test", "title": "t",
              "content": [{"type": "text", "text": "a"}], "citations": {"enabled": True}}  # fmt: skip
    reference = {"type": "tool_reference", "tool_name": "look"}
    called = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "look"}]}
    answer = {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c", "content": [reference, result]},
        {"type": "tool_result", "tool_use_id": "c", "content": [reference]}]}  # fmt: skip
    ask = asked([*HI, called, answer])
    assert [
        {"role": "assistant", "content": None, "tool_calls": [tool_call("look", "{}", "c")]},
        {"role": "tool", "tool_call_id": "c", "content": "t <http://x.test>\na"},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ] == json.loads(ask.body)["messages"][1:]
    assert ("tool_reference",) == ask.dropped


def test_a_summary_in_words_is_the_models_own():
    """Anthropic's servers write it in the open."""
    said = {"role": "assistant", "content": [{"type": "compaction", "content": "was"}]}
    assert "was" == json.loads(asked([said, *HI]).body)["messages"][0]["content"]


async def test_the_turn_and_the_reply_say_what_was_left_out(bench):
    """Here as in every dialect."""
    body = {"model": "m", "max_tokens": 9, "messages": HI, "tools": [SEARCH]}
    status, headers, _ = await bench.post(PATH, body, token=bench.token())
    assert (200, SEARCH["type"]) == (status, headers[HEADER])
    assert [(SEARCH["type"],)] == [turn.request.dropped for turn in bench.turns()]
