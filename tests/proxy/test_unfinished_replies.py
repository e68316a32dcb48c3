"""Replies that no model ended: another engine is asked, or the agent is told in its dialect."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import ClientSession, web

from odradek.proxy.calls import stream as relay
from odradek.proxy.engines.pool import ranked
from odradek.schemas.events import parsed
from tests.support.engines.engine_shapes import (
    DONE,
    FAILURES,
    HEAD,
    ROLE,
    USAGE,
    chunk,
    event,
    text,
    whole,
)
from tests.support.engines.stub_engine import StubEngine, listening

from .test_chunkings import BODIES, events
from .test_reply_shapes import DIALECTS

PATHS = [*BODIES, "gemini"]
SO = {"role": "assistant", "content": "so"}


class Scripted(StubEngine):
    """Answers with bytes that a test has written; "" lets the stub answer."""

    wire = b""
    body = b""
    breaks = False
    step = 0
    """In how many bytes at a time it sends a stream; 0 for all at once."""
    status = 200
    kind = ""
    """What it calls its answer, where that is not what it is."""
    pause = None
    """What the answer waits for behind its wire."""

    async def chat(self, request):
        return await self.scripted(request) or await super().chat(request)

    async def complete(self, request):
        return await self.scripted(request) or await super().complete(request)

    async def scripted(self, request):
        if not (self.wire or self.body or self.breaks or self.status != 200):
            return None
        self.calls.append(await request.json())
        if self.status != 200:
            return web.Response(body=self.body, status=self.status)
        if not self.calls[-1].get("stream") or (self.body and not self.wire):
            if not self.breaks:
                kind = self.kind or "application/json"
                return web.Response(body=self.body, headers={"Content-Type": kind})
            response = web.StreamResponse(headers={"Content-Length": "999"})
            await response.prepare(request)
            await response.write(b"{")
        else:
            kind = self.kind or "text/event-stream"
            response = web.StreamResponse(headers={"Content-Type": kind, "X-Request-Id": "r1"})
            await response.prepare(request)
            for at in range(0, len(self.wire), self.step or len(self.wire)):
                await response.write(self.wire[at : at + (self.step or len(self.wire))])
        if self.pause is not None:
            await self.pause.wait()
            await response.write(event(chunk(finish="abort")))
        if self.breaks:
            request.transport.close()
            return response
        await response.write_eof()
        return response


@pytest.fixture
def pair(make):
    """Two engines behind one proxy: the first that e1 is sent to, and the other."""

    @asynccontextmanager
    async def start():
        async with AsyncExitStack() as stack:
            engines = [Scripted() for _ in range(2)]
            for engine in engines:
                engine.url = await stack.enter_async_context(listening(engine.app()))
            urls = [engine.url for engine in engines]
            bench = await stack.enter_async_context(make(engine_url=",".join(urls)))
            first = ranked(urls, "e1")[0]
            yield bench, *sorted(engines, key=lambda engine: engine.url != first)

    return start


def address(path, stream):
    """Where a dialect is spoken; Google's names the model, and says whether it streams."""
    if path == "gemini":
        path = "/models/m:streamGenerateContent?alt=sse" if stream else "/models/m:generateContent"
    return f"/e/e1/v1{path}"


def asked(path, stream):
    if path == "gemini":
        return {"contents": [{"parts": [{"text": "hi"}]}]}
    thinking = {"thinking": {"type": "disabled"}} if path == "/messages" else {}
    return {"model": "m", **BODIES[path], **thinking, "stream": stream}


def spoken(path, end):
    """A reply of the engine in the words of the dialect's own route, whole and streamed."""
    if path == "/completions":
        choice = {"index": 0, "text": "so", "finish_reason": end}
        return json.dumps({"id": "c", "choices": [choice]}).encode(), event({"choices": [choice]})
    held = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": end}]}
    return json.dumps(whole(SO, end)).encode(), event(held)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("end", ["abort", "cancelled", None])
