"""Null is absent: what a client writes as null is what it leaves out, wherever the API lets it."""

import json

import pytest

from odradek.proxy.dialects import DIALECTS
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.errors import BadRequest

OF = {dialect.name: dialect for dialect in DIALECTS.values()}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}
CHAT_FUNCTION = {"type": "function", "function": {"name": "look"}}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
CUSTOM_CALL = {"type": "custom_tool_call", "call_id": "c", "name": "edit", "input": "x"}
SHELL_CALL = {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}}
SAID = {"type": "message", "role": "user", "content": "x"}
GIVEN = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}


def asks(*items):
    return {"input": [*items]}


def answers(*blocks, role="user"):
    return {**GIVEN, "messages": [*GIVEN["messages"], {"role": role, "content": [*blocks]}]}


def format_of(**more):
    return {"input": "x", "text": {"format": {"type": "json_schema", "name": "r", **more}}}


RESPONSES = [
    {"input": "x", "tools": [FUNCTION], "tool_choice": None},
    {"input": "x", "tools": [{**FUNCTION, "description": None, "strict": None}]},
    {"input": "x", "tools": [{**FUNCTION, "parameters": None}]},
    {"input": "x", "tools": [{**FUNCTION, "tools": None, "format": None}]},
    {"input": "x", "tools": [{"type": "custom", "name": "edit", "format": None}]},
    {"input": "x", "tools": [{"type": "custom", "name": "edit",
                              "format": {"type": "text", "syntax": None, "definition": None}}]},
    {"input": "x", "tools": [{"type": "custom", "name": "edit",
                              "format": {"type": None, "grammar": None}}]},
    {"input": "x", "tools": [{"type": "custom", "name": "edit", "format": {
        "type": "grammar", "grammar": {"syntax": None, "definition": None}}}]},
    {"input": "x", "tools": [{"type": "namespace", "name": "n", "description": None,
                              "tools": [FUNCTION]}]},
    {"input": "x", "tools": [{"type": "namespace", "name": "n", "tools": None}, FUNCTION]},
    {"input": "x", "tools": [FUNCTION],
     "tool_choice": {"type": "function", "name": "look", "namespace": None}},
    {"input": "x", "tools": [FUNCTION],
     "tool_choice": {"type": "function", "name": "look", "mode": None, "tools": None}},
    {"input": "x", "tools": [FUNCTION],
     "tool_choice": {"type": "allowed_tools", "mode": None, "name": None, "tools": [
         {"type": "function", "name": "look", "namespace": None}]}},
    {"input": "x", "tools": [FUNCTION], "tool_choice": {"type": "auto", "name": None}},
    {"input": "x", "text": None}, {"input": "x", "text": {"format": None, "verbosity": None}},
    {"input": "x", "text": {"format": {"type": None}}},
    format_of(schema={}, description=None, strict=None), format_of(schema=None),
    {"input": "x", "text": {"format": {"type": "json_schema", "name": None, "schema": None}}},
    {"input": "x", "reasoning": None}, {"input": "x", "reasoning": {"effort": None, "summary": None}},
    {"input": "x", "include": None, "instructions": None, "previous_response_id": None,
     "max_output_tokens": None, "top_logprobs": None, "truncation": None, "store": None,
     "stream": None, "metadata": None, "user": None, "parallel_tool_calls": None,
     "background": None, "conversation": None, "prompt": None, "tools": None},
    asks({**SAID, "type": None}), asks({**SAID, "id": None, "status": None, "phase": None}),
    asks(SAID, {"type": "message", "role": "assistant", "content": None}),
    asks(SAID, {"type": "message", "role": "user", "content": None}),
    asks(SAID, {"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": "x", "annotations": None, "logprobs": None}]}),
    asks({**SAID, "content": [{"type": "input_image", "image_url": "u", "file_id": None, "detail": None}]}),
    asks(SAID, {**CALL, "arguments": None, "namespace": None, "id": None, "status": None}),
    asks(SAID, CALL, {"type": "function_call_output", "call_id": "c", "output": None}),
    asks(SAID, {**CUSTOM_CALL, "input": None, "namespace": None}),
    asks(SAID, CUSTOM_CALL, {"type": "custom_tool_call_output", "call_id": "c", "output": None}),
    asks(SAID, {**SHELL_CALL, "call_id": None, "id": "c"}), asks(SAID, {**SHELL_CALL, "action": None}),
    asks(SAID, SHELL_CALL, {"type": "local_shell_call_output", "call_id": "c", "output": None}),
    asks(SAID, {"type": "reasoning", "content": None, "summary": None, "encrypted_content": None}),
    asks(SAID, {"type": "additional_tools", "tools": None}),
    asks(SAID, {"type": "agent_message", "content": None, "author": None, "recipient": None}),
    asks(SAID, {"type": "agent_message", "content": [
        {"type": "encrypted_content", "encrypted_content": None}]}),
    asks(SAID, {"type": "compaction", "encrypted_content": None}),
]  # fmt: skip
TOOL = {"name": "look", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "t", "name": "look", "input": {"a": None}}
MESSAGES = [
    {**GIVEN, "system": None, "tools": None, "tool_choice": None, "stop_sequences": None,
     "thinking": None, "metadata": None, "output_config": None, "output_format": None,
     "container": None, "mcp_servers": None, "stream": None, "service_tier": None},
    {**GIVEN, "tools": [{**TOOL, "type": None, "description": None, "strict": None,
                         "cache_control": None}]},
    {**GIVEN, "tools": [{**TOOL, "input_schema": None}]},
    {**GIVEN, "tools": [TOOL], "tool_choice": {"type": "auto", "name": None}},
    {**GIVEN, "tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": None}},
    {**GIVEN, "metadata": {"user_id": None}}, {**GIVEN, "thinking": {"type": None}},
    {**GIVEN, "thinking": {"type": "enabled", "budget_tokens": None, "display": None}},
    {**GIVEN, "output_config": {"format": None, "effort": None}},
    {**GIVEN, "output_format": {"type": "json_schema", "schema": None}},
    {**GIVEN, "system": [{"type": "text", "text": "x", "cache_control": None}]},
    answers({"type": "text", "text": "x", "citations": None, "cache_control": None}),
    answers({"type": "tool_result", "tool_use_id": "t", "content": None, "is_error": None}),
    answers({**USE, "cache_control": None}, role="assistant"),
    answers({**USE, "input": None}, role="assistant"),
    answers({"type": "thinking", "thinking": None, "signature": None}, role="assistant"),
    answers({"type": "compaction", "content": None}, role="assistant"),
    answers({"type": "document", "title": None, "context": None,
             "source": {"type": "text", "media_type": None, "data": "x"}}),
    answers({"type": "image", "source": {"type": "url", "url": "u", "media_type": None, "data": None}}),
    answers({"type": "search_result", "content": [{"type": "text", "text": "x"}], "title": None,
             "source": None}),
    answers({"type": "search_result", "content": None}),
]  # fmt: skip
HI = {"messages": [{"role": "user", "content": "x"}]}
EDIT = {"type": "custom", "custom": {"name": "edit"}}
CHAT = [
    {**HI, "tools": None, "tool_choice": None}, {**HI, "web_search_options": None},
    {**HI, "tools": [{**CHAT_FUNCTION, "type": None}]},
    {**HI, "tools": [{**CHAT_FUNCTION, "type": None}, EDIT]},
    {**HI, "tools": [{"type": "custom", "custom": {"name": "edit", "description": None,
                                                   "format": None}}]},
    {**HI, "tools": [{"type": "custom", "custom": {"name": "edit", "format": {
        "type": "grammar", "grammar": {"syntax": None, "definition": None}}}}]},
    {**HI, "tools": [EDIT], "tool_choice": None},
    {**HI, "tools": [EDIT], "tool_choice": {"type": "allowed_tools", "allowed_tools": {
        "mode": None, "tools": [{"type": "custom", "custom": {"name": "edit"}}]}}},
    {"messages": [*HI["messages"], {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "custom", "custom": {"name": "edit", "input": None}}]}]},
    {"messages": [*HI["messages"], {"role": "assistant", "content": None, "tool_calls": None}]},
    {**HI, "stream": None, "n": None, "model": None, "stream_options": None, "logprobs": None,
     "max_tokens": None, "cache_salt": None, "return_token_ids": None,
     "chat_template_kwargs": None, "functions": None},
    {**HI, "stream": True, "stream_options": {"include_usage": None}},
]  # fmt: skip
SAYS = {"role": "user", "parts": [{"text": "x"}]}


