"""Chat completions through the proxy, with the unmodified OpenAI client."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from openai import BadRequestError

from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import Limits, RequestRules
from odradek.proxy.errors import LimitExceeded
from odradek.schemas.arrays import unpack_floats, unpack_ids
from odradek.schemas.events import VersionSpan, parsed
from odradek.schemas.sampling import NEUTRAL

from .conftest import END, prompt_ids


async def test_a_reply_is_in_the_log_with_the_engines_own_tokens(bench):
    """The turn holds the engine's prompt ids, sampled ids, logprobs and policy version."""
    reply = await bench.ask("hi")
    (turn,) = bench.turns()
    text = reply.choices[0].message.content
    assert prompt_ids([{"role": "user", "content": "hi"}]) == unpack_ids(turn.prompt.ids).tolist()
    ids = [*text.encode(), END]
    assert ids == unpack_ids(turn.completion.ids).tolist()
    assert pytest.approx([-i / 1000 for i in ids]) == unpack_floats(turn.completion.logprobs)
    assert (VersionSpan(7, 0, len(ids)),) == turn.versions
    assert turn.versions_from == "engine"
    assert text == parsed(turn.reply.message)["content"]
    assert turn.reply.finish_reason == "stop"
    assert (turn.seq, turn.writer) == (0, bench.proxy.writer)
    assert turn.usage.cached_tokens == 2
    assert not turn.untrainable


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"logprobs": True},
        {"return_token_ids": True},
        {"return_weight_versions": True},
        {"logprobs": True, "return_token_ids": True, "return_weight_versions": True},
        {"stream_options": {"include_usage": True}},
    ],
)
async def test_the_agent_sees_what_the_engine_answers_without_us(bench, engine, stream, extra):
    """Status, JSON, key order and stream are those of a direct call with the same body."""
    if not stream and "stream_options" in extra:
        pytest.skip("for streams only")
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream, **extra}
    ours = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    engine.calls.clear()
    direct = bench.url
    bench.url = engine.url
    theirs = await bench.post("/v1/chat/completions", body)
    bench.url = direct
    assert theirs[0] == ours[0]
    assert theirs[1]["Content-Type"] == ours[1]["Content-Type"]
    assert pairs(theirs[2]) == pairs(ours[2])
    assert len(bench.turns()) == 1
    assert not bench.turns()[0].untrainable


def pairs(body):
    """JSON with its key order, of a whole body or of each event of a stream."""
    if not body.startswith(b"data:"):
        return json.loads(body, object_pairs_hook=list)
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    return [
        event if event == b"[DONE]" else json.loads(event, object_pairs_hook=list)
        for event in events
    ]