async def test_before_the_agent_has_seen_anything_another_engine_is_asked(pair, path, stream, end):
    """The agent gets that one's reply, and the log has one turn, which may be trained on."""
    async with pair() as (bench, first, other):
        first.body, wire = spoken(path, end)
        if end is None and path != "/completions":
            wire = b": nothing\n\n"
        first.wire = wire if end else b": nothing\n\n" + DONE
        status, _, answer = await bench.post(
            address(path, stream), asked(path, stream), token=bench.token()
        )
        assert (200, 1, 1) == (status, len(first.calls), len(other.calls))
        (turn,) = bench.turns()
        assert ("", "") == (turn.error, turn.untrainable)
        assert parsed(turn.reply.message)["content"].encode() in joined(answer, stream)
        assert 1 == bench.proxy.engine.moved


def joined(answer, stream):
    """All texts of an answer, in order."""
    found = events(answer) if stream else [answer]
    return "".join(map(texts, (json.loads(one) for one in found if one != b"[DONE]"))).encode()


def texts(value):
    if isinstance(value, list):
        return "".join(map(texts, value))
    if not isinstance(value, dict):
        return ""
    own = [value[name] for name in ("text", "content", "delta") if isinstance(value.get(name), str)]
    if value.get("type", "").endswith((".done", ".completed")):
        return ""
    return "".join(own) + "".join(map(texts, value.values()))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_breaks_unseen_is_asked_for_elsewhere(pair, path, stream):
    """The connection ends behind the head of the answer."""
    async with pair() as (bench, first, _):
        first.breaks, first.wire = True, b": hm\n\n"
        status, _, _ = await bench.post(
            address(path, stream), asked(path, stream), token=bench.token()
        )
        assert 200 == status
        assert [""] == [turn.error for turn in bench.turns()]


