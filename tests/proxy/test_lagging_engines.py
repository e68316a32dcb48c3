"""Engines that serve older weights than were announced get no calls while another has the newest."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest
from aiohttp import web

from odradek.infra.bus import Record
from odradek.proxy.engines import member as members
from odradek.proxy.engines import pool
from odradek.proxy.engines.client import Engine
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.errors import EngineUnreachable
from odradek.proxy.wire.version_spans import version_of
from odradek.schemas import codec
from odradek.schemas.events import Policy
from tests.support.engines.stub_engine import StubEngine, listening

EPISODES = [f"e{n}" for n in range(12)]
HI = [{"role": "user", "content": "hi"}]


class Ill(StubEngine):
    """An engine that may be unhealthy, or slow to say what it serves."""

    async def health(self, request):
        return web.Response(status=500 if self.mode == "sick" else 200)

    async def weight_info(self, request):
        if self.mode == "hangs":
            await asyncio.Event().wait()
        return await super().weight_info(request)


@pytest.fixture
def fleet(make, monkeypatch):
    """Engines, and a proxy before them whose log announces version 7, had by all of them."""
    monkeypatch.setattr(members, "ASK_AGAIN_S", 0.01)

    @asynccontextmanager
    async def start(n=2, **settings):
        async with AsyncExitStack() as stack:
            engines = [Ill() for _ in range(n)]
            for engine in engines:
                engine.url = await stack.enter_async_context(listening(engine.app()))
            log = SimpleNamespace(
                current=7, engines={engine.url: 7 for engine in engines}, adapter=""
            )
            bench = await stack.enter_async_context(
                make(engine_url=",".join(e.url for e in engines), versions=log, **settings)
            )
            yield SimpleNamespace(engines=engines, log=log, bench=bench)

    return start


async def call(found, episode="e0"):
    """A call of an episode; its status."""
    path, token = f"/e/{episode}/v1/chat/completions", found.bench.token(episode)
    status, _, _ = await found.bench.post(path, {"model": "m", "messages": HI}, token=token)
    return status


async def ask_all(found):
    """A call of each episode."""
    await asyncio.gather(*(call(found, episode) for episode in EPISODES))


def member(found, engine):
    """What the proxy knows of it."""
    return found.bench.proxy.engine._members[engine.url]


async def away(found, engine, mode="ok", version=7):
    """Break connections of an engine, and let it come back, its circuit closed again."""
    engine.mode = "drop"
    await ask_all(found)
    engine.mode, engine.version = mode, version
    engine.calls.clear()
    member(found, engine).answered()


def salts(engine):
    return {asked["cache_salt"] for asked in engine.calls}


async def test_calls_go_to_the_engines_that_have_the_announced_weights(fleet):
    """The episodes of the others, too; and each of them goes back once its engine has caught up."""
    async with fleet(3) as found:
        old, *new = found.engines
        old.version, found.log.engines[old.url] = 6, 6
        await ask_all(found)
        assert [] == old.calls
        assert {"7"} == salts(new[0]) | salts(new[1])
        for engine in found.engines:
            engine.version = found.log.engines[engine.url] = 8
        found.log.current = 8
        await ask_all(found)
        assert {"8"} == salts(old)


async def test_an_engine_that_caught_up_by_itself_is_found_out(fleet):
    """It is asked what it serves: the trainer loads one that comes back, and announces nothing."""
    async with fleet(HEALTH_S=0.02) as found:
        old = found.engines[0]
        old.version, found.log.engines[old.url] = 6, 6
        await ask_all(found)
        assert [] == old.calls
        old.version = 7
        await found.bench.until(lambda: not member(found, old).serving.lags)
        await ask_all(found)
        assert {"7"} == salts(old)


async def test_an_engine_that_was_started_anew_is_asked_before_it_gets_a_call(fleet):
    """A plain vLLM has its first weights then, whatever was announced of it before."""
    async with fleet() as found:
        lost, well = found.engines
        await ask_all(found)
        await away(found, lost, version=0)
        await ask_all(found)
        assert [] == lost.calls
        assert {7} == {turn.versions[0].version for turn in found.bench.turns() if turn.versions}
        assert {"7"} == salts(well)


async def test_an_engine_that_was_unhealthy_is_asked_too(fleet):
    """It may have been started anew in between."""
    async with fleet(HEALTH_S=0.02) as found:
        lost = found.engines[0]
        lost.mode = "sick"
        await found.bench.until(lambda: found.bench.proxy.engine.up == 1)
        lost.mode, lost.version = "ok", 0
        await found.bench.until(lambda: found.bench.proxy.engine.up == 2)
        await ask_all(found)
        assert [] == lost.calls


async def test_an_engine_whose_own_reply_is_of_older_weights_gets_no_more_calls(fleet):
    """Nobody has noticed that it was started anew until it says so."""
    async with fleet() as found:
        lost = found.engines[0]
        lost.version = 0
        await ask_all(found)
        assert {"7"} == salts(lost)
        lost.calls.clear()
        await ask_all(found)
        assert [] == lost.calls
        counted = {
            turn.cache_salt: turn.versions[0].version
            for name in EPISODES
            for turn in found.bench.turns(name)
            if turn.versions[0].version == 0
        }
        assert {7: 0} == counted, "the reply is recorded as what it is"


async def test_old_weights_are_better_than_none(fleet):
    """Where the engines that have the newest are away; recorded and salted as what they are."""
    async with fleet(engine_wait_s=0.05) as found:
        old, new = found.engines
        old.version, found.log.engines[old.url] = 6, 6
        new.mode = "drop"
        for episode in EPISODES:
            for _ in range(members.FAILURES):
                if 200 == await call(found, episode):
                    break
        assert {"6"} == salts(old)


async def test_a_call_waits_for_an_engine_that_is_about_to_be_loaded(fleet):
    """One that came back with its first weights: its host, or the trainer, loads the newest."""
    async with fleet(1, engine_wait_s=30.0) as found:
        (engine,) = found.engines
        engine.version, found.log.engines[engine.url] = 0, 0
        asking = asyncio.create_task(call(found))
        await found.bench.until(lambda: engine.infos > 2)
        assert [] == engine.calls
        engine.version = 7
        await asking
        assert {"7"} == salts(engine)


async def test_a_call_does_not_wait_for_ever_for_newer_weights(fleet):
    """Nobody may load them: then the calls after that do not wait at all."""
    async with fleet(1, engine_wait_s=0.1) as found:
        (engine,) = found.engines
        engine.version, found.log.engines[engine.url] = 0, 0
        for _ in range(3):
            await call(found)
        assert {"0"} == salts(engine)
        assert {(0, 0)} == {
            (turn.cache_salt, turn.versions[0].version) for turn in found.bench.turns("e0")
        }


class Gone(Engine):
    """An engine at which nobody answers."""

    asked = 0

    async def ask(self, path, body, traceparent, **more):
        self.asked += 1
        raise EngineUnreachable("away")

    async def get(self, path, *, timeout_s=10.0):
        return 200, {}, b"{}"


@pytest.fixture
async def pooled(engine):
    """A patient pool of an engine that has version 6 and one that is gone, by a clock that stands."""
    gone = Gone("http://127.0.0.1:9")
    now = [100.0]
    log = SimpleNamespace(current=7, engines={engine.url: 6, gone.url: 7}, adapter="")
    engine.version = 6
    found = pool.Pool(
        [Engine(engine.url), gone], lambda: now[0], versions=log, patience_s=1000, health_s=1000
    )
    await found.start()
    old = found._members[engine.url]
    await old.settle(lambda: 0.0)
    yield SimpleNamespace(pool=found, now=now, old=old, gone=found._members[gone.url])
    await found.aclose()


BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


async def test_a_call_that_the_newest_engines_fail_does_not_wait_for_older_ones(engine, pooled):
    """Those that have been older for long: nobody seems to load them."""
    pooled.now[0] = 1000.5
    async with asyncio.timeout(5):
        asked = pooled.pool.ask("/v1/chat/completions", BODY, None, episode="e", salt="")
        async with await asked as answer:
            assert (200, 6) == (answer.status, answer.sent.salt)
    assert 1 == pooled.gone.engine.asked


async def test_a_call_waits_for_older_engines_only_while_that_is_new(engine, pooled):
    """It is held from then on until the patience with the engine is over."""
    pooled.gone.healthy = False
    asking = asyncio.create_task(
        pooled.pool.ask("/v1/chat/completions", BODY, None, episode="e", salt="")
    )
    await asyncio.wait([asking], timeout=0.1)
    assert not asking.done()
    pooled.now[0] = 1000.5
    async with asyncio.timeout(5):
        async with await asking as answer:
            assert 6 == answer.sent.salt


@pytest.mark.parametrize("named", [{}, {"http://the.trainers.name:8000": 7}])
async def test_engines_that_the_trainer_knows_by_other_names_are_believed(fleet, named):
    """Until they say otherwise."""
    async with fleet() as found:
        found.log.engines = named
        await ask_all(found)
        assert {"7"} == salts(found.engines[0]) == salts(found.engines[1])


async def test_an_engine_that_does_not_tell_is_believed_until_it_is_named(fleet):
    """One older than the question is as it was before."""
    async with fleet() as found:
        mute = found.engines[0]
        await away(found, mute, "no_info")
        await ask_all(found)
        assert {"7"} == salts(mute)
        await away(found, mute, "no_info")
        found.log.engines[mute.url] = 5
        await ask_all(found)
        assert [] == mute.calls


async def test_an_engine_that_is_slow_to_tell_holds_up_no_call_for_long(fleet, monkeypatch):
    """It is asked within bounds; and then called like one that is in doubt."""
    monkeypatch.setattr(members, "HEALTH_TIMEOUT_S", 0.05)
    async with fleet() as found:
        slow = found.engines[0]
        await away(found, slow, "hangs")
        await asyncio.wait_for(ask_all(found), 5)
        assert {"7"} == salts(slow)


async def test_nobody_is_asked_while_nothing_was_announced(fleet):
    """There is nothing to compare with."""
    async with fleet(HEALTH_S=0.01) as found:
        found.log.current, found.log.engines = None, {}
        await away(found, found.engines[0])
        await ask_all(found)
        assert found.engines[0].calls
        assert [0, 0] == [engine.infos for engine in found.engines]


def test_the_newest_policy_says_which_engines_have_it():
    """A repeat of it may name more of them; an older one changes nothing."""
    versions = PolicyVersions("policy")

    def take(version, engines, name="policy"):
        policy = Policy(name=name, version=version, uri="x", engines=engines)
        versions.take(Record("rl.policies.v1", 0, 0, name, codec.encode(policy), (), 0))

    take(4, {"a": 4})
    take(5, {"a": 5, "b": 4})
    assert (5, {"a": 5, "b": 4}) == (versions.current, versions.engines)
    take(4, {"a": 4})
    take(9, {"a": 9}, name="another")
    assert (5, {"a": 5, "b": 4}) == (versions.current, versions.engines)
    take(5, {"a": 5, "b": 5})
    assert (5, {"a": 5, "b": 5}) == (versions.current, versions.engines)
    take(6, {})
    assert (6, {}) == (versions.current, versions.engines)


@pytest.mark.parametrize(
    ("info", "version"),
    [
        (b'{"weight_version": "12"}', 12),
        (b'{"weight_version": 12}', 12),
        (b'{"weight_version": "default"}', 0),
        (b'{"weight_version": "step-42"}', 0),
        (b'{"weight_version": null}', None),
        (b'{"weight_version": 1.5}', None),
        (b'{"weight_version": true}', None),
        (b'{"weight_version": -1}', None),
        (b'{"weight_version": ["12"]}', None),
        (b"{}", None),
        (b"[]", None),
        (b"no json", None),
        (b"\xff", None),
    ],
)
def test_what_an_engine_says_that_it_serves(info, version):
    """A number is ours; any other name is of weights that our trainer did not name."""
    assert version == version_of(info)
