"""What of sampling reaches the engine and the turn, in every dialect, and what the agent sees."""

import json

import pytest

from odradek.proxy.dialects import DIALECTS
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.gemini import GEMINI
from odradek.proxy.dialects.sampling import Training
from odradek.proxy.errors import BadRequest
from odradek.proxy.settings import ProxySettings
from odradek.schemas.sampling import NEUTRAL, STRICT, sampling_of
from tests.support.schemas.sampling_fields import BENT

HI = [{"role": "user", "content": "x"}]
BODIES = {
    "chat": {"messages": HI},
    "completions": {"prompt": "x"},
    "messages": {"messages": HI, "max_tokens": 5},
    "responses": {"input": "x"},
    "gemini": {"contents": [{"parts": [{"text": "x"}]}]},
}
PATHS = {dialect.name: path for path, dialect in DIALECTS.items() if dialect.name in BODIES}
PATHS["gemini"] = "/models/m:generateContent"
OF = {dialect.name: dialect for dialect in DIALECTS.values()}
LEFT_OUT = {"temperature": 1.0, **NEUTRAL}
SENT = [said for said in BENT if "logits_processors" not in said]
"""Without functions of the caller's, which are refused: they are the engine's own."""
FORCED = Training.at(0.8, force=True)
PARAMETERS = {"type": "object", "properties": {"strict": {"type": "boolean"}}}


def tool(strict, dialect="chat"):
    """A tool of its own in a dialect."""
    if dialect == "gemini":
        return {"functionDeclarations": [{"name": "look", "parameters": PARAMETERS}]}
    if dialect == "messages":
        return {"name": "look", "input_schema": PARAMETERS, "strict": strict}
    function = {"name": "look", "parameters": PARAMETERS, "strict": strict}
    if dialect == "responses":
        return {"type": "function", **function}
    return {"type": "function", "function": function}