TEXT_ROLE = {"id": "c1", "choices": [{"index": 0, "text": "", "finish_reason": None}]}
PRELUDES = {
    "role": [ROLE],
    "role twice": [ROLE, chunk({"role": "assistant", "content": None}), chunk({"content": ""})],
    "nulls": [chunk({"role": "assistant", "content": None, "tool_calls": None, "reasoning": ""})],
    "no words": [{**HEAD, "choices": []}, ROLE, chunk(usage=USAGE), b": hm\n\n", chunk({"tool_calls": []})],
    "numbers": [{**ROLE, "prompt_token_ids": [1, 2]}, chunk(token_ids=[])],
}  # fmt: skip
"""What an engine says before its first word."""
GIVEN_UP = {
    "abort": [chunk(finish="abort"), DONE],
    "an error": [{"error": {"message": "out of memory", "code": 500}}],
    "an error of its own event": [b"event: error\ndata: out of memory\n\n"],
    "no end": [DONE],
    "no end at all": [],
    "no JSON": [b"data: {\n\n"],
    "no text": [b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'],
    "a broken connection": None,
}  # fmt: skip


@pytest.mark.parametrize("behind", GIVEN_UP)
@pytest.mark.parametrize("before", PRELUDES)
@pytest.mark.parametrize("path", PATHS)
async def test_an_engine_that_gives_up_before_its_first_word_leaves_no_trace(
    pair, path, before, behind
):
    """The agent sees one reply, the other engine's, as if nobody else had been asked."""
    async with pair() as (bench, first, other):
        chunks = [*PRELUDES[before], *(GIVEN_UP[behind] or ())]
        if path == "/completions":
            chunks = [TEXT_ROLE, *(GIVEN_UP[behind] or ())]
        first.wire = b"".join(one if isinstance(one, bytes) else event(one) for one in chunks)
        first.breaks = GIVEN_UP[behind] is None
        target, token = address(path, True), bench.token()
        status, _, answer = await bench.post(target, asked(path, True), token=token)
        assert (200, 1, 1) == (status, len(first.calls), len(other.calls))
        (turn,) = bench.turns()
        assert ("", "") == (turn.error, turn.untrainable)
        first.wire, first.breaks = b"", False
        _, _, plain = await bench.post(target, asked(path, True), token=token)
        assert shape(plain) == shape(answer)


def shape(answer):
    """The kinds of an answer's events, without what is one call's own."""
    return [
        one if one == b"[DONE]" else [*sorted(json.loads(one)), json.loads(one).get("type")]
        for one in events(answer)
    ]


@pytest.mark.parametrize("path", ["/messages", "gemini"])
async def test_thoughts_that_no_agent_sees_are_no_first_word(pair, path):
    """An engine that gives up while it thinks leaves its call to another one."""
    async with pair() as (bench, first, other):
        begun = [ROLE, chunk({"reasoning_content": "hm"}), chunk(finish="abort")]
        first.wire = b"".join(map(event, begun))
        status, _, answer = await bench.post(
            address(path, True), asked(path, True), token=bench.token()
        )
        assert (200, 1, 1) == (status, len(first.calls), len(other.calls))
        assert 1 == answer.count(b"event: message_start") or path == "gemini"
        assert [""] == [turn.error for turn in bench.turns()]


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/messages", "/responses"])
async def test_a_sign_of_life_is_no_word(pair, path):
    """Behind one another engine still gives the whole reply."""
    async with pair() as (bench, first, other):
        bench.proxy.calls.silence_s = 0.01
        first.wire = event(TEXT_ROLE if path == "/completions" else ROLE)
        first.pause = asyncio.Event()
        async with (
            ClientSession() as session,
            session.post(
                bench.url + address(path, True), json=asked(path, True),
                headers={"Authorization": f"Bearer {bench.token()}"},
            ) as answer,
        ):  # fmt: skip
            assert b"ping" in await answer.content.readany()
            first.pause.set()
            told = await answer.content.read()
        assert (1, 1) == (len(first.calls), len(other.calls))
        assert not any(word in told for word in (b"event: error", b'"error":{', b"failed"))
        (turn,) = bench.turns()
        assert ("", "") == (turn.error, turn.untrainable)
        assert parsed(turn.reply.message)["content"].encode() in joined(told, True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [500, 501, 502, 504, 599, 408, 302, 307, 304])
async def test_a_fault_of_the_engine_is_asked_for_elsewhere(pair, path, status, stream):
    """Whatever it says of it; and where all have one, its agent gets an error that SDKs repeat."""
    async with pair() as (bench, first, other):
        first.status, first.body = status, b'{"detail": "out of memory"}'
        target, token = address(path, stream), bench.token()
        found, _, answer = await bench.post(target, asked(path, stream), token=token)
        assert (200, 1, 1) == (found, len(first.calls), len(other.calls))
        (turn,) = bench.turns()
        assert ("", "") == (turn.error, turn.untrainable)
        assert parsed(turn.reply.message)["content"].encode() in joined(answer, stream)
        other.status = status
        found, _, answer = await bench.post(target, asked(path, stream), token=token)
        assert (status if status >= 400 else 502) == found
        assert json.loads(answer)["error"]["message"]
        assert (2, 2, True) == (len(first.calls), len(other.calls), bool(bench.turns()[1].error))


async def test_an_event_beyond_any_bound_is_a_fault_of_the_engine(pair, monkeypatch):
    """Its call goes elsewhere, and where all send one, it is an error that SDKs repeat."""
    parser = relay.sse.Parser
    monkeypatch.setattr(relay.sse, "Parser", lambda: parser(max_event=1000))
    async with pair() as (bench, first, other):
        first.wire = b"data: " + b"x" * 2000
        target, body, token = address("/messages", True), asked("/messages", True), bench.token()
        status, _, _ = await bench.post(target, body, token=token)
        assert (200, 1) == (status, len(other.calls))
        other.wire = first.wire
        status, headers, _ = await bench.post(target, body, token=token)
        assert (502, "1") == (status, headers["Retry-After"])
        assert [False, True] == [bool(turn.error) for turn in bench.turns()]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_a_fault_of_the_request_is_asked_nowhere_else(pair, path, status, stream):
    """Another engine would say the same."""
    async with pair() as (bench, first, other):
        first.status, first.body = status, b'{"detail": "too long"}'
        found, _, _ = await bench.post(
            address(path, stream), asked(path, stream), token=bench.token()
        )
        assert (status, 0) == (found, len(other.calls))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"no json", b"<html>", b"\xff", b'{"choices": [7]}', b" "])
