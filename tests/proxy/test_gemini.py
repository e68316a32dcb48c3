"""Google's generateContent through the proxy, as its clients ask for it."""

import json

import pytest
from aiohttp import ClientSession
from hypothesis import given, settings

from odradek.proxy.dialects.dialect import Limits, RequestRules
from odradek.proxy.dialects.gemini import GEMINI, GEMINI_STREAM
from odradek.proxy.dialects.tools.hosted import HEADER
from odradek.proxy.dialects.translation import opaque
from odradek.proxy.errors import BadRequest, EngineBroke, LogRefused
from odradek.proxy.settings import ProxySettings
from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import StubEngine, said_ids, tool_call

from .conftest import END, prompt_ids
from .test_chunkings import PLACES, SAID, cut, events, relayed
from .test_chunkings import told as chunk
from .test_messages import SCRIPTS

HI = [{"role": "user", "parts": [{"text": "hi"}]}]
LOOK = {"name": "look", "description": "looks", "parameters": {"type": "OBJECT"}}
TOOLS = [{"functionDeclarations": [LOOK]}]
THINKS = {"thinkingConfig": {"includeThoughts": True}}
ROOT = "/e/e1/v1beta/models/policy"
CALL = {"functionCall": {"name": "look", "args": {"at": "x"}, "id": "c"}}


def asked(contents=HI, hosted="drop", **more):
    body = {"contents": contents, **more}
    return GEMINI.at("policy", None).parse(json.dumps(body).encode(), RequestRules(hosted=hosted))


def sent(contents=HI, **more):
    return json.loads(asked(contents, **more).body)


def messages(*contents):
    return sent(list(contents))["messages"]


async def ask(bench, path=f"{ROOT}:generateContent", **body):
    """Status and what is said, chunk by chunk if it is a stream of events."""
    status, headers, answer = await bench.post(
        path, {"contents": HI, **body}, headers={"x-goog-api-key": bench.token()}
    )
    if headers["Content-Type"].startswith("text/event-stream"):
        return status, [json.loads(one) for one in events(answer)]
    return status, json.loads(answer)


def parts_of(chunks):
    """All parts of a stream, texts of one kind put together."""
    made = []
    for one in chunks:
        for part in one["candidates"][0]["content"]["parts"]:
            last = made[-1] if made else {}
            if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                made[-1] = {**last, **part, "text": last["text"] + part["text"]}
            else:
                made.append(part)
    return made


async def test_a_reply_is_in_the_log_with_the_engines_own_tokens(bench, engine):
    """Text, usage and ids are the engine's; the turn holds the messages in the form of chats."""
    config = {"temperature": 0.5, "topK": 3.0, "maxOutputTokens": 50, "stopSequences": ["x"]}
    status, reply = await ask(
        bench, systemInstruction={"parts": {"text": "be brief"}}, generationConfig=config,
        safetySettings=[{"category": "x"}], labels={"a": "b"}, min_p=0.1,
    )  # fmt: skip
    (turn,), (asked_,) = bench.turns(), engine.calls
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert chat == asked_["messages"] == [parsed(message) for message in turn.request.messages]
    names = ("model", "temperature", "top_k", "max_tokens", "stop", "min_p")
    assert ("policy", 0.5, 3, 50, ["x"], 0.1) == tuple(asked_[name] for name in names)
    assert not {"safetySettings", "labels", "contents", "generationConfig"} & asked_.keys()
    (candidate,) = reply["candidates"]
    (part,) = candidate["content"]["parts"]
    assert prompt_ids(chat) == unpack_ids(turn.prompt.ids).tolist()
    assert [*part["text"].encode(), END] == unpack_ids(turn.completion.ids).tolist()
    assert ("gemini", "policy", "", 200) == (turn.dialect, turn.model, turn.untrainable, status)
    assert ("model", "STOP", 0) == (
        candidate["content"]["role"], candidate["finishReason"], candidate["index"],
    )  # fmt: skip
    used = reply["usageMetadata"]
    assert turn.usage.prompt_tokens == used["promptTokenCount"]
    assert turn.usage.completion_tokens == used["candidatesTokenCount"]
    assert turn.usage.cached_tokens == used["cachedContentTokenCount"]
    assert used["totalTokenCount"] == used["promptTokenCount"] + used["candidatesTokenCount"]
    assert "policy" == reply["modelVersion"]
    assert reply["responseId"]


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_stream_says_what_the_whole_reply_says(bench, engine, name):
    """As events and as an array that grows; the turns are equal."""
    engine.script = [SCRIPTS[name]]
    body = {"tools": TOOLS, "generationConfig": THINKS}
    _, whole = await ask(bench, **body)
    for alt in ("?alt=sse", ""):
        _, chunks = await ask(bench, f"{ROOT}:streamGenerateContent{alt}", **body)
        assert whole["candidates"][0]["content"]["parts"] == parts_of(chunks)
        last = chunks[-1]
        assert ["STOP"] == [
            one["candidates"][0]["finishReason"]
            for one in chunks
            if "finishReason" in one["candidates"][0]
        ]
        assert "STOP" == last["candidates"][0]["finishReason"]
        assert whole["usageMetadata"] == last["usageMetadata"]
        assert 1 == len({one["responseId"] for one in chunks})
    first, *others = bench.turns()
    assert [first.completion] * 2 == [turn.completion for turn in others]
    assert [*said_ids(SCRIPTS[name]), END] == unpack_ids(first.completion.ids).tolist()


