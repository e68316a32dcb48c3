"""Several engines: who gets a call, and what happens when an engine takes none."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st
from openai import InternalServerError

from odradek.proxy.engines import member as members
from odradek.proxy.engines import pool
from odradek.proxy.engines.client import Engine
from odradek.proxy.engines.member import PoolEngine
from odradek.proxy.engines.pool import ranked
from odradek.proxy.errors import EngineBroke, EngineSlow, EngineUnreachable
from odradek.proxy.settings import ProxySettings
from tests.support.engines.stub_engine import StubEngine, listening

URLS = [f"http://10.0.0.{n}:8000" for n in range(5)]
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PATH = "/v1/chat/completions"


@given(st.text(), st.sampled_from(URLS))
def test_an_engine_that_leaves_moves_only_its_own_episodes(episode, gone):
    """The order of the others stays as it was, so their prefix caches stay warm."""
    assert [url for url in ranked(URLS, episode) if url != gone] == ranked(
        [url for url in URLS if url != gone], episode
    )


def test_episodes_are_spread_evenly():
    """5,000 episodes on five engines: each has its share, within a tenth."""
    share = Counter(ranked(URLS, f"episode-{n}")[0] for n in range(5000))
    assert all(900 < count < 1100 for count in share.values())


def test_engines_are_settings_and_carry_no_credentials():
    """One list, each once; a password in an address would be printed."""
    several = ProxySettings(engine_url="http://a:1/v1, http://b:2/,http://a:1")
    assert several.engine_urls == ["http://a:1", "http://b:2"]
    for bad in ("ftp://a", "http://a, b", "http://u:p@a"):
        with pytest.raises(ValueError, match=r"engine_url|ENGINE_URL"):
            ProxySettings(engine_url=bad)


class Fleet:
    """Stub engines, and a proxy before them."""

    def __init__(self, engines, bench):
        self.engines = engines
        self.bench = bench

    def of(self, episode):
        """The stub that an episode keeps to."""
        first = ranked([engine.url for engine in self.engines], episode)[0]
        return next(engine for engine in self.engines if engine.url == first)

    def others(self, episode):
        return [engine for engine in self.engines if engine is not self.of(episode)]


@pytest.fixture
def fleet(make):
    """Several engines behind one proxy."""

    @asynccontextmanager
    async def start(n=3, **settings):
        async with AsyncExitStack() as stack:
            engines = [Busy() for _ in range(n)]
            for engine in engines:
                engine.url = await stack.enter_async_context(listening(engine.app()))
            urls = ",".join(engine.url for engine in engines)
            bench = await stack.enter_async_context(make(engine_url=urls, **settings))
            yield Fleet(engines, bench)

    return start


class Busy(StubEngine):
    """An engine that can be busy: `mode` "busy" answers 503 as while weights are swapped."""

    refused = 0

    async def chat(self, request):
        if self.mode == "busy":
            self.refused += 1
            self.entered.set()
            return web.json_response({"error": {"message": "paused", "code": 503}}, status=503)
        return await super().chat(request)

    async def health(self, request):
        return web.Response(status=500 if self.mode == "sick" else 200)


async def test_an_episode_keeps_to_its_engine(fleet):
    """All calls of an episode reach one engine, and the episodes reach all of them."""
    async with fleet() as found:
        for episode in range(12):
            for _ in range(3):
                await found.bench.ask(episode=f"e{episode}")
        wanted = Counter(found.of(f"e{n}").url for n in range(12))
        assert {engine.url: 3 * wanted[engine.url] for engine in found.engines} == {
            engine.url: len(engine.calls) for engine in found.engines
        }
        assert found.bench.proxy.engine.moved == 0


@pytest.mark.parametrize("mode", ["busy", "drop"])
async def test_a_call_that_its_engine_does_not_take_goes_to_the_next(fleet, mode):
    """The agent notices nothing, and one turn is recorded."""
    async with fleet() as found:
        found.of("e1").mode = mode
        reply = await found.bench.ask()
        assert reply.choices[0].finish_reason == "stop"
        assert len(found.bench.turns()) == 1
        assert sum(len(engine.calls) for engine in found.others("e1")) == 1
        assert found.bench.proxy.engine.moved == 1


async def test_after_the_first_byte_no_other_engine_is_asked(fleet):
    """A stream that breaks is broken: its agent has seen the beginning of this sample."""
    async with fleet() as found:
        found.of("e1").mode = "die"
        status, _, body = await found.bench.post(
            f"/e/e1{PATH}", {**BODY, "stream": True}, token=found.bench.token()
        )
        assert status == 200
        assert b"engine_broke" in body
        assert not any(engine.calls for engine in found.others("e1"))
        (turn,) = found.bench.turns()
        assert turn.error


async def test_a_call_that_breaks_engines_breaks_two_at_most(fleet):
    """It may be the call that breaks them: the rest of the fleet is spared."""
    async with fleet(5) as found:
        for engine in found.engines:
            engine.mode = "drop"
        with pytest.raises(InternalServerError):
            await found.bench.ask()
        assert sum(len(engine.calls) for engine in found.engines) == pool.MAX_BROKEN


async def test_an_engine_that_broke_is_not_asked_again_while_others_are_busy(fleet):
    """It may have sampled: the call waits for another."""
    async with fleet(3, engine_wait_s=30.0) as found:
        found.of("e1").mode = "drop"
        for engine in found.others("e1"):
            engine.mode = "busy"
        asking = asyncio.create_task(found.bench.ask())
        await found.bench.until(lambda: all(e.refused > 2 for e in found.others("e1")))
        assert 1 == len(found.of("e1").calls)
        found.others("e1")[0].mode = "ok"
        assert (await asking).choices[0].finish_reason == "stop"


async def test_a_single_engine_that_breaks_is_not_asked_again(make, engine):
    """It may have sampled."""
    async with make(engine_wait_s=5.0) as bench:
        engine.mode = "drop"
        with pytest.raises(InternalServerError):
            await bench.ask()
        assert len(engine.calls) == 1


async def test_a_call_waits_while_weights_are_swapped(fleet):
    """All engines are busy: the call is held until one takes it, and none is lost."""
    async with fleet(2, engine_wait_s=30.0) as found:
        for engine in found.engines:
            engine.mode = "busy"
        asking = [asyncio.create_task(found.bench.ask(episode=f"e{n}")) for n in range(8)]
        for engine in found.engines:
            await engine.entered.wait()
        for engine in found.engines:
            engine.mode = "ok"
        replies = await asyncio.gather(*asking)
        assert ["stop"] * 8 == [reply.choices[0].finish_reason for reply in replies]
        assert all(len(found.bench.turns(f"e{n}")) == 1 for n in range(8))


async def test_a_call_waits_for_an_engine_that_restarts(make, engine):
    """Nobody listens at first."""
    async with AsyncExitStack() as stack:
        late = StubEngine()
        runner = web.AppRunner(late.app())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        port = free_port()
        async with make(engine_url=f"http://127.0.0.1:{port}", engine_wait_s=30.0) as bench:
            asking = asyncio.create_task(bench.ask())
            await bench.until(lambda: any(story.calls for story in bench.proxy.episodes))
            await web.TCPSite(runner, "127.0.0.1", port).start()
            assert (await asking).choices[0].finish_reason == "stop"


def free_port():
    """One that nobody listens on just now."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def test_a_swap_that_takes_too_long_is_a_503_that_the_sdk_obeys(fleet):
    """Retry-After is there although the engine names none; the SDK's retry gets the reply."""
    async with fleet(1) as found:
        (engine,) = found.engines
        engine.mode = "busy"
        status, headers, _ = await found.bench.post(f"/e/e1{PATH}", BODY, token=found.bench.token())
        assert (status, headers["Retry-After"]) == (503, "1")
        agent = found.bench.agent(max_retries=2)
        asking = asyncio.create_task(
            agent.chat.completions.create(model="policy", messages=BODY["messages"])
        )
        await found.bench.until(lambda: engine.refused >= 2)
        engine.mode = "ok"
        assert (await asking).choices[0].finish_reason == "stop"
        *refused, last = found.bench.turns()
        assert all(turn.error for turn in refused)
        assert not last.error