async def test_a_whole_reply_that_cannot_be_read_is_asked_for_elsewhere(pair, path, body):
    """And where all engines answer so, its agent gets its dialect's error."""
    async with pair() as (bench, first, other):
        first.body = body
        for stream in (False, True):
            target, token = address(path, stream), bench.token()
            status, _, _ = await bench.post(target, asked(path, stream), token=token)
            assert 200 == status
        other.body = body
        for stream in (False, True):
            target, token = address(path, stream), bench.token()
            status, headers, answer = await bench.post(target, asked(path, stream), token=token)
            assert (502, "1") == (status, headers["Retry-After"])
            assert json.loads(answer)["error"]["message"]
        assert [False, False, True, True] == [bool(turn.error) for turn in bench.turns()]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("path", DIALECTS)
async def test_a_stream_that_begins_with_an_error_is_asked_for_elsewhere(pair, path, failure):
    """And where all engines answer so, its agent gets a status, so that SDKs try again."""
    async with pair() as (bench, first, other):
        first.wire = failure if isinstance(failure, bytes) else event(failure)
        target, token = address(path, True), bench.token()
        status, _, _ = await bench.post(target, asked(path, True), token=token)
        assert 200 == status
        other.wire = first.wire
        status, headers, answer = await bench.post(target, asked(path, True), token=token)
        assert (502, "1") == (status, headers["Retry-After"])
        assert json.loads(answer)["error"]["message"]
        assert [False, True] == [bool(turn.error) for turn in bench.turns()]
        assert (2, 2) == (len(first.calls), len(other.calls))


@pytest.mark.parametrize("path", DIALECTS)
async def test_what_the_agent_has_seen_is_not_asked_for_again(pair, path):
    """It gets the dialect's error behind what it saw, and the turn is recorded as failed."""
    async with pair() as (bench, first, other):
        begun = b"".join(map(event, [ROLE, chunk({"content": "so"})]))
        first.wire = begun + event(chunk(finish="abort")) + DONE
        status, _, answer = await bench.post(
            address(path, True), asked(path, True), token=bench.token()
        )
        assert (200, 0) == (status, len(other.calls))
        assert b"error" in answer.split(b"\n\n")[-2]
        assert b"abort" in events(answer)[-1]
        (turn,) = bench.turns()
        assert "abort" in turn.error
        assert "so" == parsed(turn.reply.message)["content"]
        assert {"engine_error": 1} == bench.proxy.calls.failed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
async def test_an_only_engine_that_gives_up_is_a_502(make, path, stream):
    """SDKs repeat the call by themselves."""
    engine = Scripted()
    async with listening(engine.app()) as url, make(engine_url=url) as bench:
        engine.body, engine.wire = spoken(path, "abort")
        status, headers, answer = await bench.post(
            address(path, stream), asked(path, stream), token=bench.token()
        )
        assert (502, "1", 1) == (status, headers["Retry-After"], len(engine.calls))
        assert "abort" in json.loads(answer)["error"]["message"]
        assert "abort" in bench.turns()[0].error


async def test_two_engines_are_asked_at_most(make):
    """A call that breaks engines does not go through all of them."""
    async with AsyncExitStack() as stack:
        engines = [Scripted() for _ in range(4)]
        for engine in engines:
            engine.url = await stack.enter_async_context(listening(engine.app()))
            engine.body, engine.wire = spoken("/chat/completions", "abort")
        urls = ",".join(engine.url for engine in engines)
        bench = await stack.enter_async_context(make(engine_url=urls))
        for stream in (False, True):
            body = asked("/chat/completions", stream)
            status, _, _ = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
            assert 502 == status
        assert 4 == sum(len(engine.calls) for engine in engines)


async def test_a_choice_that_was_given_up_is_no_choice_of_the_call(pair):
    """The whole call goes elsewhere, with all its choices."""
    async with pair() as (bench, first, _):
        ends = [
            {"index": n, "message": SO, "finish_reason": end} for n, end in enumerate(["stop", "abort"])
        ]  # fmt: skip
        first.body = json.dumps({"choices": ends}).encode()
        body = {**asked("/chat/completions", False), "n": 2}
        status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        assert (200, 2) == (status, len(json.loads(answer)["choices"]))
        assert ["", ""] == [turn.error for turn in bench.turns()]


