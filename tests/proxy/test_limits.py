"""Limits: what is too much is refused in the caller's own dialect, and counted."""

import asyncio
import gzip
import json
import zlib

import pytest
from aiohttp import ClientSession

from odradek.infra.runtime.episode_tokens import Claims, mint
from odradek.proxy.dialects.dialect import Limits
from odradek.proxy.settings import ProxySettings

from .conftest import KEY

CHAT = ("/e/e1/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
TEXT = ("/e/e1/v1/completions", {"prompt": "x"})
CLAUDE = ("/e/e1/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5})
RESPONSES = ("/e/e1/v1/responses", {"input": "x"})
ALL = {"chat": CHAT, "completions": TEXT, "messages": CLAUDE, "responses": RESPONSES}


def told(dialect, status, answer):
    """The error's type and message, from the dialect's own shape."""
    body = json.loads(answer)
    error = body["error"]
    if dialect == "messages":
        assert "error" == body["type"]
        assert {"type", "message"} == set(error)
    else:
        assert {"message", "type", "param", "code"} == set(error)
    assert 400 <= status < 500
    return error


def nested(depth):
    return {"metadata": json.loads("[" * depth + "]" * depth)}


TOOLS = {
    "chat": {"type": "function", "function": {"name": "f", "parameters": {}}},
    "messages": {"name": "f", "input_schema": {}},
    "responses": {"type": "function", "name": "f", "parameters": {}},
}


@pytest.mark.parametrize("dialect", ALL)
async def test_a_request_beyond_a_limit_is_the_dialects_own_400_and_counted(
    make, monkeypatch, dialect
):
    """Nesting, choices, tokens, tools: no call of the engine, no turn."""
    few = Limits(depth=20, n=2, max_tokens=100, tools=3)
    monkeypatch.setattr(ProxySettings, "limits", lambda _: few)
    async with make() as bench:
        path, body = ALL[dialect]
        limit = "max_output_tokens" if dialect == "responses" else "max_tokens"
        cases = [("bad_request", nested(21)), ("limit_exceeded", {limit: 101})]
        if dialect in {"chat", "completions"}:
            cases.append(("limit_exceeded", {"n": 3}))
            cases += [("bad_request", {"n": n}) for n in (0, -1, -(2**63))]
        if dialect in TOOLS:
            cases.append(("limit_exceeded", {"tools": [TOOLS[dialect]] * 4}))
        for _code, more in cases:
            status, headers, answer = await bench.post(path, {**body, **more}, token=bench.token())
            error = told(dialect, status, answer)
            assert (400, "invalid_request_error") == (status, error["type"])
            assert "false" == headers["x-should-retry"]
        exact = {limit: 100, **({"tools": [TOOLS[dialect]] * 3} if dialect in TOOLS else {})}
        assert 1 == len(bench.proxy.episodes) + 1
        assert 200 == (await bench.post(path, {**body, **exact}, token=bench.token()))[0]
        assert 1 == len(bench.engine.calls) == len(bench.turns())
        codes = [code for code, _ in cases]
        assert {code: codes.count(code) for code in codes} == dict(bench.proxy.refused)
        async with ClientSession() as session, session.get(f"{bench.url}/healthz") as answer:
            assert bench.proxy.refused == (await answer.json())["refused"]


@pytest.mark.parametrize("claims", [{}, {"sampling": {"n": 2}}])
@pytest.mark.parametrize("dialect", ["messages", "responses"])
async def test_a_sample_that_the_agent_would_not_see_is_not_asked_for(bench, dialect, claims):
    """These dialects show one choice: another would be trained on for an agent's reward."""
    path, body = ALL[dialect]
    status, _, answer = await bench.post(
        path, body if claims else {**body, "n": 2}, token=bench.token(**claims)
    )
    assert "n: " in told(dialect, status, answer)["message"]
    assert not bench.engine.calls
    assert 200 == (await bench.post(path, {**body, "n": 1}, token=bench.token()))[0]


@pytest.mark.parametrize("dialect", ALL)
async def test_headers_and_bodies_beyond_their_limits_are_refused(make, dialect):
    """431 and 413, in the dialect's shape."""
    async with make(MAX_HEADER_BYTES=1500, max_body_bytes=2000) as bench:
        path, body = ALL[dialect]
        for more, large, expected in (
            ({"X-Long": "y" * 1500}, body, 431),
            ({}, {**body, "user": "y" * 2000}, 413),
        ):
            status, _, answer = await bench.post(path, large, token=bench.token(), headers=more)
            assert expected == status
            told(dialect, status, answer)
        assert {"headers_too_large": 1, "body_too_large": 1} == bench.proxy.refused


@pytest.mark.parametrize("dialect", ALL)
async def test_one_header_may_be_as_long_as_all_of_them(bench, dialect):
    """By the defaults: what is within the bound is served, beyond it the dialect's 431 comes."""
    path, body = ALL[dialect]
    for size, expected in ((20_000, 200), (40_000, 431)):
        headers = {"X-Long": "y" * size}
        status, _, answer = await bench.post(path, body, token=bench.token(), headers=headers)
        assert expected == status
    told(dialect, status, answer)
    status, _, answer = await bench.post(path.replace("e1", "e" * 40_000), body)
    assert 431 == status
    told(dialect, status, answer)
    assert {"headers_too_large": 2} == bench.proxy.refused


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_bomb_is_refused_before_it_is_unpacked(make, encoding):
    """100 MB in 100 kB: the limit holds for what comes out, and memory does not grow with it."""
    import resource

    packer = gzip if encoding == "gzip" else zlib
    bomb = packer.compress(b'{"messages": ["' + b"x" * 100_000_000 + b'"]}', 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with make(max_body_bytes=1_000_000) as bench:
        status, _, answer = await bench.post(
            "/e/e1/v1/messages", bomb, token=bench.token(), headers={"Content-Encoding": encoding}
        )
    assert 413 == status
    assert "request_too_large" == json.loads(answer)["error"]["type"]
    assert 60_000 > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4]),
        ("nonsense", b"{}"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_is_a_400(bench, encoding, body):
    """In the dialect's shape, whatever the header says."""
    status, _, answer = await bench.post(
        "/e/e1/v1/messages", body, token=bench.token(), headers={"Content-Encoding": encoding}
    )
    assert 400 == status
    assert "invalid_request_error" == told("messages", status, answer)["type"]


async def test_after_a_body_that_cannot_be_unpacked_the_connection_is_not_used_again(bench):
    """The answer says so, else the client's next request would be lost on its way."""
    path, body = CHAT
    sent = {"Authorization": f"Bearer {bench.token()}"}
    async with ClientSession() as session:
        for headers, status in (({"Content-Encoding": "gzip"}, 400), ({}, 200)):
            async with session.post(
                bench.url + path, data=json.dumps(body), headers={**sent, **headers}
            ) as answer:
                assert status == answer.status
                assert ("close" if status == 400 else None) == answer.headers.get("Connection")
                await answer.read()


@pytest.mark.parametrize("dialect", ALL)
async def test_an_episode_has_a_bound_of_calls_and_tokens(make, dialect):
    """By the settings or by the token, whichever is less; SDKs are told not to try again."""
    path, body = ALL[dialect]
    for settings, claims, allowed in (
        ({"MAX_EPISODE_CALLS": 2}, {}, 2),
        ({"MAX_EPISODE_CALLS": 9}, {"max_calls": 1}, 1),
        ({"MAX_EPISODE_CALLS": 1}, {"max_calls": 9}, 1),
        ({"MAX_EPISODE_TOKENS": 1}, {}, 1),
        ({"MAX_EPISODE_TOKENS": 1}, {"max_tokens": 10**6}, 1),
        ({}, {"max_tokens": 1}, 1),
    ):
        async with make(**settings) as bench:
            token = mint(Claims(sub="e1", **claims), [KEY])
            found = [await bench.post(path, body, token=token) for _ in range(allowed + 1)]
            assert [200] * allowed + [429] == [status for status, _, _ in found]
            status, headers, answer = found[-1]
            told(dialect, status, answer)
            assert "false" == headers["x-should-retry"]
            assert {"budget_spent": 1} == bench.proxy.refused
            assert allowed == len(bench.turns())


async def test_an_episodes_tokens_are_those_of_prompts_and_replies(bench):
    """It goes on below its bound, and ends at it."""
    await bench.ask(episode="measured")
    usage = bench.turns("measured")[0].usage
    assert usage.prompt_tokens > 0 < usage.completion_tokens
    whole = usage.prompt_tokens + usage.completion_tokens
    body = {"model": "policy", "messages": [{"role": "user", "content": "hi"}]}
    for budget, second in ((whole, 429), (whole + 1, 200)):
        name = f"e{budget}"
        token = mint(Claims(sub=name, max_tokens=budget), [KEY])
        path = f"/e/{name}/v1/chat/completions"
        found = [(await bench.post(path, body, token=token))[0] for _ in range(2)]
        assert [200, second] == found


async def test_a_token_cannot_lengthen_a_calls_deadline(make, engine):
    """The settings bound what it may ask for."""
    engine.gate.clear()
    async with make(call_s=0.1) as bench:
        token = mint(Claims(sub="e1", call_s=100), [KEY])
        body = {"messages": [{"role": "user", "content": "hi"}]}
        async with asyncio.timeout(10):
            status, _, _ = await bench.post("/e/e1/v1/chat/completions", body, token=token)
        assert 504 == status


@pytest.mark.parametrize("dialect", ALL)
async def test_a_reply_beyond_the_bound_is_given_up_and_counted(make, engine, dialect):
    """The agent gets its dialect's error and no Retry-After, the log a turn that says why."""
    path, body = ALL[dialect]
    engine.script = [{"content": "y" * 5000}]
    body = {**body, "n": 100} if dialect == "completions" else body
    async with make(max_reply_bytes=4096) as bench:
        status, headers, answer = await bench.post(path, body, token=bench.token())
        assert (502, None, "false") == (
            status, headers.get("Retry-After"), headers["x-should-retry"],
        )  # fmt: skip
        assert "exceeds 4096 bytes" in json.loads(answer)["error"]["message"]
        _, _, events = await bench.post(path, {**body, "stream": True}, token=bench.token())
        assert b"exceeds 4096 bytes" in events
        assert 3 * 4096 > len(events)
        assert ["reply_too_large"] * 2 == [turn.error.split(":")[0] for turn in bench.turns()]
        assert {"reply_too_large": 2} == bench.proxy.calls.failed
        async with ClientSession() as session, session.get(f"{bench.url}/healthz") as told:
            assert {"reply_too_large": 2} == (await told.json())["failed"]


async def test_a_token_has_a_bound_of_open_streams(make, engine):
    """Another token of the episode, and whole replies, go on; one that ends makes room."""
    engine.gate.clear()
    path, body = CHAT
    async with make(STREAMS_PER_TOKEN=2) as bench:
        tokens = [mint(Claims(sub="e1", agent=name), [KEY]) for name in ("a", "b")]
        stream = {**body, "stream": True}
        asking = [asyncio.create_task(bench.post(path, stream, token=tokens[0])) for _ in range(2)]
        await bench.until(lambda: len(engine.calls) == 2)
        status, headers, _ = await bench.post(path, stream, token=tokens[0])
        assert (429, "1") == (status, headers["Retry-After"])
        asking += [
            asyncio.create_task(bench.post(path, stream, token=tokens[1])),
            asyncio.create_task(bench.post(path, body, token=tokens[0])),
        ]
        await bench.until(lambda: len(engine.calls) == 4)
        engine.gate.set()
        assert [200] * 4 == [status for status, _, _ in await asyncio.gather(*asking)]
        assert 200 == (await bench.post(path, stream, token=tokens[0]))[0]


async def test_counts_of_tokens_have_bounds_of_their_own(make, engine):
    """So many at once, and so many in all; they take none of the episode's calls."""
    path, body = CLAUDE
    count = "/e/e1/v1/messages/count_tokens"
    engine.gate.clear()
    async with make(calls_per_episode=2, MAX_EPISODE_CALLS=3) as bench:
        asking = [
            asyncio.create_task(bench.post(count, body, token=bench.token())) for _ in range(2)
        ]
        await bench.until(lambda: engine.counted == 2)
        status, headers, answer = await bench.post(count, body, token=bench.token())
        assert (429, "1") == (status, headers["Retry-After"])
        assert "rate_limit_error" == told("messages", status, answer)["type"]
        engine.gate.set()
        assert [200, 200] == [status for status, _, _ in await asyncio.gather(*asking)]
        assert 200 == (await bench.post(count, body, token=bench.token()))[0]
        status, headers, answer = await bench.post(count, body, token=bench.token())
        assert (429, "false") == (status, headers["x-should-retry"])
        assert {"too_many_calls": 1, "budget_spent": 1} == bench.proxy.refused
        assert 200 == (await bench.post(path, body, token=bench.token()))[0]


async def test_a_retry_that_gets_a_recorded_reply_costs_no_call(make, engine):
    """Whose client has lost its connection may come again, although the budget is spent."""
    from odradek.proxy.calls.call import RETRY_COUNT

    path, body = CHAT
    async with make() as bench:
        token = mint(Claims(sub="e1", max_calls=1), [KEY])
        engine.gate.clear()
        asking = asyncio.create_task(bench.post(path, body, token=token))
        await engine.entered.wait()
        asking.cancel()
        await bench.until(lambda: any(c.gone for s in bench.proxy.episodes for c in s.calls))
        engine.gate.set()
        status, _, _ = await bench.post(path, body, token=token, headers={RETRY_COUNT: "1"})
        assert (200, 1) == (status, len(engine.calls))
        assert 429 == (await bench.post(path, body, token=token))[0]