def taken(dialect, terms=None, **more):
    return OF[dialect].parse(
        json.dumps({**BODIES[dialect], **more}).encode(), terms or RequestRules()
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", BODIES)
async def test_what_a_client_leaves_out_is_neutral_at_the_engine(bench, engine, dialect, stream):
    """No default of the engine's or of its model's applies, and the turn says what was in force."""
    body = {**BODIES[dialect], "stream": stream}
    status, _, answer = await bench.post("/e/e1/v1" + PATHS[dialect], body, token=bench.token())
    (asked,), (turn,) = engine.calls, bench.turns()
    assert 200 == status
    assert LEFT_OUT == {name: asked.get(name) for name in LEFT_OUT}
    assert LEFT_OUT == {name: turn.request.sampling.get(name) for name in LEFT_OUT}
    assert not [name for name in ("top_k", "min_p", "_penalty") if name.encode() in answer]
    assert ("", 1.0) == (
        sampling_of(turn.request.sampling).altered_by,
        turn.request.sampling["temperature"],
    )


@pytest.mark.parametrize("dialect", BODIES)
@pytest.mark.parametrize("name", LEFT_OUT)
def test_null_counts_as_left_out(dialect, name):
    """Engines take it so, and put their own defaults in."""
    ask = taken(dialect, **{name: None})
    assert LEFT_OUT == {name: json.loads(ask.body).get(name) for name in LEFT_OUT}
    assert LEFT_OUT == {name: ask.sampling.get(name) for name in LEFT_OUT}


@pytest.mark.parametrize("dialect", ["chat", "completions"])
@pytest.mark.parametrize("said", SENT, ids=str)
def test_what_a_client_says_is_passed_on_and_recorded(dialect, said):
    """Refusing is the trainer's business: agents are served as they ask."""
    ask = taken(dialect, **said)
    assert said == {name: json.loads(ask.body)[name] for name in said}
    assert not sampling_of(ask.sampling).trainable


FORM = {"type": "json_schema", "schema": {}}
OWN = [
    ("messages", {"tool_choice": {"type": "any"}}, "tool_choice"),
    ("messages", {"tool_choice": {"type": "tool", "name": "look"}}, "tool_choice"),
    ("messages", {"tool_choice": {"type": "auto"}}, ""),
    ("messages", {"tool_choice": {"type": "none"}}, ""),
    ("messages", {"output_format": FORM}, "response_format"),
    ("messages", {"output_config": {"format": FORM, "effort": "low"}}, "response_format"),
    ("messages", {"output_config": {"effort": "low"}}, ""),
    ("messages", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, ""),
    ("messages", {"top_k": 5}, "top_k"),
    ("messages", {"top_p": 0.99}, "top_p"),
    ("messages", {"stop_sequences": ["x"], "metadata": {"user_id": "u"}}, ""),
    ("responses", {"tool_choice": "required"}, "tool_choice"),
    ("responses", {"tool_choice": {"type": "function", "name": "look"}}, "tool_choice"),
    ("responses", {"tool_choice": {"type": "allowed_tools", "mode": "required",
                                   "tools": [{"type": "function", "name": "look"}]}},
     "tool_choice"),
    ("responses", {"tool_choice": "auto"}, ""),
    ("responses", {"text": {"format": {**FORM, "name": "r"}}}, "response_format"),
    ("responses", {"text": {"format": {"type": "json_object"}}}, "response_format"),
    ("responses", {"text": {"format": {"type": "text"}}}, ""),
    ("responses", {"reasoning": {"effort": "low"}}, ""),
    ("responses", {"top_p": 0.99, "top_logprobs": 2, "parallel_tool_calls": False}, "top_p"),
    ("gemini", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "tool_choice"),
    ("gemini", {"toolConfig": {"functionCallingConfig": {"mode": "ANY",
                                                         "allowedFunctionNames": ["look"]}}},
     "tool_choice"),
    ("gemini", {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}, ""),
    ("gemini", {"generationConfig": {"topK": 5}}, "top_k"),
    ("gemini", {"generationConfig": {"topP": 0.99}}, "top_p"),
    ("gemini", {"generation_config": {"presence_penalty": 1}}, "presence_penalty"),
    ("gemini", {"generationConfig": {"responseMimeType": "application/json"}}, "response_format"),
    ("gemini", {"generationConfig": {"stopSequences": ["x"], "maxOutputTokens": 9, "seed": 1,
                                     "thinkingConfig": {"thinkingBudget": 0}}}, ""),
    ("responses", {"client_metadata": {"a": "b"}, "prompt_cache_key": "k", "store": False}, ""),
    ("responses", {"tool_choice": {"type": "auto"}}, ""),
    ("responses", {"tool_choice": {"type": "required"}}, "tool_choice"),
    ("responses", {"user_id": "u", "usage": {"include": True}, "extra_body": {"top_k": -1}}, ""),
    ("messages", {"user_profile_id": "u", "workspace_id": "w", "diagnostics": {"a": 1}}, ""),
    ("messages", {"thread": {"type": "create"}}, ""),
    ("messages", {"compaction": {"type": "auto"}, "fallback_credit_token": "t"}, ""),
    ("messages", {"fallbacks": "default", "speed": "fast", "inference_geo": "eu"}, ""),
    ("messages", {"cache_control": {"type": "ephemeral"}, "user_id": "u"}, ""),
    ("messages", {"guided_json": {}}, "guided_json"),
    ("chat", {"tool_choice": {"type": "auto"}}, ""),
    ("gemini", {"generationConfig": {"responseLogprobs": True, "mediaResolution": "LOW"}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "said", "bent"), OWN)
def test_a_dialects_own_spelling_is_read_as_what_the_engine_gets(dialect, said, bent):
    """Forced tools and forms of reply, whatever they are called."""
    ask = taken(dialect, tools=[tool(None, dialect)], **said)
    assert (1.0, bent) == (
        sampling_of(ask.sampling).temperature,
        sampling_of(ask.sampling).altered_by,
    )
    forced = taken(dialect, RequestRules(training=FORCED), tools=[tool(None, dialect)], **said)
    assert (0.8, "") == (
        sampling_of(forced.sampling).temperature,
        sampling_of(forced.sampling).altered_by,
    )


@pytest.mark.parametrize("dialect", BODIES)
def test_a_training_temperature_stands_where_a_client_names_none(dialect):
    """And only there."""
    terms = RequestRules(training=Training.at(0.7))
    assert 0.7 == json.loads(taken(dialect, terms).body)["temperature"]
    assert 0.2 == json.loads(taken(dialect, terms, temperature=0.2).body)["temperature"]


@pytest.mark.parametrize("dialect", ["chat", "completions"])
@pytest.mark.parametrize("said", SENT, ids=str)
def test_force_imposes_the_training_distribution(dialect, said):
    """Whatever the client says; the turn records what was in force."""
    ask = taken(dialect, RequestRules(training=FORCED), temperature=0.3, **said)
    asked = json.loads(ask.body)
    for found in (asked, ask.sampling):
        assert {"temperature": 0.8, **NEUTRAL} == {name: found[name] for name in LEFT_OUT}
    assert (0.8, "") == (sampling_of(ask.sampling).temperature, sampling_of(asked).altered_by)


def test_force_leaves_what_bends_nothing():
    """Limits, stops, seeds, templates and the conversation itself."""
    said = {"max_tokens": 3, "stop": ["x"], "seed": 1, "tools": [tool(False)], "tool_choice": "auto",
            "chat_template_kwargs": {"a": 1}, "user": "u", "reasoning_effort": "low"}  # fmt: skip
    asked = json.loads(taken("chat", RequestRules(training=FORCED), **said).body)
    assert said == {name: asked[name] for name in said}


@pytest.mark.parametrize("training", [Training.at(1.0), FORCED])
@pytest.mark.parametrize("dialect", BODIES)
def test_a_tasks_sampling_goes_before_all(dialect, training):
    """Evaluations are greedy under `force`, too."""
    terms = RequestRules(sampling={"temperature": 0, "top_p": None}, training=training)
    ask = taken(dialect, terms, temperature=1, top_p=0.5)
    asked = json.loads(ask.body)
    assert (0, 1) == (asked["temperature"], asked["top_p"])
    assert (0, 1) == (ask.sampling["temperature"], ask.sampling["top_p"])


def test_a_vendors_conversation_that_we_do_not_hold_is_refused():
    """Only the newest message comes with it: a reply would be to half of what was said."""
    with pytest.raises(BadRequest) as refused:
        taken("messages", thread={"type": "continue", "previous_message_id": "msg_1"})
    assert "thread" == refused.value.param


@pytest.mark.parametrize(
    ("strict", "bent"), [("true", True), (1, True), (0, False), ("false", False)]
)
def test_a_strict_tool_is_one_in_any_spelling_that_engines_read(strict, bent):
    """They take text and numbers for booleans."""
    ask = taken("chat", tools=[tool(strict)])
    assert ([STRICT] if bent else []) == [name for name in ask.sampling if name == STRICT]
    forced = taken("chat", RequestRules(training=FORCED), tools=[tool(strict)])
    assert STRICT not in forced.sampling
    made = json.loads(forced.body)["tools"][0]["function"]
    assert not bent or "strict" not in made


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@pytest.mark.parametrize("strict", [True, False, None])
def test_strict_tools_bend_and_force_relaxes_them(dialect, strict):
    """Engines hold their arguments to a grammar; a property of that name means nothing."""
    tools = [tool(None, dialect), tool(strict, dialect)]
    asked = taken(dialect, tools=tools)
    assert [STRICT] * (strict is True) == [name for name in asked.sampling if name == STRICT]
    assert (STRICT if strict else "") == sampling_of(asked.sampling).altered_by
    forced = taken(dialect, RequestRules(training=FORCED), tools=tools)
    assert STRICT not in forced.sampling
    made = json.loads(forced.body)["tools"]
    assert not [one for one in made if one["function"].get("strict")]
    assert PARAMETERS == made[-1]["function"]["parameters"]


def test_fields_within_a_field_are_recorded_by_name_only():
    """And only where one of them bends: the rest may be a secret."""
    ask = taken("chat", extra_body={"api_key": None, "top_k": 5, "user": "sk-secret"})
    assert True is ask.sampling["extra_body"]
    assert "extra_body" not in taken("chat", extra_body={"user": "sk-secret"}).sampling


def test_an_unknown_field_is_recorded_by_name_only():
    """Some clients send credentials in the body; the engine gets them, the log does not."""
    ask = taken("chat", api_key="sk-secret", quite_new={"a": "sk-secret"})
    assert "sk-secret" == json.loads(ask.body)["api_key"]
    assert (True, True) == (ask.sampling["api_key"], ask.sampling["quite_new"])
    assert "sk-secret" not in str(ask.sampling)


REFUSALS = [
    ({"top_k"}, lambda asked: asked["top_k"] < 0, {"top_k": 0}),
    ({"top_k"}, lambda asked: "top_k" in asked, {}),
    ({"min_p", "repetition_penalty"}, lambda asked: "min_p" in asked, {}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("names", "refuses", "written"), REFUSALS)
async def test_an_engine_that_refuses_a_field_of_ours_is_asked_without(
    bench, engine, names, refuses, written, stream
):
    """Once; afterwards no call has it, and the turn records what the engine took."""
    engine.refuses = lambda asked: ", ".join(names) if refuses(asked) else ""
    for content in ("one", "two"):
        body = {"messages": [{"role": "user", "content": content}], "stream": stream}
        status, *_ = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        assert 200 == status
    *tries, first, second = engine.calls
    assert 1 + (written == {} and "top_k" in names) == len(tries)
    for asked, turn in zip((first, second), bench.turns(), strict=True):
        expected = {name: value for name, value in LEFT_OUT.items() if name not in names} | written
        assert expected == {name: asked[name] for name in LEFT_OUT if name in asked}
        assert expected == turn.request.sampling


async def test_a_clients_own_mistake_changes_no_later_call(bench, engine):
    """An engine may quote the whole request: it refuses it again, and its words are passed on."""
    engine.refuses = lambda asked: str(asked) if asked["messages"] == [] else ""
    status, _, answer = await bench.post(
        "/e/e1/v1/chat/completions", {"messages": []}, token=bench.token()
    )
    assert 400 == status
    assert b"top_k" in answer
    await bench.ask("hi")
    assert LEFT_OUT == {name: engine.calls[-1].get(name) for name in LEFT_OUT}


async def test_what_the_client_itself_asks_for_is_not_left_out(bench, engine):
    """A field of its own that the engine refuses is its own mistake."""
    engine.refuses = lambda asked: "top_k" if asked["top_k"] > 0 else ""
    body = {"messages": HI, "top_k": 5}
    status, *_ = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert (400, 1) == (status, len(engine.calls))


def test_settings_say_the_distribution():
    """The default serves clients as they ask."""
    assert Training.at(1.0) == ProxySettings().training()
    assert (
        Training.at(0.7, force=True) == ProxySettings(sampling="force", temperature=0.7).training()
    )


async def test_a_turn_records_its_sampling_where_it_is_not_that_of_its_base(bench, engine):
    """A long conversation at one temperature says so once."""
    messages = list(HI)
    for temperature in (None, None, 0.5, 0.5, None):
        body = {"messages": messages, "temperature": temperature}
        _, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        messages += [json.loads(answer)["choices"][0]["message"], *HI]
    first, *later = [turn.request for turn in bench.turns()]
    warm = {**LEFT_OUT, "temperature": 0.5}
    assert all(request.base for request in later)
    assert [LEFT_OUT, {}, warm, {}, LEFT_OUT] == [r.sampling for r in (first, *later)]


async def test_without_all_of_it_no_base_speaks_for_a_turn(bench, engine):
    """A reader could not tell what an old proxy left out from what is as before."""
    engine.refuses = lambda asked: "min_p" if "min_p" in asked else ""
    messages = list(HI)
    for _ in range(2):
        body = {"messages": messages}
        _, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        messages += [json.loads(answer)["choices"][0]["message"], *HI]
    left = {name: value for name, value in LEFT_OUT.items() if name != "min_p"}
    assert [left, left] == [turn.request.sampling for turn in bench.turns()]


TEXT = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
DECLARED = {"tools": [{"functionDeclarations": [{"name": "look", "parameters": PARAMETERS}]}]}
GOOGLES = [
    ({}, ""), ({"topP": 1, "topK": 0, "presencePenalty": 0}, ""), ({"topP": None}, ""),
    ({"topP": 0.95}, "top_p"), ({"topK": 64}, "top_k"), ({"frequencyPenalty": 0.1}, "frequency_penalty"),
    ({"presence_penalty": 0.1}, "presence_penalty"), ({"seed": 3, "stopSequences": ["x"]}, ""),
    ({"responseMimeType": "application/json"}, "response_format"),
    ({"responseSchema": {"type": "STRING"}}, "response_format"),
    ({"responseMimeType": "text/plain", "maxOutputTokens": 5}, ""),
    ({"thinkingConfig": {"thinkingBudget": 128}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("config", "bent"), GOOGLES)
def test_googles_names_are_read_as_what_the_engine_gets(config, bent):
    """Their command line sends topP and topK in every call."""
    body = json.dumps({**TEXT, "generationConfig": {"temperature": 0.7, **config}}).encode()
    ask = GEMINI.parse(body, RequestRules())
    assert (0.7, bent) == (
        sampling_of(ask.sampling).temperature,
        sampling_of(ask.sampling).altered_by,
    )
    assert NEUTRAL.keys() <= json.loads(ask.body).keys()
    forced = GEMINI.parse(body, RequestRules(training=FORCED))
    assert (0.8, "") == (
        sampling_of(forced.sampling).temperature,
        sampling_of(forced.sampling).altered_by,
    )


@pytest.mark.parametrize(("mode", "bent"), [("AUTO", ""), ("NONE", ""), ("ANY", "tool_choice")])
def test_googles_forced_tools_bend(mode, bent):
    """Whatever the mode is called."""
    config = {"toolConfig": {"functionCallingConfig": {"mode": mode}}}
    ask = GEMINI.parse(json.dumps({**TEXT, **DECLARED, **config}).encode(), RequestRules())
    assert bent == sampling_of(ask.sampling).altered_by