@pytest.mark.parametrize("path", PATHS)
async def test_a_whole_reply_to_who_asked_for_a_stream_becomes_one(make, path):
    """Some gateways do not stream, whatever they are asked."""
    engine = Scripted()
    async with listening(engine.app()) as url, make(engine_url=url) as bench:
        engine.body, _ = spoken(path, "stop")
        target = address(path, True)
        status, headers, answer = await bench.post(target, asked(path, True), token=bench.token())
        assert (200, "text/event-stream") == (status, headers["Content-Type"].split(";")[0])
        assert b"so" in joined(answer, True)
        (turn,) = bench.turns()
        assert ("", "stop") == (turn.error, turn.reply.finish_reason)
        engine.body = b'{\n "error": {\n "message": "out of memory"}}'
        status, _, answer = await bench.post(target, asked(path, True), token=bench.token())
        assert (502, True) == (status, b"out of memory" in answer)


KINDS = ["text/plain", "application/json", "application/octet-stream", "application/x-ndjson", "text/html; charset=utf-8",
         "application/stream+json", "multipart/mixed", "TEXT/EVENT-STREAM", "nonsense"]  # fmt: skip
BEGINNINGS = [
    b"",
    b"\n\n",
    b": hm\n\n",
    b"event: message\n",
    b"id: 1\n",
    b"retry: 5\n",
    b"\xef\xbb\xbf",
    b":\n",
    b"\r\n",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_under_another_type_is_one(make, path, kind):
    """However it begins and comes; its agent gets it under the type of its own."""
    engine = Scripted()
    async with listening(engine.app()) as url, make(engine_url=url) as bench:
        _, engine.wire = spoken(path, "stop")
        if path != "/completions":
            engine.wire = event(chunk({"content": "so"})) + engine.wire
        wire, engine.kind = engine.wire + DONE, kind
        target = address(path, True)
        for place, begun in enumerate(BEGINNINGS):
            engine.wire, engine.step = begun + wire, (0, 1, 3)[place % 3]
            status, headers, answer = await bench.post(
                target, asked(path, True), token=bench.token()
            )
            assert (200, "text/event-stream") == (
                status,
                headers["Content-Type"].split(";")[0].lower(),
            )
            assert ("r1", b"so") == (headers["X-Request-Id"], joined(answer, True))
        assert {("", "stop")} == {(turn.error, turn.reply.finish_reason) for turn in bench.turns()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=utf-8", *KINDS])
async def test_a_whole_reply_under_another_type_is_one(make, path, kind, stream):
    """Agents get JSON as JSON, and as a stream where they asked for one."""
    engine = Scripted()
    async with listening(engine.app()) as url, make(engine_url=url) as bench:
        engine.body, _ = spoken(path, "stop")
        engine.kind = kind
        target = address(path, stream)
        for before in (b"", b"\n", b" \r\n\t"):
            engine.body = before + engine.body
            status, headers, answer = await bench.post(
                target, asked(path, stream), token=bench.token()
            )
            kind = "text/event-stream" if stream else "application/json"
            assert (200, kind) == (status, headers["Content-Type"].split(";")[0])
            assert b"so" in joined(answer, stream)
        assert {("", "stop")} == {(turn.error, turn.reply.finish_reason) for turn in bench.turns()}
        engine.body = b'{\n "error": {\n "message": "out of memory"}}'
        status, _, answer = await bench.post(target, asked(path, stream), token=bench.token())
        assert (502, True) == (status, b"out of memory" in answer)


async def test_text_that_goes_on_is_no_end(make):
    """An empty reason in each chunk holds nothing back until the end."""
    engine = Scripted()
    async with listening(engine.app()) as url, make(engine_url=url) as bench:
        engine.wire = b"".join(map(event, text()[:-1])) + DONE
        body = asked("/chat/completions", True)
        status, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
        assert (200, b"so") == (status, joined(answer, True))
