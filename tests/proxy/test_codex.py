"""Requests as OpenAI's Codex makes them: namespaces, tools that take text, hosted tools, summaries."""

import json

import pytest
from aiohttp import ClientSession
from openai.types.responses import CompactedResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.responses import RESPONSES
from odradek.proxy.dialects.translation import opaque
from odradek.proxy.errors import BadRequest
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import said_ids, tool_call

from .conftest import END

EVENT = TypeAdapter(ResponseStreamEvent)
PATH = "/e/e1/v1/responses"
SCHEMA = {"type": "object", "properties": {"cmd": {"type": "string"}}}
EXEC = {"type": "function", "name": "exec_command", "parameters": SCHEMA, "strict": False}
SPAWN = {"type": "function", "name": "spawn_agent", "parameters": SCHEMA, "strict": False}
TEAM = {"type": "namespace", "name": "team_v1", "description": "A team.", "tools": [SPAWN]}
PATCH = {
    "type": "custom", "name": "apply_patch", "description": "Edits.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"},
}  # fmt: skip
CODE = {"type": "namespace", "name": "code", "description": "", "tools": [{**PATCH, "name": "run"}]}
TOOLS = [EXEC, TEAM, PATCH, CODE, {"type": "web_search", "external_web_access": True}]
CODEX = {
    "model": "policy", "tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"}, "store": False,
    "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
    "text": {"verbosity": "low"}, "client_metadata": {"session_id": "s", "turn": "{}"},
}  # fmt: skip
HI = {
    "type": "message", "id": "msg_1", "role": "user", "phase": None,
    "content": [{"type": "input_text", "text": "hi"}],
    "internal_chat_message_metadata_passthrough": {"turn_id": "t"},
}  # fmt: skip
SYSTEM = {**HI, "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]}
CODE_TEXT = 'const a = "é\\n";\nprint(a) // 😀\t"'
SAID = {
    "reasoning": "hm",
    "content": "so",
    "tool_calls": [
        tool_call("exec_command", '{ "cmd": "ls"}', "c0"),
        tool_call("team_v1__spawn_agent", '{"cmd":"x"}', "c1"),
        tool_call("apply_patch", '{"input":  "*** Begin\\n"}', "c2"),
        tool_call("code__run", json.dumps({"input": CODE_TEXT}), "c3"),
        tool_call("code__run", 'print("half', "c4"),
        tool_call("made.up", "{}", "c5"),
    ],
}
CALLS = [
    ("function_call", "exec_command", None, '{ "cmd": "ls"}'),
    ("function_call", "spawn_agent", "team_v1", '{"cmd":"x"}'),
    ("custom_tool_call", "apply_patch", None, "*** Begin\n"),
    ("custom_tool_call", "run", "code", CODE_TEXT),
    ("custom_tool_call", "run", "code", 'print("half'),
    ("function_call", "made.up", None, "{}"),
]
"""What the agent is told of these calls."""


def sent(given="hi", **more):
    """What the engine is asked."""
    return json.loads(asked(given, **more).body)


def asked(given="hi", hosted="drop", **more):
    body = {"input": given, **more}
    return RESPONSES.parse(json.dumps(body).encode(), RequestRules(hosted=hosted))


async def post(bench, path=PATH, **body):
    status, headers, answer = await bench.post(path, {**CODEX, **body}, token=bench.token())
    return status, headers, answer


async def response(bench, **body):
    """The response, whole or by its last event; each of them as OpenAI's models have it."""
    status, headers, answer = await post(bench, **body)
    assert 200 == status, answer
    if not body.get("stream"):
        Response.model_validate_json(answer)
        return json.loads(answer), headers
    events = [event.split(b"\ndata: ")[1] for event in answer.strip().split(b"\n\n")]
    for event in events:
        EVENT.validate_json(event)
    return json.loads(events[-1])["response"], headers


def calls(output):
    """Kind, name, namespace and text of each call."""
    return [
        (
            item["type"],
            item["name"],
            item.get("namespace"),
            item.get("arguments", item.get("input")),
        )
        for item in output
        if item["type"].endswith("call")
    ]


def test_namespaces_and_tools_for_text_become_functions():
    """With their descriptions and grammars, under names of their own."""
    functions = [tool["function"] for tool in sent(tools=TOOLS)["tools"]]
    names = ["exec_command", "team_v1__spawn_agent", "apply_patch", "code__run"]
    assert names == [function["name"] for function in functions]
    assert SCHEMA == functions[1]["parameters"]
    assert "team_v1: A team." == functions[1]["description"]
    assert "Edits.\n\nThe input follows this Lark grammar:\nstart: X" == functions[2]["description"]
    assert {"input"} == functions[3]["parameters"]["properties"].keys()


def test_what_is_for_openais_servers_does_not_reach_the_engine():
    """Of a whole request of Codex's; the effort is the engine's to know."""
    fields = sent([SYSTEM, HI], **CODEX).keys()
    mine = {"include", "store", "prompt_cache_key", "text", "client_metadata", "input", "reasoning"}
    assert not mine & fields
    assert "medium" == sent([SYSTEM, HI], **CODEX)["reasoning_effort"]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_come_back_as_the_agent_knows_its_tools(bench, engine, stream):
    """Functions with their namespace, texts as texts, whatever nobody offered under its own name."""
    engine.script = [SAID]
    reply, headers = await response(bench, input=[SYSTEM, HI], stream=stream)
    assert CALLS == calls(reply["output"])
    assert [f"c{n}" for n in range(6)] == [
        item["call_id"] for item in reply["output"] if "call_id" in item
    ]
    assert "web_search" == headers["X-Odradek-Dropped"]
    assert TOOLS[:-1] == [
        {name: value for name, value in tool.items() if value is not None or name == "strict"}
        for tool in reply["tools"]
    ]
    (turn,) = bench.turns()
    assert ("web_search",) == turn.request.dropped
    assert [*said_ids(SAID), END] == unpack_ids(turn.completion.ids).tolist()
    message = parsed(turn.reply.message)
    assert SAID["tool_calls"] == message["tool_calls"]


async def test_texts_are_told_while_the_model_writes_them(bench, engine):
    """As deltas of their own kind, each call's in its place, and their done is the whole."""
    engine.script = [SAID]
    _, _, answer = await post(bench, input=[HI], stream=True)
    events = [json.loads(one.split(b"\ndata: ")[1]) for one in answer.strip().split(b"\n\n")]
    kind = "response.custom_tool_call_input"
    done = {one["output_index"]: one["input"] for one in events if one["type"] == f"{kind}.done"}
    told = dict.fromkeys(done, "")
    for one in events:
        if one["type"] == f"{kind}.delta":
            told[one["output_index"]] += one["delta"]
    assert [CALLS[2][3], CALLS[3][3], CALLS[4][3]] == [*done.values()]
    assert done == told
    deltas = [one["delta"] for one in events if one["type"] == f"{kind}.delta"]
    assert len(deltas) > len(CODE_TEXT)
    added = [one["item"] for one in events if one["type"] == "response.output_item.added"]
    assert {""} == {one["input"] for one in added if one["type"] == "custom_tool_call"}


def as_codex(output):
    """Items as Codex hands them back: reasoning only in the form that it does not read."""
    for item in output:
        kept = {name: value for name, value in item.items() if name != "status"}
        if item["type"] == "reasoning":
            kept = {**kept, "content": None}
        yield {**kept, "internal_chat_message_metadata_passthrough": {"turn_id": "t"}}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_of_codex_is_one_sequence(bench, engine, stream):
    """With its reasoning: every prompt begins with the ids that came before."""
    engine.script = [SAID, {**SAID, "reasoning": "ha"}, {"content": "done"}]
    history = [SYSTEM, HI]
    for _ in range(3):
        reply, _ = await response(bench, input=history, stream=stream)
        results = []
        for item in reply["output"]:
            if "call_id" in item:
                kind = "custom_tool_call" if item["type"] == "custom_tool_call" else "function_call"
                results.append({
                    "type": f"{kind}_output", "call_id": item["call_id"], "id": "x",
                    "output": [{"type": "input_text", "text": "seen"}],
                })  # fmt: skip
        history = [*history, *as_codex(reply["output"]), *(results or [HI])]
    continuity = Continuity()
    assert ["first", "append", "append"] == [continuity.add(turn) for turn in bench.turns()]
    roles = [message["role"] for message in engine.calls[1]["messages"]]
    assert ["system", "user", "assistant", *["tool"] * 6] == roles
    assert "hm" == engine.calls[1]["messages"][2]["reasoning"]


HOSTED = [
    {"type": "web_search"}, {"type": "web_search_2025_08_26"}, {"type": "web_search_preview"},
    {"type": "web_search_preview_2025_03_11"}, {"type": "file_search", "vector_store_ids": ["v"]},
    {"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "image_generation"},
    {"type": "computer"}, {"type": "computer_use_preview", "display_width": 1},
    {"type": "mcp", "server_label": "s", "server_url": "http://x.test"}, {"type": "local_shell"},
    {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}},
    {"type": "programmatic_tool_calling"}, {"type": "of_next_year", "name": 5, "tools": {}},
]  # fmt: skip


@pytest.mark.parametrize("tool", HOSTED, ids=[tool["type"] for tool in HOSTED])
def test_a_hosted_tool_is_left_out_or_refused(tool):
    """At the top, within a namespace, among the items; the operator says which."""
    everywhere = {
        "given": [{"type": "additional_tools", "role": "developer", "tools": [EXEC, tool]}, HI],
        "tools": [tool, {**TEAM, "tools": [tool, SPAWN]}],
    }
    ask = asked(**everywhere)
    assert (tool["type"],) == ask.dropped
    names = [tool["function"]["name"] for tool in json.loads(ask.body)["tools"]]
    assert ["team_v1__spawn_agent", "exec_command"] == names
    for fields, place in (
        ({"tools": [EXEC, tool]}, "tools[1].type"),
        ({"tools": [{**TEAM, "tools": [tool]}]}, "tools[0].tools[0].type"),
        ({"given": everywhere["given"]}, "input[0].tools[1].type"),
    ):
        with pytest.raises(BadRequest, match=tool["type"]) as refused:
            asked(hosted="refuse", **fields)
        assert place == refused.value.param


def test_without_any_tool_left_nothing_is_said_of_tools():
    """Engines refuse a choice among no tools."""
    ask = sent(tools=[HOSTED[0]], tool_choice="required", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & ask.keys()


def test_a_kind_of_tool_that_is_no_word_is_recorded_as_other():
    """A header holds it, and somebody else chose it; the number of kinds is bounded."""
    assert ("other",) == asked(tools=[{"type": "a\r\nSet-Cookie: x"}, {"type": "é"}]).dropped
    many = [{"type": f"kind_{n}"} for n in range(100)]
    assert 32 == len(asked(tools=many).dropped)


NAMED = {"type": "function", "function": {"name": "exec_command"}}


@pytest.mark.parametrize(
    ("choice", "expected", "dropped"),
    [
        ("none", "none", ()),
        ("required", "required", ()),
        ({"type": "function", "name": "exec_command"}, "exec_command", ()),
        ({"type": "function", "name": "spawn_agent"}, "team_v1__spawn_agent", ()),
        ({"type": "function", "name": "spawn_agent", "namespace": "team_v1"},
         "team_v1__spawn_agent", ()),
        ({"type": "custom", "name": "apply_patch"}, "apply_patch", ()),
        ({"type": "custom", "name": "run"}, "code__run", ()),
        ({"type": "web_search"}, None, ("web_search", "tool_choice")),
        ({"type": "mcp", "server_label": "s"}, None, ("web_search", "mcp", "tool_choice")),
        ({"type": "shell"}, None, ("web_search", "shell", "tool_choice")),
    ],
)  # fmt: skip
def test_a_choice_of_tool_is_the_engines_function_or_is_left_out(choice, expected, dropped):
    """The model cannot be made to use what is not there; the turn says so."""
    ask = asked(tools=TOOLS, tool_choice=choice)
    chosen = json.loads(ask.body).get("tool_choice")
    assert expected == (chosen["function"]["name"] if isinstance(chosen, dict) else chosen)
    assert (dropped or ("web_search",)) == ask.dropped


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ([{"type": "function", "name": "exec_command"}], ["exec_command"]),
        ([{"type": "custom", "name": "apply_patch"}, {"type": "function", "name": "spawn_agent"}],
         ["team_v1__spawn_agent", "apply_patch"]),
        ([{"type": "namespace", "name": "code"}], ["code__run"]),
        ([{"type": "web_search"}, {"type": "function", "name": "exec_command"}], ["exec_command"]),
        ([{"type": "web_search"}], []),
        ([], []),
    ],
)  # fmt: skip
def test_of_the_tools_that_are_allowed_the_engine_gets_those_it_can_have(allowed, names):
    """By type and name, a whole namespace by its own; with none of them, no tools at all."""
    choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    made = sent(tools=TOOLS, tool_choice=choice)
    assert names == [tool["function"]["name"] for tool in made.get("tools", ())]
    assert ("required" if names else None) == made.get("tool_choice")


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "nobody"},
        {"type": "custom", "name": "exec_command"},
        {"type": "function", "name": "exec_command", "namespace": "team_v1"},
        {"type": "function"},
    ],
)
def test_a_choice_of_a_tool_that_nobody_offered_is_a_400(choice):
    """The agent has mistyped it."""
    with pytest.raises(BadRequest, match="no tool has this name"):
        asked(tools=TOOLS, tool_choice=choice)