def gemini(*parts, role="model", **more):
    return {"contents": [SAYS, {"role": role, "parts": [*parts]}], **more}


GEMINI = [
    {"contents": [SAYS], "systemInstruction": None, "tools": None, "toolConfig": None,
     "generationConfig": None, "safetySettings": None, "cachedContent": None, "labels": None},
    {"contents": [SAYS], "generationConfig": {
        "temperature": None, "topP": None, "topK": None, "maxOutputTokens": None,
        "stopSequences": None, "seed": None, "candidateCount": None, "responseMimeType": None,
        "responseSchema": None, "responseModalities": None, "thinkingConfig": None}},
    {"contents": [SAYS], "generationConfig": {"thinkingConfig": {
        "includeThoughts": None, "thinkingBudget": None, "thinkingLevel": None}}},
    {"contents": [SAYS], "tools": [{"functionDeclarations": None, "googleSearch": None}]},
    {"contents": [SAYS], "tools": [{"functionDeclarations": [
        {"name": "look", "description": None, "parameters": None, "parametersJsonSchema": None,
         "response": None, "behavior": None}]}], "toolConfig": {"functionCallingConfig": None}},
    {"contents": [SAYS], "tools": [{"functionDeclarations": [{"name": "look"}]}],
     "toolConfig": {"functionCallingConfig": {"mode": None, "allowedFunctionNames": None}}},
    {"contents": [{"role": None, "parts": [{"text": "x"}]}]},
    gemini({"text": "x", "thought": None, "thoughtSignature": None, "inlineData": None,
            "functionCall": None, "functionResponse": None, "fileData": None}),
    gemini({"functionCall": {"name": "look", "args": None, "id": None}}),
    gemini({"functionResponse": {"name": "look", "response": None, "id": None}}, role="user"),
    {"contents": [SAYS, {"role": "model", "parts": None}]},
    {"contents": [SAYS], "systemInstruction": {"role": None, "parts": [{"text": "x"}]}},
    {"contents": [SAYS], "systemInstruction": {"parts": None}},
]  # fmt: skip
TABLE = [
    (name, said)
    for name, table in (
        ("responses", RESPONSES), ("messages", MESSAGES), ("chat", CHAT), ("gemini", GEMINI),
    )
    for said in table
]  # fmt: skip