class Dead(Engine):
    """An engine whose connections fail."""

    asked = 0
    error = EngineUnreachable

    async def ask(self, path, body, traceparent):
        self.asked += 1
        raise self.error("away")


async def test_a_dead_engine_is_left_alone_for_a_while(engine, monkeypatch):
    """After five failures in a row nobody waits for its connections; then it is tried again."""
    monkeypatch.setattr(members, "OPEN_S", 1000)
    dead = Dead("http://127.0.0.1:9")
    both = pool.Pool([dead, Engine(engine.url)], clock=lambda: 0.0, health_s=1000)
    mine = [f"e{n}" for n in range(100) if ranked([dead.url, engine.url], f"e{n}")[0] == dead.url]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(both.aclose)
        for member in both._members.values():
            await member.engine.start()
        for episode in mine[:20]:
            async with await both.ask(PATH, b'{"messages": []}', None, episode=episode) as answer:
                assert answer.status == 200
        assert dead.asked == members.FAILURES
        assert (1, 2) == (both.up, len(both))
        for member in both._members.values():
            member.answered()  # what a call after the pause finds
        async with await both.ask(PATH, b'{"messages": []}', None, episode=mine[0]):
            assert dead.asked == members.FAILURES + 1


async def test_slowness_is_no_reason_to_sample_elsewhere():
    """An engine that has the call and takes long is not doubled."""
    slow, other = Dead("http://a"), Dead("http://b")
    slow.error = other.error = EngineSlow
    both = pool.Pool([slow, other], clock=lambda: 0.0)
    with pytest.raises(EngineSlow):
        async with await both.ask(PATH, b"", None, episode="e"):
            pass
    assert 1 == slow.asked + other.asked