async def test_a_stream_becomes_the_same_turn_as_a_whole_reply(bench, engine):
    """Message, ids, logprobs, versions and usage do not depend on streaming."""
    stream = await bench.ask("hi", stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    engine.calls.clear()
    await bench.ask("hi", episode="e2")
    (streamed,), (whole,) = bench.turns("e1"), bench.turns("e2")
    assert text == parsed(streamed.reply.message)["content"]
    assert whole.completion == streamed.completion
    assert whole.prompt == streamed.prompt
    assert whole.versions == streamed.versions
    assert whole.usage == streamed.usage
    assert streamed.streamed
    assert streamed.timing.ttft_ms <= streamed.timing.total_ms


async def test_unknown_fields_pass_and_the_engine_is_asked_for_tokens(bench, engine):
    """What we do not know goes through; what a turn needs is forced."""
    await bench.ask(extra_body={"chat_template_kwargs": {"x": [1, {"y": None}]}, "top_k": 5})
    (asked,) = engine.calls
    assert {"x": [1, {"y": None}]} == asked["chat_template_kwargs"]
    assert asked["logprobs"]
    assert asked["return_token_ids"]
    assert asked["return_weight_versions"]
    assert bench.turns()[0].request.sampling["top_k"] == 5


async def test_the_tokens_sampling_wins_over_the_request(bench, engine):
    """An evaluation's temperature 0 reaches the engine; messages are never set by a token."""
    agent = bench.agent(sampling={"temperature": 0, "messages": [], "stream": True}, model="p2")
    await agent.chat.completions.create(
        model="other", messages=[{"role": "user", "content": "hi"}], temperature=1
    )
    (asked,) = engine.calls
    assert asked["temperature"] == 0
    assert asked["model"] == "p2"
    assert asked["messages"] == [{"role": "user", "content": "hi"}]
    assert not asked.get("stream")
    assert bench.turns()[0].request.sampling == {**NEUTRAL, "temperature": 0}


@pytest.mark.parametrize(
    ("mode", "reason"), [("no_ids", "no_token_ids"), ("mismatch", "length_mismatch")]
)
async def test_what_cannot_be_trained_on_says_why(bench, engine, mode, reason):
    """The reply is served; the turn names what is wrong with its tokens."""
    engine.mode = mode
    await bench.ask()
    (turn,) = bench.turns()
    assert reason == turn.untrainable
    assert not turn.error


async def test_models_and_addresses_without_v1_work(bench):
    """Some programs ask for the models first, some leave out /v1."""
    models = await bench.agent().models.list()
    assert [model.id for model in models.data] == ["policy"]
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    status, _, _ = await bench.post("/e/e1/chat/completions", body, token=bench.token())
    assert status == 200


async def test_an_engines_error_is_recorded_and_passed_on_verbatim(bench, engine):
    """Status, body and request id are the engine's; the turn has the error."""
    engine.mode = "error"
    with pytest.raises(BadRequestError, match="the prompt is too long"):
        await bench.ask()
    body = {"model": "m", "messages": []}
    status, headers, answer = await bench.post(
        "/e/e1/v1/chat/completions", body, token=bench.token()
    )
    assert (status, headers["X-Request-Id"]) == (400, "r1")
    assert json.loads(answer)["error"]["message"] == "the prompt is too long"
    assert [(0, 400), (1, 400)] == [(t.seq, t.upstream.status) for t in bench.turns()]
    assert {turn.error for turn in bench.turns()} == {"the prompt is too long"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "status", "words"),
    [
        ("no_route", 404, "Not Found"),
        ("busy", 503, "it is paused"),
        ("broken", 500, "the engine answered 500"),
    ],
)
async def test_an_error_in_no_shape_of_openais_gets_that_shape(
    bench, engine, mode, status, words, stream
):
    """An engine without the route, an older one, a server before it; in every dialect."""
    engine.mode = mode
    hi = [{"role": "user", "content": "x"}]
    for path, body in (
        ("chat/completions", {"messages": hi}),
        ("completions", {"prompt": "x"}),
        ("responses", {"input": "x"}),
        ("messages", {"messages": hi, "max_tokens": 5}),
    ):
        found, headers, answer = await bench.post(
            f"/e/e1/v1/{path}", {**body, "stream": stream}, token=bench.token()
        )
        assert (status, "application/json") == (found, headers["Content-Type"])
        assert words == json.loads(answer)["error"]["message"]
    assert {words} == {turn.error for turn in bench.turns()}


async def test_a_reply_that_is_no_json_is_a_502_and_recorded_as_an_error(bench, engine):
    """Nothing is guessed about it, and no client has to read it."""
    engine.mode = "garbage"
    body = {"model": "m", "messages": []}
    answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert (502, "1") == (answer[0], answer[1]["Retry-After"])
    assert "cannot be read" in json.loads(answer[2])["error"]["message"]
    assert "cannot be read" in bench.turns()[0].error


