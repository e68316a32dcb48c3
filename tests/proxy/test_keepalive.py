"""A stream's agent hears something every ten seconds; here every few milliseconds."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from anthropic import APIStatusError, AsyncAnthropic
from openai import APIError

from odradek.proxy.calls.keepalive import SILENCE_S
from odradek.schemas.events import parsed

from .test_ack import DeadLog, SlowLog
from .test_chunkings import BODIES, events
from .test_retries import RETRY_COUNT

PATHS = list(BODIES)
SOON_S = 0.02
PINGS = {"/messages": b'event: ping\ndata: {"type":"ping"}\n\n'}
COMMENT = b": ping\n\n"
HI = [{"role": "user", "content": "hi"}]


def ping(path):
    return PINGS.get(path, COMMENT)


@pytest.fixture
def soon(make):
    """Proxies that have little patience with silence."""

    @asynccontextmanager
    async def start(*args, **settings):
        async with make(*args, **{"CONNECT_S": 0.25, **settings}) as bench:
            bench.proxy.calls.silence_s = SOON_S
            yield bench

    return start


def asked(path, **more):
    return {"model": "m", **BODIES[path], "thinking": {"type": "disabled"}, "stream": True, **more}


@asynccontextmanager
async def asking(bench, path, headers=None, **more):
    """An agent's call, its answer under way."""
    sent = {"Authorization": f"Bearer {bench.token()}", **(headers or {})}
    url = f"{bench.url}/e/e1/v1{path}"
    async with (
        ClientSession(timeout=ClientTimeout(total=20)) as session,
        session.post(url, json=asked(path, **more), headers=sent) as answer,
    ):
        yield answer


async def heard(answer, words, times=1):
    """What came until these words had come so often."""
    seen = b""
    while seen.count(words) < times:
        chunk = await answer.content.readany()
        assert chunk, seen
        seen += chunk
    return seen


def told(path, answer):
    """The data of an answer's events but for pings, numbers of calls aside."""
    found = [
        one for one in events(answer) if one != b'{"type":"ping"}' and one != b'{"type": "ping"}'
    ]
    return [one if one == b"[DONE]" else json.loads(one) for one in found]


def test_ten_seconds_are_less_than_any_watchdogs_patience():
    """The shortest that were seen are 20 s."""
    assert 10 == SILENCE_S


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_falls_silent_is_kept_alive(soon, engine, path):
    """In its middle, as often as it takes; and what it says is what it would have said."""
    async with soon() as bench:
        engine.gate.clear()
        async with asking(bench, path) as answer:
            seen = await heard(answer, ping(path), 3 + (path == "/messages"))
            engine.gate.set()
            seen += await answer.content.read()
        bench.proxy.calls.silence_s = 60.0
        engine.calls.clear()
        async with asking(bench, path) as answer:
            plain = await answer.content.read()
        assert told(path, plain) == told(path, seen)
        assert COMMENT not in plain
        first, second = bench.turns()
        assert ("", "", first.completion) == (first.error, first.untrainable, second.completion)


