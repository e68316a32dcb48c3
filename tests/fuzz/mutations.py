"""Mutated requests, thousands a second: `python -m tests.fuzz.mutations URL CASES SEED`.

Valid requests of every dialect with something changed: a value, a field, some bytes of the body, a
header, the path. The nth case of a seed is always the same. An answer of 5xx, or none, is a failure.
"""

import asyncio
import copy
import json
import random
import sys

import aiohttp

IN_FLIGHT = 8
TOLD = 5
HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
TALK = [
    {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
    {"role": "user", "content": "é\n"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
]
BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "server_tool_use", "id": "s", "name": "w", "input": {}},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": "2"},
        {"type": "image", "source": {"type": "url", "url": "https://e.org/i.png"}}]},
]  # fmt: skip
ITEMS = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "2"},
]
TOOLS = [
    {"type": "namespace", "name": "n", "description": "d", "tools": [
        {"type": "function", "name": "f", "parameters": SCHEMA}]},
    {"type": "custom", "name": "f", "format": {
        "type": "grammar", "syntax": "lark", "definition": "start: X"}},
    {"type": "web_search"},
]  # fmt: skip
CODEX = [
    {"type": "additional_tools", "role": "developer", "tools": TOOLS[:1]},
    {"type": "function_call", "call_id": "c2", "name": "f", "namespace": "n", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "c3", "name": "f", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "c3", "output": "y"},
    {"type": "reasoning", "summary": [], "encrypted_content": "b2RyYWRlazEuaG0="},
    {"type": "agent_message", "author": "a", "content": [{"type": "input_text", "text": "x"}]},
    {"type": "local_shell_call", "call_id": "c4", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "compaction", "encrypted_content": "b2RyYWRlazEuaG0="},
    {"type": "web_search_call", "id": "w"},
]
OPENAPI = {"type": "OBJECT", "nullable": True, "properties": {
    "x": {"any_of": [{"type": "INTEGER"}], "min_items": "1"}}}  # fmt: skip