CUSTOM = {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "x"}
SHELL = {"type": "exec", "command": ["ls"], "env": {}}
ITEMS = {
    "a message whose type is null": (
        {"type": None, "role": "user", "content": "x"}, {"role": "user", "content": "x"},
    ),
    "a call in a namespace": (
        {"type": "function_call", "call_id": "c", "name": "spawn_agent", "namespace": "team_v1",
         "arguments": "{}"},
        {"tool_calls": [tool_call("team_v1__spawn_agent", "{}", "c")]},
    ),
    "a call of a tool that is not offered": (
        {"type": "function_call", "call_id": "c", "name": "gone", "namespace": "x.y",
         "arguments": "{}"},
        {"tool_calls": [tool_call("x_y__gone_2dff1b0c", "{}", "c")]},
    ),
    "a text": (
        {**CUSTOM, "namespace": "code", "status": "completed"},
        {"tool_calls": [tool_call("code__run", '{"input":"x"}', "c")]},
    ),
    "a text's result": (
        {"type": "custom_tool_call_output", "call_id": "c", "name": "run", "output": "y"},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ),
    "a text's result, in parts": (
        {"type": "custom_tool_call_output", "call_id": "c", "output": [
            {"type": "input_text", "text": "y"},
            {"type": "input_image", "image_url": "data:image/png;base64,eA=="}]},
        {"role": "tool", "tool_call_id": "c", "content": [
            {"type": "text", "text": "y"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}]},
    ),
    "a result of nothing": (
        {"type": "function_call_output", "call_id": "c", "output": []},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ),
    "a shell's call": (
        {"type": "local_shell_call", "id": "l", "call_id": "c", "status": "completed",
         "action": SHELL},
        {"tool_calls": [
            tool_call("local_shell", json.dumps(SHELL, separators=(",", ":")), "c")]},
    ),
    "a shell's result": (
        {"type": "local_shell_call_output", "id": "c", "output": "y"},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ),
    "reasoning of ours": (
        {"type": "reasoning", "summary": [], "content": None,
         "encrypted_content": opaque.pack("hm")},
        {"reasoning": "hm"},
    ),
    "reasoning in words": (
        {"type": "reasoning", "summary": [], "content": [{"type": "text", "text": "hm"}],
         "encrypted_content": opaque.pack("hm")},
        {"reasoning": "hm"},
    ),
    "another agent's word": (
        {"type": "agent_message", "author": "/root", "recipient": "/root/a", "content": [
            {"type": "input_text", "text": "do"},
            {"type": "encrypted_content", "encrypted_content": "gAAA"}]},
        {"role": "user", "content": "do"},
    ),
    "a summary of ours": (
        {"type": "compaction", "encrypted_content": opaque.pack("was: é")},
        {"role": "user", "content": "Your own summary of all that came before:\n\nwas: é"},
    ),
    "a summary, in its older spelling": (
        {"type": "compaction_summary", "encrypted_content": opaque.pack("x")},
        {"role": "user", "content": "Your own summary of all that came before:\n\nx"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_is_a_message_of_the_chat(name):
    """What Codex sends of earlier turns, whoever made it."""
    item, message = ITEMS[name]
    made = sent([HI, item], tools=TOOLS)["messages"]
    assert [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None} | message] == [
        made[0], {"role": "assistant", "content": None} | made[1],
    ]  # fmt: skip


LEFT_OUT = [
    {"type": "web_search_call", "id": "w", "status": "completed", "action": {"type": "search"}},
    {"type": "file_search_call", "id": "f", "queries": [], "status": "completed"},
    {"type": "code_interpreter_call", "id": "i", "code": "1", "container_id": "c"},
    {"type": "image_generation_call", "id": "i", "status": "completed", "result": "eA=="},
    {"type": "mcp_call", "id": "m", "arguments": "{}", "name": "n", "server_label": "s"},
    {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": []},
    {"type": "tool_search_call", "execution": "server", "arguments": {}},
    {"type": "tool_search_output", "execution": "server", "status": "completed", "tools": []},
    {"type": "computer_call", "call_id": "c"}, {"type": "ghost_snapshot", "ghost_commit": {}},
    {"type": "configuration_update"}, {"type": "compaction", "encrypted_content": "gAAAA"},
    {"type": "context_compaction"}, {"type": "compaction", "encrypted_content": "odradek1.!"},
]  # fmt: skip


@pytest.mark.parametrize("item", LEFT_OUT, ids=[item["type"] for item in LEFT_OUT])
def test_an_item_that_says_nothing_to_a_model_is_left_out_and_named(item):
    """Work of hosted tools, a client's notes to itself, what only OpenAI can read."""
    ask = asked([HI, item, HI])
    assert 2 == len(ask.messages)
    assert (item["type"].removeprefix("context_"),) == ask.dropped
    with pytest.raises(BadRequest):
        asked([HI, item], hosted="refuse")


@pytest.mark.parametrize("item", [{"type": "reasoning", "summary": [], "encrypted_content": "gAA"},
                                  {"type": "reasoning", "summary": []}])  # fmt: skip
def test_reasoning_that_nobody_here_can_read_is_passed_over(item):
    """As servers do with what is of another model."""
    ask = asked([HI, item])
    assert (1, ()) == (len(ask.messages), ask.dropped)


def test_tools_among_the_items_are_tools():
    """Codex lists them there for some models; the last word on a tool counts."""
    newer = {**EXEC, "description": "newer"}
    item = {"type": "additional_tools", "id": "at", "role": "developer", "tools": [TEAM, newer]}
    made = sent([item, HI], tools=[EXEC])
    assert [("exec_command", "newer"), ("team_v1__spawn_agent", "team_v1: A team.")] == [
        (tool["function"]["name"], tool["function"]["description"]) for tool in made["tools"]
    ]
    assert [{"role": "user", "content": "hi"}] == made["messages"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_summary_is_an_item_that_the_client_keeps_and_sends_back(bench, engine, stream):
    """Sampled with the tools in sight but none in reach, and recorded as any other turn."""
    engine.script = [{"content": "was: é", "reasoning": "hm"}, {"content": "on"}]
    reply, _ = await response(
        bench, input=[SYSTEM, HI, {"type": "compaction_trigger"}], stream=stream
    )
    (item,) = reply["output"]
    assert "compaction" == item["type"]
    assert "none" == engine.calls[0]["tool_choice"]
    assert "Sum up this conversation" in engine.calls[0]["messages"][-1]["content"]
    await response(bench, input=[SYSTEM, HI, item])
    assert "was: é" in engine.calls[1]["messages"][-1]["content"]
    assert ["", ""] == [turn.untrainable for turn in bench.turns()]


@pytest.mark.parametrize("given", ["hi", [HI], [SYSTEM, {"role": "user", "content": "hi"}]])
async def test_a_conversation_is_summed_up_on_request(bench, engine, given):
    """`/responses/compact`: what users said, and one item for all the rest."""
    engine.script = [{"content": "was"}, {"content": "on"}]
    status, headers, answer = await post(bench, f"{PATH}/compact", input=given, stream=True)
    assert 200 == status
    reply = json.loads(answer)
    # OpenAI's own model of an output has no place for what users said.
    CompactedResponse.model_validate({**reply, "output": reply["output"][-1:]})
    assert "response.compaction" == reply["object"]
    assert ["message", "compaction"] == [item["type"] for item in reply["output"]]
    assert [{"type": "input_text", "text": "hi"}] == reply["output"][0]["content"]
    assert "web_search" == headers["X-Odradek-Dropped"]
    await response(bench, input=[*reply["output"], HI])
    said = [message["content"] for message in engine.calls[1]["messages"]]
    assert ["hi", "Your own summary of all that came before:\n\nwas", "hi"] == said


async def test_a_summary_that_is_empty_or_cut_is_still_one_item(bench, engine):
    """Codex ends a session in which it gets another number of them."""
    trigger = {"type": "compaction_trigger"}
    for stream in (False, True):
        for finish, content in (("length", "was"), ("stop", "")):
            engine.script, engine.finish = [{"content": content}], finish
            reply, _ = await response(bench, input=[HI, trigger], stream=stream)
            assert 1 == len(reply["output"])


async def test_a_websocket_is_declined_so_that_codex_goes_on_at_once(bench):
    """426; any other GET of the address is a 404, and neither is open to all."""
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket"}
    bearer = {"Authorization": f"Bearer {bench.token()}"}
    async with ClientSession() as session:
        for headers, status in (
            ({**wanted, **bearer}, 426), (bearer, 404), (wanted, 401),
        ):  # fmt: skip
            async with session.get(bench.url + PATH, headers=headers) as answer:
                assert status == answer.status
                assert (await answer.json())["error"]["message"]


@pytest.mark.parametrize("hosted", ["drop", "refuse"])
async def test_the_operator_says_whether_hosted_tools_are_refused(make, engine, hosted):
    """The error names the field and the setting; no turn is written."""
    async with make(hosted_tools=hosted) as bench:
        status, _, answer = await post(bench, input=[HI])
        if hosted == "drop":
            assert (200, 1) == (status, len(bench.turns()))
            return
        error = json.loads(answer)["error"]
        assert (400, "tools[4].type") == (status, error["param"])
        assert "ODRADEK_PROXY_HOSTED_TOOLS" in error["message"]
        assert not bench.events()


async def test_a_reply_says_what_was_left_out_even_where_the_engine_failed(bench, engine):
    """The header comes with every answer of the engine's."""
    engine.mode = "error"
    status, headers, _ = await post(bench, input=[HI])
    assert (400, "web_search") == (status, headers["X-Odradek-Dropped"])
    engine.mode = "ok"
    _, headers, _ = await post(bench, input=[HI], tools=[EXEC])
    assert "X-Odradek-Dropped" not in headers


INNER = {"type": "namespace", "name": "team", "description": "Ours.", "tools": [SPAWN]}
OUTER = {"type": "namespace", "name": "org", "tools": [EXEC, {**INNER, "tools": [SPAWN, INNER]}]}
NESTED = ["org__exec_command", "org__team__spawn_agent", "org__team__team__spawn_agent"]


def test_a_namespace_within_another_has_both_names():
    """Its functions are the agent's own, however deep; none is left out."""
    ask = asked(tools=[OUTER])
    assert () == ask.dropped
    assert NESTED == [tool["function"]["name"] for tool in json.loads(ask.body)["tools"]]


@pytest.mark.parametrize(
    ("namespace", "names"), [("org", NESTED), ("org__team", NESTED[1:]), ("team", [])]
)
def test_a_namespace_that_is_allowed_is_so_with_all_within(namespace, names):
    """What stands in it is a part of it."""
    choice = {"type": "allowed_tools", "tools": [{"type": "namespace", "name": namespace}]}
    made = sent(tools=[OUTER], tool_choice=choice)
    assert names == [tool["function"]["name"] for tool in made.get("tools", ())]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_in_an_inner_namespace_goes_there_and_back(bench, engine, stream):
    """And the engine sees its own name again, in the history."""
    engine.script = [{"tool_calls": [tool_call(NESTED[1], "{}", "c0")]}, {"content": "done"}]
    body = {"input": "hi", "tools": [OUTER], "stream": stream}
    _, _, answer = await post(bench, **body)  # OpenAI's models know no such tools
    told = answer.strip().rpartition(b"data: ")[2]
    first = json.loads(told)
    (call,) = calls(first.get("response", first)["output"])
    assert ("spawn_agent", "org__team") == call[1:3]
    item = {"type": "function_call", "call_id": "c0", "name": "spawn_agent",
            "namespace": "org__team", "arguments": "{}"}  # fmt: skip
    result = {"type": "function_call_output", "call_id": "c0", "output": "ok"}
    await post(bench, **{**body, "input": [{"role": "user", "content": "hi"}, item, result]})
    (again,) = engine.calls[1]["messages"][1]["tool_calls"]
    assert NESTED[1] == again["function"]["name"]