async def test_a_sick_engine_gets_no_new_calls(fleet):
    """Its health says so before a call does."""
    async with fleet(HEALTH_S=0.02) as found:
        found.of("e1").mode = "sick"
        await found.bench.until(lambda: found.bench.proxy.engine.up == 2)
        await found.bench.ask()
        assert not found.of("e1").calls
        found.of("e1").mode = "ok"
        await found.bench.until(lambda: found.bench.proxy.engine.up == 3)
        await found.bench.ask()
        assert len(found.of("e1").calls) == 1


async def test_ready_means_that_one_engine_answers(fleet):
    """And health tells how many of them do."""
    async with fleet(HEALTH_S=0.02) as found, ClientSession() as session:
        for engine in found.engines[:2]:
            engine.mode = "sick"
        await found.bench.until(lambda: found.bench.proxy.engine.up == 1)
        async with session.get(found.bench.url + "/readyz") as answer:
            assert answer.status == 200
        async with session.get(found.bench.url + "/healthz") as answer:
            assert {"up": 1, "all": 3} == (await answer.json())["engines"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_falls_silent_is_a_504(make, engine, stream):
    """The call's deadline bounds the silence."""
    engine.gate.clear()
    async with make(call_s=1.0 if stream else 0.3) as bench:
        status, _, body = await bench.post(
            f"/e/e1{PATH}", {**BODY, "stream": stream}, token=bench.token()
        )
        assert b"engine_slow" in body
        assert (200 if stream else 504) == status


def test_a_member_is_judged_by_its_connections_alone():
    """Errors of the engine's own are answers; five broken connections are none."""
    member = PoolEngine(Engine("http://a"))
    for error in [EngineUnreachable("x")] * 3 + [EngineBroke("y")]:
        member.failed(error)
    assert member.available
    member.answered()
    for _ in range(members.FAILURES):
        member.failed(EngineBroke("y"))
    assert not member.available


async def test_what_an_engine_answers_with_cannot_send_the_proxy_elsewhere(make):
    """A redirect is an answer like another: nobody follows it."""
    asked = []

    async def elsewhere(request):
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/secret"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", elsewhere)
    async with listening(app) as url, make(engine_url=url) as bench:
        status, headers, _ = await bench.post(f"/e/e1{PATH}", BODY, token=bench.token())
        assert "Location" not in headers
        assert status != 200 or bench.turns()[0].error
        assert [PATH] == asked


async def test_agents_get_an_engines_own_retry_after_and_none_of_its_cookies(make):
    """What it asks to wait is what the SDKs wait; its other headers are its own business."""
    sent = {"Retry-After": "7", "X-Request-Id": "r", "Set-Cookie": "a=b", "X-Inner": "1"}

    async def busy(request):
        return web.json_response({"error": {"message": "busy"}}, status=429, headers=sent)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", busy)
    async with listening(app) as url, make(engine_url=url) as bench:
        status, headers, _ = await bench.post(f"/e/e1{PATH}", BODY, token=bench.token())
        assert (429, "7", "r") == (status, headers["Retry-After"], headers["X-Request-Id"])
        assert not {"Set-Cookie", "X-Inner"} & set(headers)


async def test_the_proxys_environment_does_not_decide_where_calls_go(make, engine, monkeypatch):
    """Proxy variables are for other programs: prompts and the engine's key take no detour."""
    asked = []

    async def detour(request):
        asked.append(request.path)
        return web.Response(status=502)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", detour)
    async with listening(app) as url:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", url)
        async with make() as bench:
            status, _, _ = await bench.post(f"/e/e1{PATH}", BODY, token=bench.token())
            assert (200, []) == (status, asked)