CONTENTS = [
    {"role": "user", "parts": [{"text": "hi"}, {"inlineData": {
        "mimeType": "image/png", "data": "eA=="}}]},
    {"role": "model", "parts": [
        {"text": "hm", "thought": True}, {"text": "so", "thoughtSignature": "b2RyYWRlazEuaG0="},
        {"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}}]},
    {"parts": [{"functionResponse": {"id": "c1", "name": "f", "response": {"output": "2"}}}]},
]  # fmt: skip
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
CORPUS = (
    ("/chat/completions", {"model": "m", "messages": HI, "temperature": 1, "n": 2, "stop": ["a"]}),
    ("/chat/completions", {
        "messages": TALK, "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "auto", "stream": True, "stream_options": {"include_usage": True},
        "logprobs": True, "chat_template_kwargs": {"thinking": True},
        "response_format": {"type": "json_object"}}),
    ("/chat/completions", {
        "messages": [*TALK, {"role": "assistant", "tool_calls": [
            {"id": "c2", "type": "custom", "custom": {"name": "f", "input": "x"}}]}, *HI],
        "tools": [{"type": "custom", "custom": {"name": "f", "format": {
            "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}}},
            {"type": "web_search"}, {"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "custom", "custom": {"name": "f"}}, "stream": True}),
    ("/completions", {"model": "m", "prompt": ["a", "b"], "max_tokens": 5, "logprobs": 1}),
    ("/completions", {"prompt": [1, 2, 3], "stream": True, "echo": False, "n": 1}),
    ("/messages", {
        "model": "m", "max_tokens": 9, "messages": BLOCKS, "stream": True,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "f", "input_schema": SCHEMA}, {"type": "bash_20250124", "name": "b"},
                  {"type": "web_search_20250305", "name": "w"}], "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 1024}}),
    ("/messages/count_tokens", {"model": "m", "messages": BLOCKS, "system": "s"}),
    ("/responses", {
        "model": "m", "input": ITEMS, "instructions": "i", "stream": True, "store": True,
        "tools": [{"type": "function", **FUNCTION}], "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "include": ["message.output_text.logprobs"], "max_output_tokens": 9}),
    ("/models/m:generateContent", {
        "contents": CONTENTS, "systemInstruction": {"parts": [{"text": "s"}]},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": OPENAPI}]},
                  {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "generationConfig": {
            "temperature": 1, "topK": 5, "responseMimeType": "application/json",
            "responseSchema": OPENAPI, "thinkingConfig": {"includeThoughts": True}}}),
    ("/models/m:streamGenerateContent?alt=sse", {
        "contents": CONTENTS, "generation_config": {"max_output_tokens": "9"}}),
    ("/models/m:streamGenerateContent", {"contents": CONTENTS}),
    ("/models/m:countTokens", {"generateContentRequest": {"contents": CONTENTS}}),
    ("/responses", {
        "input": [*ITEMS, *CODEX], "stream": True, "tools": TOOLS, "store": False,
        "tool_choice": {"type": "custom", "name": "f"},
        "include": ["reasoning.encrypted_content"], "text": {"verbosity": "low"}}),
    ("/responses", {"input": [*ITEMS, {"type": "compaction_trigger"}], "tools": TOOLS}),
    ("/responses/compact", {"model": "m", "input": [*ITEMS, *CODEX], "instructions": "i"}),
    ("/responses", {"input": "hi", "previous_response_id": "resp_1", "metadata": {"a": "b"}}),
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, "", " ", "x",
    "\0", "\ud800", "é" * 300, "../../etc/passwd", "null", "{", [], {}, [[]], [None], {"": None},
    [{}] * 3, {"type": "text"}, {"type": "function", "function": None}, ["x"] * 600, 1.5e-300,
)  # fmt: skip
HEADERS = (
    ("x-stainless-retry-count", ("1", "-1", "9" * 30, "é")),
    ("traceparent", ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x")),
    ("X-Agent-ID", ("a", "x" * 300)),
    ("anthropic-version", ("2023-06-01",)),
    ("Content-Type", ("text/plain", "application/json; charset=latin-1", "multipart/form-data")),
    ("Content-Encoding", ("gzip", "deflate", "br", "nonsense")),
    ("Accept", ("text/event-stream",)),
    ("x-goog-api-key", ("x", "")),
    ("Authorization", ("Bearer x", "Basic eA==", "")),
)
PLACES = (
    "/e/fuzz-{n}/v1",
    "/e/fuzz-{n}",
    "/v1",
    "/t/tok/v1",
    "/e/%2e%2e/v1",
    "/e/%00/v1",
    "/e//v1",
)


def nodes(value, path=()):
    """All places within a value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[key], (*path, key))


def mutated(chance, value):
    """The same with one place changed, taken away, renamed, or nested deep."""
    places = list(nodes(value))[1:]
    if not places:
        return chance.choice(ODD)
    *above, key = chance.choice(places)
    parent = value
    for step in above:
        parent = parent[step]
    kind = chance.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice(("type", "role", "content", "x", "", "stream"))] = parent.pop(key)
    elif kind == 2:
        parent[key] = [parent[key]] * chance.choice((1, 2, 70))
    elif kind == 3:
        for _ in range(chance.choice((5, 50, 70))):
            parent[key] = {"a": parent[key]} if chance.random() < 0.5 else [parent[key]]
    else:
        parent[key] = copy.deepcopy(chance.choice(ODD))
    return value


def scratched(chance, body):
    """Bytes with some of them cut out, changed, or doubled."""
    at, n = chance.randrange(len(body) + 1), chance.choice((1, 2, 10))
    new = chance.choice((b"", chance.randbytes(n), body[at : at + n] * 2, b"\\ud800", b"[" * 200))
    return body[:at] + new + body[at + n :]


def case(seed, number):
    """Path, headers and body of a case."""
    chance = random.Random(f"{seed}/{number}")
    path, body = chance.choice(CORPUS)
    value = copy.deepcopy(body)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        value = mutated(chance, value)
    data = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(errors="replace")
    if chance.random() < 0.2:
        data = scratched(chance, data)
    headers = {"Content-Type": "application/json"}
    while chance.random() < 0.3:
        name, values = chance.choice(HEADERS)
        headers[name] = chance.choice(values)
    place = chance.choice(PLACES[:3] if chance.random() < 0.9 else PLACES)
    return place.format(n=number // 20) + path, headers, data


async def asked(session, url, sent):
    """What is wrong with the answer to a case; "" if nothing."""
    path, headers, data = sent
    try:
        async with session.post(url + path, data=data, headers=headers) as answer:
            await answer.read()
            return f"answered {answer.status}" if answer.status >= 500 else ""
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"no answer: {type(error).__name__}"


async def main(url, cases, seed):
    """Send all cases; return how many failed."""
    numbers = iter(range(cases))
    failed = []
    timeout = aiohttp.ClientTimeout(total=30)

    async def some(session):
        for number in numbers:
            sent = case(seed, number)
            if wrong := await asked(session, url, sent):
                failed.append(number)
                if len(failed) <= TOLD:
                    print(f"case {number} of seed {seed} {wrong}: {sent}")
            if number and number % 10_000 == 0:
                print(f"{number} mutated requests, {len(failed)} failed", flush=True)

    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        await asyncio.gather(*(some(session) for _ in range(IN_FLIGHT)))
    print(f"{cases} mutated requests of seed {seed}, {len(failed)} failed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3])) else 0)