async def test_an_engine_that_is_down_is_a_clear_503(make):
    """The error has OpenAI's shape, says what to do and when to come back; it is recorded."""
    async with make(engine_url="http://127.0.0.1:9") as bench:
        body = {"model": "m", "messages": []}
        status, headers, answer = await bench.post(
            "/e/e1/v1/chat/completions", body, token=bench.token()
        )
        assert (status, headers["Retry-After"]) == (503, "1")
        error = json.loads(answer)["error"]
        assert error["code"] == "engine_unreachable"
        assert "ODRADEK_ENGINE_URL" in error["message"]
        assert "engine_unreachable" in bench.turns()[0].error


async def test_a_connection_that_breaks_is_a_502(bench, engine):
    """The engine died in the middle of a whole reply."""
    engine.mode = "drop"
    body = {"model": "m", "messages": []}
    status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert (status, json.loads(answer)["error"]["code"]) == (502, "engine_broke")
    assert "engine_broke" in bench.turns()[0].error


async def test_an_engine_that_is_too_slow_is_a_504(make, engine):
    """The token's deadline ends the call."""
    engine.gate.clear()
    async with make() as bench:
        body = {"model": "m", "messages": []}
        token = bench.token(call_s=0.05)
        status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=token)
        assert (status, json.loads(answer)["error"]["code"]) == (504, "engine_slow")
        assert "engine_slow" in bench.turns()[0].error


async def test_a_stream_that_dies_ends_with_an_error_event(bench, engine):
    """The agent sees no finish reason and no [DONE]; the turn has what came and the error."""
    engine.mode = "die"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert status == 200
    assert b"[DONE]" not in answer
    assert pairs(answer)[-1][0][0] == "error"
    (turn,) = bench.turns()
    assert "engine_broke" in turn.error
    assert parsed(turn.reply.message)["content"] == "né"


async def test_an_error_inside_a_stream_is_passed_on_and_recorded(bench, engine):
    """Engines report errors as an event of the stream."""
    engine.mode = "stream_error"
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    _, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert b'data: {"error": {"message": "out of memory"}}\n\n' in answer
    assert bench.turns()[0].error == "out of memory"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"model": "m"}', b'{"messages": 3}', b"\xff\xfe",
        b'{"messages": [], "stream": "yes"}', b'{"messages": ' + b"[" * 200_000,
        b'{"messages": [], "n": "\\ud800"}',
    ],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_a_400_and_no_turn(bench, engine, body):
    """Nothing reaches the engine or the log."""
    answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    assert answer[0] == 400
    assert json.loads(answer[2])["error"]["code"] == "bad_request"
    assert not bench.events()
    assert not engine.calls


async def test_a_body_beyond_the_limit_is_a_413(make):
    """Also when it is small only while compressed."""
    import gzip

    async with make(max_body_bytes=2000) as bench:
        bomb = gzip.compress(b'{"messages": ["' + b"x" * 100_000 + b'"]}')
        status, _, answer = await bench.post(
            "/e/e1/v1/chat/completions",
            bomb,
            token=bench.token(),
            headers={"Content-Encoding": "gzip"},
        )
        assert (status, json.loads(answer)["error"]["code"]) == (413, "body_too_large")


async def test_a_gzipped_request_is_read(bench):
    """Some agents compress what they send."""
    import gzip

    body = gzip.compress(b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}')
    answer = await bench.post(
        "/e/e1/v1/chat/completions",
        body,
        token=bench.token(),
        headers={"Content-Encoding": "gzip"},
    )
    assert answer[0] == 200


async def test_the_agents_token_reaches_neither_engine_nor_log(bench, engine):
    """Authorization ends at the proxy."""
    token = bench.token()
    await bench.agent(token=token).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}]
    )
    assert "Authorization" not in engine.headers[0]
    for record in bench.log.records:
        assert token.encode() not in record.value + repr(record.headers).encode()


async def test_the_callers_trace_goes_on_in_the_turns_record(bench, engine):
    """Traceparent travels to the engine and into the record's headers; other text does not."""
    body = {"model": "m", "messages": []}
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    for value in (trace, "nonsense"):
        await bench.post(
            "/e/e1/v1/chat/completions", body, token=bench.token(), headers={"traceparent": value}
        )
    found = [codec_header(record) for record in bench.log.records]
    assert [trace, None] == found
    assert engine.headers[0]["traceparent"] == trace