async def test_googles_stream_is_kept_alive_by_blank_lines(soon, engine):
    """A comment is an event to its own client; a blank line is nothing, in an array as well."""
    for alt in ("?alt=sse", ""):
        engine.gate.clear()
        async with soon() as bench, ClientSession() as session:
            async with session.post(
                f"{bench.url}/e/e1/v1beta/models/m:streamGenerateContent{alt}",
                json={"contents": [{"parts": [{"text": "hi"}]}]},
                headers={"x-goog-api-key": bench.token()},
            ) as answer:
                seen = await heard(answer, b"\n", 12)
                engine.gate.set()
                seen += await answer.content.read()
            (turn,) = bench.turns()
            assert "" == turn.error
            told = [json.loads(one) for one in events(seen)] if alt else json.loads(seen)
            assert "STOP" == told[-1]["candidates"][0]["finishReason"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_engine_that_says_nothing_at_all_is_waited_for(soon, engine, path):
    """Also where the head of its answer comes with the first token."""
    async with soon() as bench:
        engine.head.clear()
        async with asking(bench, path) as answer:
            assert (200, "text/event-stream") == (answer.status, answer.content_type)
            assert ping(path) in await heard(answer, ping(path), 2)
            engine.head.set()
            assert (
                b"stop" if path != "/responses" else b"completed"
            ) in await answer.content.read()
        (turn,) = bench.turns()
        assert ("", False) == (turn.error, turn.disconnected)


async def test_reasoning_that_is_not_shown_is_silence(soon, engine):
    """The engine sends chunk after chunk, and the agent sees none of them."""
    async with soon() as bench:
        engine.script = [{"reasoning": "hm, " * 2000, "content": "so"}]
        bench.proxy.calls.silence_s = 0.001
        async with asking(bench, "/messages") as answer:
            seen = await answer.content.read()
    names = [line for line in seen.split(b"\n") if line.startswith(b"event: ")]
    begun = names.index(b"event: message_start")
    assert 0 < begun
    assert {b"event: ping"} == set(names[:begun])
    assert [b"event: ping", b"event: content_block_start"] == names[begun + 1 : begun + 3]


@pytest.mark.parametrize("path", PATHS)
async def test_an_end_that_waits_for_the_log_is_silence(soon, path):
    """It waits for as long as the call may last."""
    log = SlowLog()
    async with soon(log) as bench, asking(bench, path) as answer:
        await log.asked.wait()
        seen = await heard(answer, ping(path), 2 + (path == "/messages"))
        assert b'"stop"' not in seen
        log.go.set()
        rest = await answer.content.read()
        assert not [turn.error for turn in bench.turns() if turn.error]
        assert b"log_unavailable" not in rest


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_goes_out_while_another_engine_may_be_asked(soon, engine, path):
    """An engine that is busy, or away: the agent gets the status that SDKs try again at."""
    async with soon(engine_wait_s=0.3) as bench:
        engine.mode = "busy"
        async with asking(bench, path) as answer:
            assert 503 == answer.status
            assert ping(path) not in await answer.read()


async def test_nothing_goes_out_while_a_connection_is_being_made(soon):
    """Who does not connect has not got the call."""
    async with (
        soon(engine_url="http://127.0.0.1:9", engine_wait_s=0.3) as bench,
        asking(bench, "/messages") as answer,
    ):
        assert 503 == answer.status


@pytest.mark.parametrize("path", PATHS)
async def test_whole_replies_are_as_they_were(soon, engine, path):
    """Nothing can go before them."""
    async with soon() as bench:
        engine.gate.clear()
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(whole(bench, path))
            await engine.entered.wait()
            await asyncio.sleep(5 * SOON_S)
            engine.gate.set()
        assert (200, True) == (call.result()[0], call.result()[1].startswith(b"{"))


async def whole(bench, path):
    async with asking(bench, path, stream=False) as answer:
        return answer.status, await answer.read()


FAILURES = ["error", "broken", "drop", "slow", "sealed", "log"]


async def fail(bench, engine, how):
    """Let a silent call end badly."""
    if how == "slow":
        return
    if how == "sealed":
        bench.proxy.seals._wait_s = 0.05
        await bench.seal()
        return
    if how == "log":
        bench.log.failing = True
    engine.late = how
    engine.head.set()


@pytest.fixture
def late(engine):
    """The engine answers badly, and late."""
    stream = engine.stream

    async def answer(request, chunks):
        await engine.head.wait()
        if engine.late == "drop":
            request.transport.close()
        if engine.late in {"error", "broken"}:
            engine.mode = engine.late
            _, answer = await engine.take(request)
            return answer
        return await stream(request, chunks)

    engine.late = ""
    engine.stream = answer
    engine.head.clear()
    return engine


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("path", PATHS)
async def test_an_error_behind_a_sign_of_life_is_the_dialects_own(soon, late, path, how):
    """It is too late for a status; the turn is recorded as failed, and nothing looks like an end."""
    more = {"call_s": 0.9} if how in {"slow", "log"} else {}
    async with soon(seal_wait_s=0.05, **more) as bench:
        async with asking(bench, path) as answer:
            await heard(answer, ping(path))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail(bench, late, how))
                rest = await answer.content.read()
        last = told(path, rest)[-1]
        assert b"[DONE]" != last
        kind = {"/messages": "error", "/responses": "response.failed"}.get(path)
        assert kind == last.get("type")
        error = last["response"]["error"] if path == "/responses" else last["error"]
        words = {"error": "the prompt is too long", "broken": "the engine answered 500", "drop": "broke",
                 "slow": "deadline", "sealed": "sealed", "log": "withheld"}  # fmt: skip
        assert words[how] in error["message"]
        if how == "log":
            return
        (turn,) = bench.turns()
        assert turn.error
        assert b"" == turn.completion.ids


@pytest.mark.parametrize("path", PATHS)
async def test_a_retry_that_waits_for_its_first_try_hears_something(soon, engine, path):
    """The reply is the first one's, and the turn is not cut."""
    async with soon() as bench:
        bench.proxy.calls.silence_s = 60.0
        engine.head.clear()
        await left(bench, path, engine)
        bench.proxy.calls.silence_s = SOON_S
        async with asking(bench, path, {RETRY_COUNT: "1"}) as answer:
            seen = await heard(answer, ping(path), 2)
            engine.head.set()
            seen += await answer.content.read()
        assert 1 == len(engine.calls)
        (turn,) = bench.turns()
        assert ("", False, 1) == (turn.error, turn.disconnected, turn.retry_count)
        assert told(path, seen)