REFUSED = [
    ("responses", asks({**SAID, "role": None}), "input[0]"),
    ("responses", asks({**SAID, "content": [{"type": "input_text", "text": None}]}),
     "input[0].content[0]"),
    ("responses", asks({**CALL, "name": None}), "input[0]"),
    ("responses", {"input": "x", "tools": [{**FUNCTION, "name": None}]}, "tools[0].name"),
    ("messages", answers({"type": "text", "text": None}), "messages.1.content[0]"),
    ("messages", {**GIVEN, "tools": [{**TOOL, "name": None}]}, "tools.0"),
    ("messages", {**GIVEN, "messages": None}, "messages"),
    ("messages", {**GIVEN, "messages": [{"role": "user", "content": None}]}, "messages.0"),
    ("responses", {"input": "x", "tools": [{**FUNCTION, "type": None}]}, "tools[0]"),
]  # fmt: skip


def bare(value):
    """The same without its nulls, those in a call's own arguments excepted."""
    if isinstance(value, dict):
        return {
            name: inner
            if name in ("input_schema", "parameters") and inner is not None
            else bare(inner)
            for name, inner in value.items()
            if inner is not None or name == "a"
        }
    return [bare(entry) for entry in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("dialect", "said"), TABLE)
def test_null_is_absent(dialect, said):
    """The engine gets a request; the same, where leaving the field out is legal, too."""
    ask = OF[dialect].parse(json.dumps(said).encode(), RequestRules())
    assert ask.dropped in ((), ("compaction",))  # somebody else's summary is no text
    assert json.loads(ask.body)["messages"]


@pytest.mark.parametrize(("dialect", "said"), TABLE)
def test_a_null_is_read_as_the_field_that_is_not_there(dialect, said):
    """One rule for all fields, so no client's serialiser changes what the model sees."""
    made = [
        OF[dialect].parse(json.dumps(body).encode(), RequestRules()) for body in (said, bare(said))
    ]  # fmt: skip
    with_null, without = (json.loads(ask.body) for ask in made)
    for name in ("messages", "tool_choice", "response_format"):
        assert bare(without.get(name)) == bare(with_null.get(name))
    functions = (
        [tool["function"] for tool in one.get("tools") or ()] for one in (without, with_null)
    )
    assert next(functions) == next(functions)
    assert made[0].sampling == made[1].sampling


@pytest.mark.parametrize(("dialect", "said", "param"), REFUSED)
def test_what_must_be_there_is_missed_by_name(dialect, said, param):
    """Null is absent there, too, and the error says where."""
    with pytest.raises(BadRequest) as refused:
        OF[dialect].parse(json.dumps(said).encode(), RequestRules())
    assert param == refused.value.param


def test_a_null_within_what_is_not_the_apis_stays():
    """A schema's default, a call's arguments: they are the agent's own."""
    schema = {"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}}
    tools = [{**FUNCTION, "parameters": schema, "description": None, "format": {"type": None}}]
    ask = OF["responses"].parse(json.dumps({"input": "x", "tools": tools}).encode(), RequestRules())
    assert schema == json.loads(ask.body)["tools"][0]["function"]["parameters"]
    used = answers(
        {**USE, "name": "look"}, {"type": "thinking", "thinking": None}, role="assistant"
    )
    ask = OF["messages"].parse(json.dumps(used).encode(), RequestRules())
    (call,) = json.loads(ask.body)["messages"][1]["tool_calls"]
    assert {"a": None} == json.loads(call["function"]["arguments"])