async def test_a_stream_as_an_array_is_json_and_says_so(bench):
    """What Google's REST gives where nobody asks for events."""
    path = f"{ROOT}:streamGenerateContent"
    bearer = bench.token()
    status, headers, answer = await bench.post(path, {"contents": HI}, token=bearer)
    assert (200, "application/json") == (status, headers["Content-Type"])
    assert len(json.loads(answer)) > 2
    status, headers, _ = await bench.post(f"{path}?alt=sse", {"contents": HI}, token=bearer)
    assert (200, "text/event-stream") == (status, headers["Content-Type"])


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_conversation_with_tools_is_one_sequence(bench, engine, stream, shown, ids):
    """Each chunk kept as a content of its own, calls with and without ids, thoughts unseen."""
    engine.script = [SCRIPTS["two tools"], {**SCRIPTS["thinking"]}, SCRIPTS["text"]]
    history = list(HI)
    for _ in range(3):
        path = f"{ROOT}:streamGenerateContent?alt=sse" if stream else f"{ROOT}:generateContent"
        _, told = await ask(
            bench, path, contents=history, tools=TOOLS,
            generationConfig={"thinkingConfig": {"includeThoughts": shown}},
        )  # fmt: skip
        said = [one["candidates"][0]["content"] for one in (told if stream else [told])]
        calls = []
        for part in (part for content in said for part in content["parts"]):
            if "thoughtSignature" in part:  # as Google's client writes it
                signature = part["thoughtSignature"]
                part["thoughtSignature"] = signature.replace("+", "-").replace("/", "_")
            if call := part.get("functionCall"):
                call["args"] = json.loads(json.dumps(call["args"], sort_keys=True))
                if not ids:
                    del call["id"]
                calls.append({
                    "functionResponse": {**call, "args": None, "response": {"output": "seen"}}
                })  # fmt: skip
        said = [{**content, "parts": [p for p in content["parts"] if not p.get("thought")]}
                for content in said]  # fmt: skip
        history = [*history, *said, {"role": "user", "parts": calls or [{"text": "go on"}]}]
    continuity = Continuity()
    expected = ["first", "append", "append"]
    found = [continuity.add(turn) for turn in bench.turns()]
    # The stub's template prints no ids, but two equal calls without them could not be told apart.
    assert expected == found
    roles = [message["role"] for message in engine.calls[2]["messages"]]
    assert ["user", "assistant", "tool", "tool", "assistant", "user"] == roles


@settings(max_examples=60, deadline=None)
@given(SAID, PLACES)
def test_a_stream_is_the_same_for_every_chunking(said, places):
    """Byte for byte; its end is held back, and put together it is the whole reply."""
    engine = StubEngine()
    engine.script = [said]
    body = json.dumps({"contents": HI, "generationConfig": THINKS}).encode()
    for array in (False, True):
        ask = GEMINI_STREAM.at("m", None if array else "sse").parse(body, RequestRules())
        asked_ = {**json.loads(ask.body), "call": 1}
        wire = b"".join(map(chunk, engine.chunks(asked_))) + b"data: [DONE]\n\n"
        one, many = relayed(ask, [wire]), relayed(ask, cut(wire, places))
        assert one.pieces == many.pieces
        assert one.held == many.held
        seen = b"".join(many.pieces)[: -len(b"".join(many.held))]
        assert b"finishReason" not in seen
        assert b"functionCall" not in seen
        data = b"".join(many.pieces)
        chunks = json.loads(data) if array else [json.loads(event) for event in events(data)]
        whole = json.loads(GEMINI.reply(json.dumps(engine.reply(asked_)).encode(), ask))
        assert whole["candidates"][0]["content"]["parts"] == parts_of(chunks)