async def left(bench, path, engine, **more):
    """A first try whose client leaves while the engine is at it."""
    first = asyncio.create_task(whole_stream(bench, path, **more))
    await engine.entered.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    (call,) = next(iter(bench.proxy.episodes)).calls
    await bench.until(lambda: call.gone)


async def whole_stream(bench, path, **more):
    async with asking(bench, path, **more) as answer:
        return await answer.content.read()


@pytest.mark.parametrize("path", PATHS)
async def test_a_retry_is_told_in_its_stream_that_the_first_try_failed(soon, late, path):
    """It has heard something, so it can have no status."""
    async with soon() as bench:
        bench.proxy.calls.silence_s = 60.0
        await left(bench, path, late)
        bench.proxy.calls.silence_s = SOON_S
        async with asking(bench, path, {RETRY_COUNT: "1"}) as answer:
            await heard(answer, ping(path))
            await fail(bench, late, "error")
            rest = await answer.content.read()
        assert b"the prompt is too long" in rest
        assert b"error" in rest


async def test_a_client_that_leaves_in_silence_leaves_nothing_behind(soon, engine):
    """Its turn is cut, as ever, and no sign of life is given to nobody."""
    async with soon() as bench:
        engine.gate.clear()
        async with asking(bench, "/messages") as answer:
            await heard(answer, PINGS["/messages"], 2)
            answer.close()
        (call,) = next(iter(bench.proxy.episodes)).calls
        await bench.until(lambda: call.gone)
        engine.gate.set()
        await bench.until(bench.turns)
        assert bench.turns()[0].disconnected


# What the SDKs make of it.


async def chat(bench, **more):
    stream = await bench.ask(stream=True, **more)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def respond(bench):
    async with bench.agent().responses.stream(model="policy", input="hi") as stream:
        found = [event async for event in stream]
    return found


async def message(bench):
    async with (
        AsyncAnthropic(
            base_url=f"{bench.url}/e/e1", api_key=bench.token(), max_retries=2
        ) as client,
        client.messages.stream(model="policy", max_tokens=50, messages=HI) as stream,
    ):
        return await stream.get_final_message()


SDKS = {"chat": chat, "responses": respond, "messages": message}


@pytest.mark.parametrize("sdk", SDKS)
async def test_an_sdk_does_not_notice(soon, engine, sdk):
    """Whole and unharmed, the reply comes out of the client."""
    async with soon() as bench:
        engine.head.clear()
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(SDKS[sdk](bench))
            await engine.entered.wait()
            await bench.until(lambda: begun(bench))
            engine.head.set()
        (turn,) = bench.turns()
        assert "" == turn.error
        assert parsed(turn.reply.message)["content"].split()[-1] in repr(call.result())


def begun(bench):
    return any(
        call.line and call.line.begun for story in bench.proxy.episodes for call in story.calls
    )


@pytest.mark.parametrize("how", ["error", "drop", "sealed"])
@pytest.mark.parametrize("sdk", SDKS)
async def test_an_sdk_raises_and_does_not_ask_again(soon, late, sdk, how):
    """Errors within a stream are the agent's to handle: no SDK repeats a call whose answer began."""
    async with soon(seal_wait_s=0.05) as bench:
        call = asyncio.create_task(SDKS[sdk](bench))
        await late.entered.wait()
        await bench.until(lambda: begun(bench))
        await fail(bench, late, how)
        if sdk == "messages":
            with pytest.raises(APIStatusError):
                await call
        elif sdk == "chat":
            with pytest.raises(APIError):
                await call
        else:
            assert "response.failed" == (await call)[-1].type
        assert 1 == len({json.dumps(one) for one in late.calls})
        assert [True] == [bool(turn.error) for turn in bench.turns()]


async def test_a_log_that_stays_away_is_told_behind_a_sign_of_life(soon, engine):
    """The stream had begun with nothing but that."""
    log = DeadLog()
    async with soon(log, call_s=0.5, log_timeout_s=0.2) as bench:
        engine.script = [{"content": ""}]
        async with asking(bench, "/chat/completions") as answer:
            assert b"log_unavailable" in await answer.content.read()


@pytest.mark.parametrize("path", PATHS)
async def test_no_error_behind_a_sign_of_life_repeats_the_salt(soon, late, path):
    """As little as one before it does."""
    async with soon() as bench, asking(bench, path) as answer:
        late.failure = lambda: web.json_response({"detail": 'cache_salt "0" is bad'}, status=500)
        await heard(answer, ping(path))
        await fail(bench, late, "broken")
        rest = await answer.content.read()
        assert b"salt" in rest
        assert b"cache_salt" not in rest