def codec_header(record):
    from odradek.schemas.codec import header

    return header(record.headers, "traceparent")


async def test_a_client_that_leaves_within_its_request_is_no_bug_of_ours(bench, caplog):
    """Half a body and then nothing: no turn, no alarm, and the next call is served."""
    host, port = bench.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /e/e1/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {bench.token()}\r\nContent-Length: 1000\r\n\r\n" + "{"
    )
    writer.write(head.encode())
    await writer.drain()
    writer.transport.abort()
    await bench.ask("hi")
    assert 1 == len(bench.turns())
    assert "a bug" not in caplog.text


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(4, 5, 4), (5, 4, 4), (None, 5, None), (4, None, None)]
)
async def test_tokens_without_spans_are_of_the_older_version(make, engine, before, after, expected):
    """The weights may have been swapped while they were sampled; where one is unknown, so is it."""
    engine.mode = "no_versions"
    engine.gate.clear()
    versions = SimpleNamespace(current=before, engines={}, adapter="")
    async with make(versions=versions) as bench:
        asking = asyncio.create_task(bench.ask())
        await engine.entered.wait()
        versions.current = after
        engine.gate.set()
        await asking
        (turn,) = bench.turns()
        assert [expected][: expected is not None] == [span.version for span in turn.versions]
        assert ("" if expected is None else "inferred") == turn.versions_from


def taken(terms=None, **more):
    body = {"messages": [{"role": "user", "content": "x"}], **more}
    return CHAT.parse(json.dumps(body).encode(), terms or RequestRules())


def test_a_turn_records_how_it_was_sampled():
    """Every field that moves the distribution of its tokens, as it was asked for."""
    said = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "max_tokens": 5,
        "max_completion_tokens": 6, "min_tokens": 1, "n": 2, "seed": 7, "stop": ["x"],
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "repetition_penalty": 1.1,
        "logit_bias": {"5": 1}, "tool_choice": "auto", "response_format": {"type": "text"},
        "reasoning_effort": "low",
    }  # fmt: skip
    assert said == taken(**said, user="u").sampling


def test_a_token_sets_nothing_of_the_conversation():
    """Its sampling is how to sample, not what was said, nor how the reply comes."""
    names = ("messages", "tools", "functions", "stream", "stream_options", "logprobs")
    kept = {name: [1] for name in names}
    ask = taken(RequestRules(sampling={**kept, "top_k": 3}, model="p2"), model="m")
    asked = json.loads(ask.body)
    assert not {"tools", "functions", "stream", "stream_options"} & asked.keys()
    assert (True, 3, "p2") == (asked["logprobs"], asked["top_k"], asked["model"])
    assert "p2" == ask.model


def test_usage_in_every_chunk_is_not_brought_about_by_our_asking_for_usage():
    """An engine ignores the option without `include_usage`, which is ours here."""
    ask = taken(stream=True, stream_options={"continuous_usage_stats": True})
    assert {"include_usage": True} == json.loads(ask.body)["stream_options"]
    assert not ask.usage


def test_null_is_no_tools():
    """Some clients send it."""
    assert taken(tools=None).tools is None


@pytest.mark.parametrize(
    ("name", "most", "beyond"),
    [
        ("n", 2, 3),
        ("max_tokens", 9, 10),
        ("max_completion_tokens", 9, 10),
        ("tools", [{}] * 10, [{}] * 11),
    ],
)
def test_a_limit_itself_is_within_it(name, most, beyond):
    """One more is beyond it, whichever of its names it has."""
    terms = RequestRules(limits=Limits(n=2, max_tokens=9, tools=10))
    assert most == json.loads(taken(terms, **{name: most}).body)[name]
    with pytest.raises(LimitExceeded, match=name):
        taken(terms, **{name: beyond})