@settings(max_examples=40, deadline=None)
@given(SAID, PLACES, PLACES)
def test_a_stream_that_dies_ends_with_an_error_and_is_still_json(said, places, at):
    """After any byte: no end is seen, the turn has an error, and the array is closed."""
    engine = StubEngine()
    engine.script = [said]
    for array in (False, True):
        ask = GEMINI_STREAM.at("m", None if array else "sse").parse(
            json.dumps({"contents": HI}).encode(), RequestRules()
        )
        wire = b"".join(map(chunk, engine.chunks({**json.loads(ask.body), "call": 1})))
        end = wire.rindex(b"data: ", 0, wire.index(b'"finish_reason": "'))
        died = relayed(ask, cut(wire[: sum(at) % end], places), broke=True)
        assert all(one.error for one in died.captured())
        data = b"".join(died.pieces)
        *chunks, last = json.loads(data) if array else [json.loads(one) for one in events(data)]
        assert (502, "INTERNAL") == (last["error"]["code"], last["error"]["status"])
        assert not [one for one in chunks if "finishReason" in one["candidates"][0]]


@pytest.mark.parametrize("seen", [0, 1])
def test_an_end_that_the_log_refuses_becomes_an_error_in_its_place(seen):
    """The array is closed once, whatever had been sent before."""
    engine = StubEngine()
    engine.script = [{"content": "a" * seen}]
    ask = GEMINI_STREAM.at("m", None).parse(json.dumps({"contents": HI}).encode(), RequestRules())
    wire = b"".join(map(chunk, engine.chunks({**json.loads(ask.body), "call": 1})))
    relay = relayed(ask, [wire])
    sent_ = b"".join(relay.pieces)[: -len(b"".join(relay.held))]
    *chunks, last = json.loads(sent_ + relay.fail(LogRefused("no")))
    assert (seen, "UNAVAILABLE") == (len(chunks), last["error"]["status"])


PARTS = [
    ([{"text": "a"}], [{"role": "user", "content": "a"}]),
    ({"text": "a"}, [{"role": "user", "content": "a"}]),
    ("a", [{"role": "user", "content": "a"}]),
    (["a"], [{"role": "user", "content": "a"}]),
    ([], []),
    ([{"text": "a"}, {"text": "b"}],
     [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
    ([{"inline_data": {"mime_type": "image/png", "data": "eA-_"}}],
     [{"role": "user", "content": [
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA+/"}}]}]),
    ([{"inlineData": {"mimeType": "text/plain", "data": "w6k="}}],
     [{"role": "user", "content": "é"}]),
    ([{"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}}],
     [{"role": "user", "content": [
         {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}]),
    ([{"functionResponse": {"id": "c", "name": "look", "response": {"output": "a"}}},
      {"text": "b"}],
     [{"role": "tool", "tool_call_id": "c", "content": "a"}, {"role": "user", "content": "b"}]),
    ([{"function_response": {"name": "look", "response": {"error": "a"}}}],
     [{"role": "tool", "tool_call_id": "call_look", "content": '{"error":"a"}'}]),
    ([{"functionResponse": {"id": "c", "response": "a"}}],
     [{"role": "tool", "tool_call_id": "c", "content": "a"}]),
    ([{"functionResponse": {"id": "c", "response": {"output": {"a": 1}}}}],
     [{"role": "tool", "tool_call_id": "c", "content": '{"output":{"a":1}}'}]),
    ([{"functionResponse": {"id": "c", "parts": [
        {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]}}],
     [{"role": "tool", "tool_call_id": "c", "content": [
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}]}]),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), PARTS)
@pytest.mark.parametrize("role", ["user", None, "function", "USER"])
def test_what_a_user_shows_is_a_message_of_the_chat(role, parts, expected):
    """In all spellings; results stand as messages of their own."""
    content = {"parts": parts} if role is None else {"role": role, "parts": parts}
    assert [*expected, {"role": "user", "content": "hi"}] == messages(content, *HI)


SAYS = [
    ([{"text": "a"}, {"text": "b"}], {"content": "ab"}),
    ([CALL], {"tool_calls": [tool_call("look", '{"at":"x"}', "c")]}),
    ([{"function_call": {"name": "look"}}], {"tool_calls": [tool_call("look", "{}", "call_0")]}),
    ([{"text": "a", "thoughtSignature": opaque.pack("hm")}], {"content": "a", "reasoning": "hm"}),
    ([{"text": "h", "thought": True}, {"text": "m", "thought": True}, {"text": "a"}],
     {"content": "a", "reasoning": "hm"}),
    ([{"text": "shown", "thought": True}, {**CALL, "thought_signature": opaque.pack("hm")}],
     {"reasoning": "hm", "tool_calls": [tool_call("look", '{"at":"x"}', "c")]}),
    ([{"text": "", "thoughtSignature": opaque.pack("hm")}], {"reasoning": "hm"}),
    ([{"text": "a", "thoughtSignature": "Z0FB"}], {"content": "a"}),
    ([{"text": "a", "thoughtSignature": "no base64!"}], {"content": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), SAYS)
@pytest.mark.parametrize("alone", [True, False])
def test_what_the_model_said_is_one_message_however_it_is_cut_into_contents(alone, parts, expected):
    """Signatures keep its thoughts; those of somebody else say nothing here."""
    contents = [parts] if alone else [[part] for part in parts]
    said = messages(*HI, *({"role": "model", "parts": one} for one in contents))
    assert [{"role": "assistant", "content": None, **expected}] == said[1:]


def test_two_replies_in_a_row_stay_two():
    """Text and thoughts behind a call are of another reply."""
    parts = [CALL, {"text": "b"}, {"text": "t", "thought": True}, {"text": "c"}]
    said = messages(*HI, {"role": "model", "parts": parts})
    assert [None, "b", "c"] == [message["content"] for message in said[1:]]


def test_results_without_ids_answer_the_calls_of_their_name_in_order():
    """Clients of before had none."""
    called = [{"functionCall": {"name": name}} for name in ("a", "b", "a")]
    answers = [{"functionResponse": {"name": name, "response": {}}} for name in ("a", "a", "b")]
    said = messages(*HI, {"role": "model", "parts": called}, {"parts": answers})
    assert ["call_0", "call_1", "call_2"] == [call["id"] for call in said[1]["tool_calls"]]
    assert ["call_0", "call_2", "call_1"] == [one["tool_call_id"] for one in said[2:]]


SCHEMAS = [
    ({"type": "STRING"}, {"type": "string"}),
    ({"type": "string", "minLength": 2}, {"type": "string", "minLength": 2}),
    ({"type": "INTEGER", "nullable": True}, {"type": ["integer", "null"]}),
    ({"type": "STRING", "enum": ["a"], "nullable": True},
     {"type": ["string", "null"], "enum": ["a", None]}),
    ({"any_of": [{"type": "STRING"}], "nullable": True},
     {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ({"type": "ARRAY", "items": {"type": "NUMBER"}, "max_items": "3", "minItems": 1},
     {"type": "array", "items": {"type": "number"}, "maxItems": 3, "minItems": 1}),
    ({"type": "OBJECT", "properties": {"max_items": {"type": "BOOLEAN"}, "type": {"type": "STRING"}},
      "propertyOrdering": ["type"], "required": ["max_items"]},
     {"type": "object", "properties": {"max_items": {"type": "boolean"}, "type": {"type": "string"}},
      "required": ["max_items"]}),
    ({"type": "TYPE_UNSPECIFIED", "description": "d", "example": 5}, {"description": "d"}),
    ({"ref": "#/$defs/a", "defs": {"a": {"type": "STRING"}}},
     {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}),
    ({"type": "OBJECT", "additional_properties": {"type": "STRING"}},
     {"type": "object", "additionalProperties": {"type": "string"}}),
    ({"type": "OBJECT", "additionalProperties": False, "format": "x", "default": {"any_of": 1}},
     {"type": "object", "additionalProperties": False, "format": "x", "default": {"any_of": 1}}),
    ({"type": ["STRING", "null"]}, {"type": ["string", "null"]}),
    (None, {"type": "object", "properties": {}}),
    ({}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "expected"), SCHEMAS)
def test_a_schema_of_googles_is_json_schema(schema, expected):
    """Types in capitals, numbers as text, names of properties that look like words of a schema."""
    declaration = {"name": "f", "parameters": schema}
    (tool,) = sent(tools={"function_declarations": declaration})["tools"]
    assert expected == tool["function"]["parameters"]


def test_a_json_schema_stays_as_it_is():
    """`parametersJsonSchema` is one already."""
    schema = {"type": "object", "properties": {"a": {"type": ["STRING"]}}, "$defs": {}}
    declaration = {"name": "f", "parametersJsonSchema": schema, "behavior": "BLOCKING"}
    (tool,) = sent(tools=[{"functionDeclarations": [declaration]}])["tools"]
    assert schema == tool["function"]["parameters"]


BOTH = [{"functionDeclarations": [LOOK, {"name": "see"}]}]
NAMED = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("calling", "choice", "names"),
    [
        (None, None, ["look", "see"]),
        ({"mode": "AUTO"}, None, ["look", "see"]),
        ({"mode": "MODE_UNSPECIFIED"}, None, ["look", "see"]),
        ({"mode": "ANY"}, "required", ["look", "see"]),
        ({"mode": "any"}, "required", ["look", "see"]),
        ({"mode": "NONE"}, "none", ["look", "see"]),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["see"]}, None, ["see"]),
        ({"mode": "ANY", "allowed_function_names": ["look"]}, NAMED, ["look"]),
        ({"mode": "ANY", "allowedFunctionNames": ["see", "look"]}, "required", ["look", "see"]),
        ({"mode": "ANY", "allowedFunctionNames": []}, "required", ["look", "see"]),
    ],
)
def test_which_functions_may_be_called(calling, choice, names):
    """All modes, in either case; some functions or all of them."""
    made = sent(tools=BOTH, tool_config={"function_calling_config": calling})
    assert (choice, names) == (
        made.get("tool_choice"), [tool["function"]["name"] for tool in made["tools"]],
    )  # fmt: skip


HOSTED = [
    "googleSearch", "google_search_retrieval", "codeExecution", "urlContext", "computerUse",
    "fileSearch", "googleMaps", "mcpServers", "enterpriseWebSearch", "ofNextYear",
]  # fmt: skip


@pytest.mark.parametrize("kind", HOSTED)
def test_a_hosted_tool_is_left_out_or_refused(kind):
    """Beside functions, or in an entry of its own; one that is null is none."""
    name = "googleSearchRetrieval" if "_" in kind else kind
    ask = asked(tools=[{kind: {}}, {"functionDeclarations": [LOOK], kind: {}}])
    assert (name,) == ask.dropped
    assert ["look"] == [tool["function"]["name"] for tool in json.loads(ask.body)["tools"]]
    assert () == asked(tools=[{kind: None}]).dropped
    with pytest.raises(BadRequest) as refused:
        asked(tools=[{kind: {}}], hosted="refuse")
    assert f"tools[0].{name}" == refused.value.param


def test_a_call_that_nothing_can_answer_is_nobodys_choice():
    """A search that must be made, where there is none."""
    config = {"functionCallingConfig": {"mode": "ANY"}}
    ask = asked(tools=[{"googleSearch": {}}], toolConfig=config)
    assert ("googleSearch", "tool_choice") == ask.dropped
    assert not {"tools", "tool_choice"} & json.loads(ask.body).keys()
    assert () == asked(toolConfig=config).dropped


def test_parts_of_hosted_tools_are_left_out_of_a_history():
    """The model's, and what the client hands back."""
    code = [{"executableCode": {"code": "1"}}, {"code_execution_result": {"outcome": "OK"}}]
    ask = asked([*HI, {"role": "model", "parts": [*code, {"text": "a"}]}, {"parts": code}, *HI])
    assert ["hi", "a", "hi"] == [one["content"] for one in json.loads(ask.body)["messages"]]
    assert ("executableCode", "codeExecutionResult") == ask.dropped


SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
PLAIN = {"type": "object", "properties": {"a": {"type": "string"}}}


def form(schema):
    return {"type": "json_schema", "json_schema": {
        "name": "reply", "schema": schema, "strict": True}}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"top_p": 0.5, "seed": "7", "maxOutputTokens": "9"},
         {"top_p": 0.5, "seed": 7, "max_tokens": 9}),
        ({"presencePenalty": 1, "frequencyPenalty": 0.5, "candidateCount": 1},
         {"presence_penalty": 1, "frequency_penalty": 0.5, "n": None}),
        ({"responseMimeType": "application/json"}, {"response_format": {"type": "json_object"}}),
        ({"responseMimeType": "text/plain"}, {"response_format": None}),
        ({"response_schema": SCHEMA}, {"response_format": form(PLAIN)}),
        ({"responseMimeType": "application/json", "responseJsonSchema": PLAIN},
         {"response_format": form(PLAIN)}),
        ({"thinkingConfig": {"thinkingBudget": 0}},
         {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"thinking_config": {"thinking_budget": -1}},
         {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"thinkingConfig": {"thinkingLevel": "HIGH"}}, {"reasoning_effort": "high"}),
        ({"thinkingConfig": {"thinkingLevel": "minimal"}}, {"reasoning_effort": "low"}),
        ({"thinkingConfig": {"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}},
         {"reasoning_effort": None}),
        ({"stopSequences": [], "responseModalities": ["TEXT"]}, {"stop": None}),
    ],
)  # fmt: skip
def test_how_to_sample_is_said_in_the_words_of_chats(config, expected):
    """In either case, numbers as text, whichever name the schema has."""
    for name in ("generationConfig", "generation_config"):
        made = sent(**{name: config})
        assert expected == {key: made.get(key) for key in expected}


def test_wishes_that_no_engine_has_are_left_out_and_named():
    """Google's own ways to answer; what is off is no wish."""
    config = {"speechConfig": {"voice": "x"}, "responseLogprobs": False, "audio_timestamp": True}
    assert ("speechConfig", "audioTimestamp") == asked(generationConfig=config).dropped


def test_a_part_is_signed_only_where_there_were_thoughts(bench):
    """And the signature is base64, as Google's clients read it."""
    choice = {"index": 0, "message": {"content": "a", "reasoning": "hm"}, "finish_reason": "stop"}
    ask = asked()
    (part,) = json.loads(GEMINI.reply(json.dumps({"choices": [choice]}).encode(), ask))[
        "candidates"
    ][0]["content"]["parts"]
    assert ("a", "hm") == (part["text"], opaque.unpack(part["thoughtSignature"]))
    choice["message"] = {"content": "a"}
    told = json.loads(GEMINI.reply(json.dumps({"choices": [choice]}).encode(), ask))
    assert [{"text": "a"}] == told["candidates"][0]["content"]["parts"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", "MAX_TOKENS"), ("content_filter", "SAFETY"), ("tool_calls", "STOP")],
)
async def test_why_a_reply_ended(bench, engine, finish, reason, stream):
    """In Google's words."""
    engine.finish = finish
    path = f"{ROOT}:streamGenerateContent?alt=sse" if stream else f"{ROOT}:generateContent"
    _, told = await ask(bench, path)
    last = told[-1] if stream else told
    assert reason == last["candidates"][0]["finishReason"]


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"contents": []}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": [5]}, "contents[0]"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": ""}}]}]},
         "contents[0].parts[0].inlineData.mimeType"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "text/x", "data": "é"}}]}]},
         "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "gs://a"}}]}]},
         "contents[0].parts[0].fileData"),
        ({"contents": [{"parts": [CALL]}]}, "contents[0].parts[0]"),
        ({"contents": [{"role": "model", "parts": [{"functionResponse": {}}]}]},
         "contents[0].parts[0]"),
        ({"systemInstruction": {"parts": [CALL]}}, "systemInstruction.parts[0]"),
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"temperature": "warm"}}, "generationConfig.temperature"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}},
         "generationConfig.responseMimeType"),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}},
         "generationConfig.responseModalities[0]"),
        ({"generationConfig": {"maxOutputTokens": 10**9}}, "max_tokens"),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0]"),
        ({"tools": BOTH, "toolConfig": {"functionCallingConfig": {"mode": "MUST"}}},
         "toolConfig.functionCallingConfig.mode"),
        ({"tools": BOTH, "toolConfig": {"functionCallingConfig": {
            "mode": "ANY", "allowedFunctionNames": ["no"]}}},
         "toolConfig.functionCallingConfig.allowedFunctionNames[0]"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_googles_error_and_names_the_field(bench, engine, more, place):
    """No turn, no call of the engine."""
    status, told = await ask(bench, **more)
    error = told["error"]
    assert (400, 400, "INVALID_ARGUMENT") == (status, error["code"], error["status"])
    violations = [one for one in error["details"] if one["@type"].endswith(".BadRequest")]
    assert [place] == [one["field"] for one in violations[0]["fieldViolations"]]
    assert not engine.calls
    assert not bench.events()


async def test_more_functions_than_the_limit_are_refused(make, monkeypatch):
    """Wherever they are listed."""
    monkeypatch.setattr(ProxySettings, "limits", lambda _: Limits(tools=2))
    async with make() as bench:
        status, told = await ask(bench, tools=[*BOTH, *TOOLS])
        assert (400, "INVALID_ARGUMENT") == (status, told["error"]["status"])


async def test_errors_have_googles_shape(bench, engine):
    """The engine's own words, a wrong token, an address that nobody has, an engine that broke."""
    engine.mode = "error"
    status, told = await ask(bench)
    assert (400, "the prompt is too long") == (status, told["error"]["message"])
    engine.mode = "ok"
    for path, headers, status in (
        (f"{ROOT}:generateContent", {"x-goog-api-key": "no"}, "UNAUTHENTICATED"),
        (f"{ROOT}:embedContent", {"x-goog-api-key": bench.token()}, "NOT_FOUND"),
        ("/e/e1/v1beta/cachedContents", {}, "NOT_FOUND"),
    ):
        _, _, answer = await bench.post(path, {"contents": HI}, headers=headers)
        assert status == json.loads(answer)["error"]["status"]
    told = json.loads(GEMINI.error(EngineBroke("it broke")))["error"]
    assert ["1s"] == [one["retryDelay"] for one in told["details"] if "retryDelay" in one]


ADDRESSES = [
    "/e/e1/v1beta", "/e/e1/v1alpha", "/e/e1/v1", "/e/e1", "/e/e1/v1/v1beta", "/v1beta", "/v1",
    "/v1alpha", "/v1/v1beta", "/t/{token}/v1beta", "/t/{token}/v1", "/t/{token}",
    "/t/{token}/v1/v1beta",
]  # fmt: skip


@pytest.mark.parametrize("root", ADDRESSES)
async def test_every_address_that_a_client_may_make_of_its_base_is_there(bench, root):
    """Whatever its version; a model's name may hold slashes and colons."""
    token = bench.token()
    path = root.format(token=token)
    for model in ("policy", "org/model:8b"):
        for end in (":generateContent", ":streamGenerateContent?alt=sse", ":countTokens"):
            status, _, answer = await bench.post(
                f"{path}/models/{model}{end}", {"contents": HI}, headers={"x-goog-api-key": token}
            )
            assert 200 == status, answer
    assert {"policy", "org/model:8b"} == {turn.model for turn in bench.turns()}
    assert 4 == len(bench.turns())


@pytest.mark.parametrize("where", ["x-goog-api-key", "key", "bearer", "x-api-key", "path"])
async def test_a_token_opens_its_episode_from_wherever_googles_clients_put_it(bench, where):
    """A header of Google's, the address, or what other clients use."""
    token = bench.token()
    headers = {
        "x-goog-api-key": {"x-goog-api-key": token}, "x-api-key": {"x-api-key": token},
        "bearer": {"Authorization": f"Bearer {token}"},
        "path": {"x-goog-api-key": "made-up"},
    }.get(where, {})  # fmt: skip
    root = f"/t/{token}/v1beta" if where == "path" else "/v1beta"
    query = f"?key={token}" if where == "key" else ""
    for end in (":generateContent", ":countTokens"):
        status, *_ = await bench.post(
            f"{root}/models/policy{end}{query}", {"contents": HI}, headers=headers
        )
        assert 200 == status
    assert 1 == len(bench.turns("e1"))


async def test_a_token_in_the_query_counts_at_googles_addresses_only(bench):
    """Two that differ are refused, as anywhere; elsewhere a query is not looked at."""
    token, other = bench.token(), bench.token("e2")
    body = {"contents": HI, "messages": [{"role": "user", "content": "x"}]}
    for path, headers in (
        (f"/v1beta/models/p:generateContent?key={token}", {"x-goog-api-key": other}),
        (f"/v1beta/models/p:generateContent?key={token}&key={token}", {}),
        ("/v1beta/models/p:generateContent?key=", {}),
        (f"/v1/chat/completions?key={token}", {}),
        ("/v1beta/models/p:generateContent", {}),
    ):
        assert 401 == (await bench.post(path, body, headers=headers))[0]
    sent_ = {"Authorization": f"Bearer {token}"}
    assert 200 == (await bench.post(f"/v1/chat/completions?key={other}", body, headers=sent_))[0]


async def test_tokens_are_counted_by_the_engine_and_nothing_is_recorded(bench, engine):
    """Of the request itself, or of one within it."""
    inner = {"contents": HI, "systemInstruction": {"parts": [{"text": "be brief"}]}}
    path = f"{ROOT}:countTokens"
    bearer = bench.token()
    for body in (inner, {"generateContentRequest": {"model": "models/policy", **inner}}):
        status, _, answer = await bench.post(path, body, token=bearer)
        assert (200, ["totalTokens"]) == (status, [*json.loads(answer)])
    assert engine.tokenized[0] == engine.tokenized[1]
    assert not bench.turns()


async def test_models_are_listed_in_googles_words(bench):
    """All of them, one, and one that is not there."""
    headers = {"x-goog-api-key": bench.token()}
    async with ClientSession(headers=headers) as session:
        for root in ("/e/e1/v1beta", "/v1beta", "/e/e1/v1"):
            async with session.get(f"{bench.url}{root}/models") as answer:
                (model,) = (await answer.json())["models"]
            assert "models/policy" == model["name"]
            assert "generateContent" in model["supportedGenerationMethods"]
            async with session.get(f"{bench.url}{root}/models/policy") as answer:
                assert model == await answer.json()
            async with session.get(f"{bench.url}{root}/models/no") as answer:
                assert "NOT_FOUND" == (await answer.json())["error"]["status"]


async def test_the_turn_and_the_reply_say_what_was_left_out(bench):
    """Here as in every dialect."""
    body = {"contents": HI, "tools": [{"googleSearch": {}}]}
    _, headers, _ = await bench.post(f"{ROOT}:generateContent", body, token=bench.token())
    assert "googleSearch" == headers[HEADER]
    assert [("googleSearch",)] == [turn.request.dropped for turn in bench.turns()]


def test_a_stream_and_a_whole_reply_of_one_body_are_two_requests():
    """As of two models: a retry is the same in all that was sent."""
    body = json.dumps({"contents": HI}).encode()
    digests = {
        dialect.at(model, None).parse(body, RequestRules()).digest
        for dialect in (GEMINI, GEMINI_STREAM)
        for model in ("a", "b")
    }
    assert 4 == len(digests)


@pytest.mark.parametrize("alt", ["?alt=sse", ""])
async def test_silence_is_filled_with_blank_lines_and_a_stream_stays_what_it_is(make, engine, alt):
    """Google's client takes a comment for an event; blanks are nothing, in an array, too."""
    async with make(CONNECT_S=0.1) as bench:
        bench.proxy.calls.silence_s = 0.02
        engine.head.clear()
        url = f"{bench.url}{ROOT}:streamGenerateContent{alt}"
        headers = {"x-goog-api-key": bench.token()}
        async with (
            ClientSession(headers=headers) as session,
            session.post(url, json={"contents": HI}) as answer,
        ):
            seen = b""
            while len(seen) < 3:
                seen += await answer.content.readany()
            assert b"" == seen.strip()
            engine.head.set()
            seen += await answer.content.read()
        assert ("text/event-stream" if alt else "application/json") == answer.content_type
        chunks = [json.loads(one) for one in events(seen)] if alt else json.loads(seen)
        assert "STOP" == chunks[-1]["candidates"][0]["finishReason"]
        assert [""] == [turn.error for turn in bench.turns()]


@pytest.mark.parametrize("alt", ["?alt=sse", ""])
async def test_an_engine_that_fails_after_a_silence_ends_the_stream_with_an_error(
    make, engine, alt
):
    """The head of the answer has gone: the error comes in it, and the array is one."""
    async with make(CONNECT_S=0.1) as bench:
        bench.proxy.calls.silence_s = 0.02
        engine.head.clear()
        engine.mode = "die"
        url = f"{bench.url}{ROOT}:streamGenerateContent{alt}"
        headers = {"x-goog-api-key": bench.token()}
        async with (
            ClientSession(headers=headers) as session,
            session.post(url, json={"contents": HI}) as answer,
        ):
            seen = await answer.content.readany()
            engine.head.set()
            seen += await answer.content.read()
        chunks = [json.loads(one) for one in events(seen)] if alt else json.loads(seen)
        assert 502 == chunks[-1]["error"]["code"]
        assert [True] == [bool(turn.error) for turn in bench.turns()]
